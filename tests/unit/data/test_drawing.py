from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from ssp_sam.data import DataError, GlyphSet, GlyphStyleNotFoundError, backgrounds
from ssp_sam.data.__main__ import main
from ssp_sam.data.backgrounds import WEIGHTS, flat, gradient, horizon, random_background
from ssp_sam.data.canvas import Canvas
from ssp_sam.data.contact_sheet import outline
from ssp_sam.data.demo import demo_scene
from ssp_sam.data.glyphs import installed_styles, picture_file_name
from ssp_sam.data.names import nouns
from ssp_sam.data.phrases import OTHER_COLOUR_SHARE
from ssp_sam.data.rendering import DYES, colour_shares, dye_matrix, jitter_matrix, make_sprite, tinted
from ssp_sam.data.things import COLOURS


@pytest.fixture(scope="module")
def glyphs() -> GlyphSet:
    return GlyphSet()


def square(side_px: int, colour: tuple[int, int, int] = (200, 40, 40)) -> Image.Image:
    return Image.new("RGBA", (side_px, side_px), (*colour, 255))


def test_a_missing_font_says_how_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(GlyphStyleNotFoundError, match="apt-get install fonts-noto-color-emoji"):
        GlyphSet(folders=(tmp_path,))


def test_unknown_styles_and_nouns_are_named(glyphs: GlyphSet) -> None:
    with pytest.raises(DataError, match="no drawing style 'crayon'; there are noto, fluent-3d"):
        GlyphSet(("crayon",))
    with pytest.raises(DataError, match="no drawing style was named"):
        GlyphSet(())
    with pytest.raises(DataError, match="no picture of 'gadget'"):
        glyphs.picture("gadget", "noto", 50)


@pytest.mark.parametrize("style", ["noto", *(style for style in installed_styles() if style != "noto")])
def test_every_noun_has_a_picture_of_its_own(style: str) -> None:
    glyphs = GlyphSet((style,))
    pictures = [glyphs.picture(noun, style, 200) for noun in nouns()]
    assert all(min(picture.size) > 20 for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)


def test_a_folder_of_pictures_is_a_style(tmp_path: Path) -> None:
    with pytest.raises(GlyphStyleNotFoundError, match=r"fluent-3d is not in .*; to get it: .*fetch_glyph_styles.py"):
        GlyphSet(("fluent-3d",), folders=(tmp_path,))
    folder = tmp_path / "fluent-3d"
    folder.mkdir()
    canvas = Image.new("RGBA", (256, 256))
    canvas.paste((10, 20, 30, 255), (20, 40, 220, 140))
    canvas.save(folder / "1f415.webp", lossless=True)
    glyphs = GlyphSet(("fluent-3d",), folders=(tmp_path,))
    assert glyphs.picture("dog", "fluent-3d", 150).size == (200, 100)
    assert glyphs.picture("dog", "fluent-3d", 90).size == (100, 50)
    with pytest.raises(GlyphStyleNotFoundError, match=r"1f408\.webp is not in"):
        glyphs.picture("cat", "fluent-3d", 90)


def test_file_names_leave_out_the_variation_selector() -> None:
    assert picture_file_name("\U0001f577\ufe0f") == "1f577.webp"


def test_pictures_come_in_the_size_that_is_needed(glyphs: GlyphSet) -> None:
    assert max(glyphs.picture("dog", "noto", 30).size) < max(glyphs.picture("dog", "noto", 100).size)
    assert max(glyphs.picture("dog", "noto", 30).size) >= 30


@pytest.mark.parametrize("kind", WEIGHTS, ids=lambda kind: kind.__name__)
def test_backgrounds_are_pictures_of_the_asked_size(kind) -> None:  # type: ignore[no-untyped-def]
    for seed in range(5):
        pixels = kind(96, np.random.default_rng(seed))
        assert pixels.shape == (96, 96, 3)
        assert pixels.dtype == np.uint8
        again = kind(96, np.random.default_rng(seed))
        assert np.array_equal(pixels, again)


def test_a_fifth_of_backgrounds_is_paper() -> None:
    rng = np.random.default_rng(7)
    darkest = [int(flat(8, rng).min()) for _ in range(400)]
    assert 0.1 < np.mean([value >= 225 for value in darkest]) < 0.3
    assert min(darkest) < 30


def test_gradients_go_by_way_of_a_third_colour_in_half_of_all_cases() -> None:
    def is_bent(seed: int) -> bool:
        colours = np.unique(gradient(64, np.random.default_rng(seed)).reshape(-1, 3), axis=0).astype(float)
        return bool(np.linalg.svd(colours - colours.mean(axis=0), compute_uv=False)[1] > 20)

    assert 0.25 < np.mean([is_bent(seed) for seed in range(100)]) < 0.6


