from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ssp_sam.client.labels import Box, fit, label_font, place, written
from ssp_sam.client.overlay import colour, draw_overlay, mask_box
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.limits import MAX_PHRASES
from ssp_sam.results import Segmentation

GREY = (128, 128, 128)


def answer(phrase: str, wh: tuple[int, int], box: Box | None) -> Segmentation:
    mask = np.zeros((wh[1], wh[0]), dtype=bool)
    if box:
        mask[box[1] : box[3], box[0] : box[2]] = True
    corners = np.array(box or (0, 0, 0, 0), dtype=np.float32)
    return Segmentation(phrase, mask, corners, 0.5, box is None, int(mask.sum()))


def pixels(overlay: Image.Image) -> np.ndarray:
    return np.asarray(overlay).astype(int)


@pytest.mark.parametrize("wh", [(1, 1), (20, 9), (200, 150), (640, 480), (60, 700)])
@pytest.mark.parametrize("count", [1, 4, 40])
def test_any_size_and_number(wh: tuple[int, int], count: int) -> None:
    rng = np.random.default_rng(count)
    answers = []
    for i in range(count):
        left, top = (int(rng.integers(side)) for side in wh)
        box = (left, top, int(rng.integers(left, wh[0])) + 1, int(rng.integers(top, wh[1])) + 1)
        answers.append(answer("a very long phrase " * (1 + i % 6), wh, None if i % 3 == 2 else box))
    image = Image.new("RGB", wh, GREY)
    overlay = draw_overlay(image, answers)
    assert (overlay.size, overlay.mode) == (wh, "RGB")
    assert image.getextrema() == ((128, 128),) * 3, "the image itself should stay as it is"


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_any_mode(mode: str) -> None:
    overlay = draw_overlay(Image.new("RGB", (60, 50)).convert(mode), [answer("dog", (60, 50), (5, 5, 50, 40))])
    assert (overlay.size, overlay.mode) == ((60, 50), "RGB")


def test_mask_is_tinted_and_the_rest_is_not() -> None:
    wh = (400, 400)
    image = pixels(draw_overlay(Image.new("RGB", wh, GREY), [answer("dog", wh, (100, 100, 300, 300))]))
    assert (image[200, 200] != GREY).any()
    assert (image[390, 390] == GREY).all()
    fill, line = (np.abs(image[y, 200] - colour(0)).sum() for y in (200, 300))
    assert line < fill, "the outline should be nearer to the phrase's own colour"


@pytest.mark.parametrize("side_px", [200, 400, 1600])
def test_nothing_shows_beside_the_outline(side_px: int) -> None:
    first, last, width_px = side_px // 4, 3 * side_px // 4, max(2, side_px / 500)
    image = pixels(
        draw_overlay(
            Image.new("RGB", (side_px, side_px), GREY), [answer("", (side_px,) * 2, (first, first, last, last))]
        )
    )
    below = image[last:, side_px // 2]
    assert (below[: int(width_px)] != GREY).any(axis=1).all()
    assert (below[int(2 * width_px) :] == GREY).all()
    inside = image[first + int(3 * width_px) : last - int(3 * width_px), side_px // 2]
    assert len(np.unique(inside, axis=0)) == 1, "one level of tint"


def test_colours_differ() -> None:
    assert len({colour(i) for i in range(MAX_PHRASES)}) == MAX_PHRASES
    wh = (400, 100)
    image = pixels(
        draw_overlay(
            Image.new("RGB", wh, GREY), [answer(str(i), wh, (i * 100, 40, i * 100 + 80, 90)) for i in range(4)]
        )
    )
    assert len({tuple(image[70, i * 100 + 40]) for i in range(4)}) == 4


def test_small_mask_shows_on_a_large_one() -> None:
    wh = (300, 300)
    for boxes in ([(0, 50, 300, 300), (100, 150, 200, 250)], [(100, 150, 200, 250), (0, 50, 300, 300)]):
        image = pixels(draw_overlay(Image.new("RGB", wh, GREY), [answer("x", wh, box) for box in boxes])).astype(int)
        assert (image[200, 150] != image[280, 20]).any()
        to_large, to_small = (np.abs(image[200, 150] - colour(boxes.index(box))).sum() for box in sorted(boxes))
        assert to_small < to_large


def test_what_was_not_found_is_listed_at_the_bottom() -> None:
    wh = (300, 200)
    image = pixels(draw_overlay(Image.new("RGB", wh, GREY), [answer("a purple elephant", wh, None)]))
    assert (image[:150] == GREY).all()
    assert (image[-1] != GREY).all()
    assert (image[170:] == 255).all(axis=-1).any(), "white letters"


def test_mask_of_another_size() -> None:
    with pytest.raises(InvalidArgumentError, match="'dog' is 30 x 20 pixels, the image is 20 x 30"):
        draw_overlay(Image.new("RGB", (20, 30)), [answer("dog", (30, 20), None)])


def test_mask_box() -> None:
    mask = np.zeros((9, 12), dtype=bool)
    mask[2:5, 3:11] = True
    assert mask_box(mask) == (3, 2, 11, 5)


def test_labels_keep_inside_and_apart() -> None:
    rng = np.random.default_rng(0)
    occupied: list[Box] = []
    for _ in range(12):
        left, top = int(rng.integers(600)), int(rng.integers(440))
        box = place((120, 20), (left, top, left + 40, top + 40), (640, 480), occupied, gap_px=2)
        assert 0 <= box[0] < box[2] <= 640
        assert 0 <= box[1] < box[3] <= 480
        for other in occupied:
            assert box[2] <= other[0] or other[2] <= box[0] or box[3] <= other[1] or other[3] <= box[1]
        occupied.append(box)


def test_label_goes_above_its_target_if_it_can() -> None:
    assert place((50, 20), (100, 100, 200, 200), (640, 480), [], gap_px=2) == (100, 78, 150, 98)


@pytest.mark.parametrize(
    ("phrase", "label"),
    [
        ("the left dog", "the left dog"),
        ("naïve Übergröße", "phrase 2"),
        ("café", "cafe"),
        ("日本の犬", "phrase 2"),
        ("dog 🐕", "phrase 2"),
        ("two\nlines\t here", "two lines here"),
    ],
)
def test_letters_that_the_font_lacks(phrase: str, label: str) -> None:
    assert written(label_font((640, 480)), 2, phrase) == label


def test_long_phrases_are_cut_but_keep_their_score() -> None:
    font = label_font((640, 480))
    text = fit(font, "a long phrase " * 10, " 0.87", 200)
    assert text.endswith("… 0.87")
    assert 150 < font.getlength(text) <= 200
    assert fit(font, "short", " 0.87", 200) == "short 0.87"
    assert fit(font, "nothing fits", " 0.87", 1) == "… 0.87"