def test_a_sprite_is_scaled_and_turned_about_its_middle() -> None:
    sprite = make_sprite(square(100), 50, matrix=np.eye(3, 4))
    assert sprite.picture.size == (50, 50)
    assert sprite.solid.all()
    turned = make_sprite(square(100), 50, matrix=np.eye(3, 4), turn_degrees=45)
    rows, columns = np.nonzero(turned.solid)
    assert abs(turned.solid.sum() - 2500) < 100
    assert abs(rows.mean() + 0.5 - turned.solid.shape[0] / 2) < 0.5
    assert abs(columns.mean() + 0.5 - turned.solid.shape[1] / 2) < 0.5


def test_positive_degrees_turn_counter_clockwise_and_mirroring_comes_first() -> None:
    bar = Image.new("RGBA", (100, 20), (0, 0, 0, 255))
    bar.paste((0, 0, 0, 0), (50, 0, 100, 20))  # only its left half is left
    upright = make_sprite(bar, 100, matrix=np.eye(3, 4), turn_degrees=-90).solid
    assert upright[:50].mean() > 0.8
    assert upright[50:].mean() < 0.2
    mirrored = make_sprite(bar, 100, matrix=np.eye(3, 4), turn_degrees=-90, mirrored=True).solid
    assert mirrored[50:].mean() > 0.8
    assert mirrored[:50].mean() < 0.2


@pytest.mark.parametrize("colour", DYES)
def test_a_tint_changes_the_hue_and_neither_greys_nor_shades(colour: str) -> None:
    picture = square(40, (30, 60, 120))
    picture.paste((15, 30, 60, 255), (0, 0, 40, 10))  # in the shade
    picture.paste((120, 120, 120, 255), (0, 30, 40, 40))
    other = tinted(picture, colour)
    assert other is not None
    light, shade, grey = (np.array(other.getpixel((20, y)), dtype=float) for y in (20, 5, 35))
    assert np.abs(grey - 120)[:3].max() <= 1
    assert light[:3].max() > 1.5 * shade[:3].max()
    own, wanted = light[:3] / light[:3].max(), np.array(DYES[colour]) / max(DYES[colour])
    assert np.abs(own - wanted).max() < 0.05
    assert np.array_equal(np.asarray(other)[..., 3], np.asarray(picture)[..., 3])


def test_the_half_transparent_rim_of_a_thing_is_tinted_with_it() -> None:
    picture = square(40, (200, 40, 40))
    picture.paste((200, 40, 40, 60), (0, 0, 40, 3))
    other = tinted(picture, "blue")
    assert other is not None
    assert other.getpixel((20, 1))[:3] == other.getpixel((20, 20))[:3]


def test_what_is_mostly_grey_has_no_tint() -> None:
    picture = square(40, (120, 120, 120))
    picture.paste((200, 40, 40, 255), (0, 0, 40, 10))
    assert tinted(picture, "blue") is None


@pytest.mark.parametrize("colour", DYES)
def test_a_dyed_thing_has_the_colour_of_the_word(colour: str, glyphs: GlyphSet) -> None:
    shares = np.array(
        [make_sprite(glyphs.picture(noun, "noto", 60), 60, matrix=dye_matrix(colour)).colour_shares for noun in nouns()]
    )
    assert (shares.argmax(axis=1) == COLOURS.index(colour)).mean() > 0.98
    assert np.median(shares[:, COLOURS.index(colour)]) > 0.9


@pytest.mark.parametrize("noun", ["banana", "pear", "taxi", "french fries"])
def test_a_slight_change_of_hue_does_not_take_a_colour_away_for_sure(noun: str, glyphs: GlyphSet) -> None:
    picture, yellow = glyphs.picture(noun, "noto", 60), COLOURS.index("yellow")
    sprites = [make_sprite(picture, 60, matrix=jitter_matrix(np.random.default_rng(seed))) for seed in range(20)]
    assert all(sprite.colour_shares_max[yellow] > OTHER_COLOUR_SHARE for sprite in sprites)
    for sprite in sprites:
        assert all(np.array(sprite.colour_shares) <= sprite.colour_shares_max)


def test_what_clearly_is_one_colour_is_no_other() -> None:
    clear, possible = colour_shares(np.tile(np.array([[250, 225, 30]], np.uint8), (5, 1)))
    assert clear == possible == tuple(float(colour == "yellow") for colour in COLOURS)
    golden, amber = (colour_shares(np.array([rgb], np.uint8)) for rgb in ((252, 196, 25), (230, 165, 20)))
    for clear, possible in (golden, amber):
        assert not any(clear)
        assert {colour for colour, share in zip(COLOURS, possible, strict=True) if share} == {"orange", "yellow"}


def test_jitter_is_slight_and_keeps_grey_nearly_grey() -> None:
    for seed in range(50):
        grey = jitter_matrix(np.random.default_rng(seed)) @ (128, 128, 128, 1)
        assert np.ptp(grey) < 1
        assert 80 < grey.mean() < 170


def test_the_topmost_thing_is_seen_and_edges_are_blended() -> None:
    canvas = Canvas(np.zeros((100, 100, 3), dtype=np.uint8))
    assert canvas.put("dog", make_sprite(square(40), 40, matrix=np.eye(3, 4)), (40, 50))
    assert canvas.put("cat", make_sprite(square(40, (0, 200, 0)), 40, matrix=np.eye(3, 4)), (70, 50))
    dog, cat = canvas.things()
    assert (dog.area_px, dog.full_area_px, cat.area_px) == (30 * 40, 40 * 40, 40 * 40)
    assert dog.box_xyxy_px == (20, 30, 50, 70)
    assert dog.centre_xy_px == (35, 50)
    assert tuple(canvas.image()[50, 55]) == (0, 200, 0)


def test_a_shadow_darkens_what_lies_beside_a_thing_and_is_no_part_of_it() -> None:
    plain, shaded = (Canvas(np.full((100, 100, 3), 200, dtype=np.uint8)) for _ in range(2))
    sprite = make_sprite(square(40), 40, matrix=np.eye(3, 4))
    assert plain.put("dog", sprite, (50, 50))
    assert shaded.put("dog", sprite, (50, 50), shadow_xy_px=(5, 3))
    assert np.array_equal(plain.things()[0].mask, shaded.things()[0].mask)
    assert tuple(shaded.image()[50, 50]) == tuple(plain.image()[50, 50]) == (200, 40, 40)
    assert shaded.image()[50, 72].max() < 150, "to the right of it"
    assert tuple(shaded.image()[50, 10]) == (200, 200, 200)


def test_a_background_is_as_wide_and_as_high_as_it_should_be() -> None:
    for seed in range(20):
        assert random_background(96, 64, np.random.default_rng(seed)).shape == (64, 96, 3)
        assert random_background(48, 80, np.random.default_rng(seed)).shape == (80, 48, 3)


def test_a_horizon_has_two_parts_one_above_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def plain(value: int) -> Callable[[int, np.random.Generator], npt.NDArray[np.uint8]]:
        return lambda side_px, rng: np.full((side_px, side_px, 3), value, dtype=np.uint8)

    shades = 0, 85, 170, 255
    monkeypatch.setattr(backgrounds, "_HORIZON_PARTS", [plain(value) for value in shades])
    parts = set()
    for seed in range(40):
        picture = horizon(96, np.random.default_rng(seed))
        above, below = picture[: 96 // 6], picture[-96 // 6 :]
        assert (above == above[0, 0]).all()
        assert (below == below[0, 0]).all()
        parts.add((int(above[0, 0, 0]), int(below[0, 0, 0])))
        for column in picture.transpose(1, 0, 2):  # one part, perhaps a border, the other part
            changes = np.count_nonzero((column[1:] != column[:-1]).any(axis=1))
            assert changes <= 2
    assert {shade for pair in parts for shade in pair} == set(shades)
    assert any(above != below for above, below in parts)


def test_a_thing_that_would_hide_too_much_is_not_put() -> None:
    canvas = Canvas(np.zeros((100, 100, 3), dtype=np.uint8))
    small, large = (make_sprite(square(40), side_px, matrix=np.eye(3, 4)) for side_px in (20, 60))
    assert canvas.put("dog", small, (50, 50))
    before = canvas.image()
    assert not canvas.put("cat", large, (50, 50))
    assert not canvas.put("cat", large, (100, 100))  # three quarters of it are outside
    assert not canvas.put("cat", large, (300, 300))
    assert np.array_equal(canvas.image(), before)
    assert len(canvas.things()) == 1


def test_outline_is_the_edge_of_the_mask() -> None:
    mask = np.zeros((20, 20), dtype=np.bool_)
    mask[5:15, 5:15] = True
    expected = mask.copy()
    expected[7:13, 7:13] = False
    assert np.array_equal(outline(mask, width_px=2), expected)


def test_the_demo_shows_phrases_for_one_for_several_and_for_nothing() -> None:
    scene = demo_scene()
    assert scene.image.shape == (480, 640, 3)
    assert len(scene.things) == 5
    for expression in scene.expressions:
        assert expression.mask.shape == (480, 640)
        assert expression.mask.any() != expression.kind.startswith("absent"), expression.phrase
    assert {"position", "all", "noun", "absent-noun"} == {expression.kind for expression in scene.expressions}


def test_command_line_draws_and_reports_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sheet.png"
    assert main(["--split", "val", "--count", "3", "--side-px", "96", "--out", str(out)]) == 0
    assert Image.open(out).size[0] > 3 * 96
    assert main(["--seed", "-1", "--out", str(out)]) == 1
    assert "seed is -1" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["--count", "0", "--out", str(out)])
