from __future__ import annotations

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.modeling import Sam

from ssp_sam.config import get_preset
from ssp_sam.postprocess import (
    COLUMNS_PER_CHUNK,
    Calibration,
    area_px512,
    box_xyxy_px,
    full_size_logits,
    full_size_mask,
    interpret,
)
from ssp_sam.preprocess import Geometry, geometry_of

TINY = get_preset("tiny")
PUBLISHED = get_preset("mini224")
SIZES = [(480, 640), (640, 480), (33, 33), (1, 1), (1, 700), (700, 1), (5, 1200), (256, 256), (1024, 700), (2, 3)]
SIZES += [(65_535, 2)]


def logits_of(side: int, seed: int = 0, smooth: bool = False) -> np.ndarray:
    random = np.random.default_rng(seed)
    if not smooth:
        return random.standard_normal((side, side)).astype(np.float32)
    rows, cols = np.mgrid[:side, :side] / side - random.random((2, 1, 1))
    return (0.05 - rows**2 - cols**2).astype(np.float32) * 20


def sam_logits(logits: np.ndarray, geometry: Geometry, side: int) -> np.ndarray:
    """Return what SAM's own code makes of the logits."""
    sam = SimpleNamespace(image_encoder=SimpleNamespace(img_size=side))
    tensor = torch.from_numpy(logits)[None, None]
    return Sam.postprocess_masks(sam, tensor, geometry.sam_hw, geometry.original_hw)[0, 0].numpy()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("preset", [TINY, PUBLISHED], ids=lambda preset: preset.name)
def test_full_size_logits_are_those_of_sam(size, preset) -> None:
    geometry = geometry_of(size, preset)
    logits = logits_of(preset.sam.mask_side)
    got = full_size_logits(logits, geometry, preset.sam.image_side_px)
    assert got.dtype == np.float32
    assert got.shape == size
    np.testing.assert_allclose(got, sam_logits(logits, geometry, preset.sam.image_side_px), rtol=0, atol=2e-4)


@given(st.integers(1, 900), st.integers(1, 900), st.integers(0, 99), st.booleans(), st.floats(-2, 2))
@settings(max_examples=40, deadline=None)
def test_the_mask_is_where_the_logits_are_above_the_threshold(height, width, seed, smooth, threshold) -> None:
    geometry = geometry_of((height, width), TINY)
    logits = logits_of(TINY.sam.mask_side, seed, smooth)
    full = full_size_logits(logits, geometry, TINY.sam.image_side_px)
    mask = full_size_mask(logits, geometry, TINY.sam.image_side_px, threshold)
    assert mask.dtype == np.bool_
    assert mask.flags.f_contiguous
    # Within a rounding error of the threshold either answer is right.
    clear = np.abs(full - threshold) > 1e-5
    np.testing.assert_array_equal(mask[clear], (full > threshold)[clear])


@pytest.mark.parametrize(
    "width", [COLUMNS_PER_CHUNK - 1, COLUMNS_PER_CHUNK, COLUMNS_PER_CHUNK + 1, 3 * COLUMNS_PER_CHUNK + 7]
)
def test_chunks_have_no_seams(width: int) -> None:
    geometry = geometry_of((50, width), TINY)
    logits = logits_of(TINY.sam.mask_side)
    mask = full_size_mask(logits, geometry, TINY.sam.image_side_px, 0.25)
    full = sam_logits(logits, geometry, TINY.sam.image_side_px)
    clear = np.abs(full - 0.25) > 2e-4
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(mask[clear], (full > 0.25)[clear])


@pytest.mark.parametrize("size", SIZES)
def test_all_above_and_all_below(size) -> None:
    geometry = geometry_of(size, TINY)
    logits = np.full((TINY.sam.mask_side,) * 2, 3.0, np.float32)
    assert full_size_mask(logits, geometry, TINY.sam.image_side_px, 2.9).all()
    assert not full_size_mask(logits, geometry, TINY.sam.image_side_px, 3.0).any()


def test_a_single_high_logit_is_found_wherever_it_is() -> None:
    side = TINY.sam.mask_side
    geometry = geometry_of((300, 300), TINY)
    for row, col in ((0, 0), (0, side - 1), (side - 1, 0), (side - 1, side - 1), (side // 2, 3)):
        logits = np.full((side, side), -1, np.float32)
        logits[row, col] = 9
        mask = full_size_mask(logits, geometry, TINY.sam.image_side_px, 0)
        np.testing.assert_array_equal(mask, sam_logits(logits, geometry, TINY.sam.image_side_px) > 0)
        assert mask.any()


# --- boxes ------------------------------------------------------------------------------------------------------------


@given(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), st.lists(st.floats(0, 1), min_size=4, max_size=4))
@settings(deadline=None)
def test_a_box_in_the_image_survives_the_way_to_the_canvas_and_back(size, fractions) -> None:
    geometry = geometry_of(size, TINY)
    side = TINY.clip.image_side_px
    (height, width), (clip_height, clip_width), (top, left) = size, geometry.clip_hw, geometry.clip_offset_tl
    x0, x1 = sorted(f * width for f in fractions[:2])
    y0, y1 = sorted(f * height for f in fractions[2:])
    canvas = np.array([x0, y0, x1, y1]) * np.tile([clip_width / width, clip_height / height], 2) + [left, top] * 2
    centre, box_size = (canvas[:2] + canvas[2:]) / 2, canvas[2:] - canvas[:2]
    norm = (np.concatenate([centre, box_size]) / side).astype(np.float32)[None]

    (got,) = box_xyxy_px(norm, geometry, side)

    assert got.dtype == np.float32
    # Half a hundredth of a pixel of the canvas, in pixels of the image.
    np.testing.assert_allclose(got, [x0, y0, x1, y1], rtol=0, atol=5e-3 * max(width / clip_width, height / clip_height))


@given(st.tuples(st.integers(1, 999), st.integers(1, 999)), st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4))
@settings(deadline=None)
def test_any_box_lies_in_the_image(size, norm) -> None:
    ((x0, y0, x1, y1),) = box_xyxy_px(np.array([norm], np.float32), geometry_of(size, TINY), TINY.clip.image_side_px)
    assert 0 <= x0 <= x1 <= size[1]
    assert 0 <= y0 <= y1 <= size[0]


# --- verdicts ---------------------------------------------------------------------------------------------------------


def test_a_calibration_survives_json() -> None:
    calibration = Calibration(((0.1, 0.0), (0.5, 0.25), (0.9, 1.0)), 12.5, 0.3)
    assert Calibration.from_json(json.loads(json.dumps(asdict(calibration)))) == calibration
    assert Calibration.from_json(json.loads(json.dumps(asdict(Calibration())))) == Calibration()


@given(st.floats(-3, 3), st.floats(-3, 3))
def test_scores_follow_the_knots_and_never_turn_round(a: float, b: float) -> None:
    calibration = Calibration(((0.2, 0.1), (0.6, 0.5), (0.8, 0.9)))
    assert calibration.score(0.2) == pytest.approx(0.1)
    assert calibration.score(0.4) == pytest.approx(0.3)
    assert calibration.score(0.7) == pytest.approx(0.7)
    low, high = sorted((a, b))
    assert 0.1 <= calibration.score(low) <= calibration.score(high) <= 0.9


def test_a_score_is_the_same_when_it_has_been_served() -> None:
    score = Calibration(((0.3275, 0.33575), (0.5, 0.5))).score(0.1)
    assert score == float(np.float32(score))
    assert score == pytest.approx(0.33575)


@pytest.mark.parametrize(
    ("area_px", "size", "score", "peak", "expected"),
    [
        (0, (512, 512), 1.0, 0.5, True),
        (49, (512, 512), 1.0, 0.5, True),
        (50, (512, 512), 1.0, 0.5, False),
        (199, (1024, 1024), 1.0, 0.5, True),  # a quarter as many in the square of 512
        (200, (1024, 700), 1.0, 0.5, False),
        (12, (100, 256), 1.0, 0.5, True),
        (13, (100, 256), 1.0, 0.5, False),
        (5000, (512, 512), 0.19, 0.5, True),
        (5000, (512, 512), 0.20, 0.5, False),
        (5000, (512, 512), 1.0, -0.11, True),
        (5000, (512, 512), 1.0, -0.1, False),
    ],
)
def test_the_rule_for_no_target(area_px: int, size, score: float, peak: float, expected: bool) -> None:
    calibration = Calibration(no_target_score=0.2, no_target_similarity=-0.1)
    assert bool(calibration.is_no_target(area_px512(area_px, size), score, peak)) is expected


def test_without_a_similarity_only_area_and_score_count() -> None:
    assert not Calibration().is_no_target(5000.0, 0.5, -99.0)


def test_an_empty_mask_is_no_target_under_any_calibration() -> None:
    assert Calibration(no_target_area_px512=0).is_no_target(0.0, 1.0, 1.0)


def test_calibrations_of_before_know_no_similarity() -> None:
    old = {"score_knots": [[0.1, 0.2], [0.9, 0.8]], "no_target_area_px512": 60, "no_target_score": 0.1}
    assert Calibration.from_json(old) == Calibration(((0.1, 0.2), (0.9, 0.8)), 60.0, 0.1)
    assert Calibration.from_json(old | {"no_target_similarity": 0.2}).no_target_similarity == 0.2


@pytest.mark.parametrize("knots", [[[1, 1], [0, 0]], [[0, 0.5], [1, 0.4]], []])
def test_knots_that_no_score_can_be_read_from_are_refused(knots: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="score_knots"):
        Calibration.from_json({"score_knots": knots, "no_target_area_px512": 50, "no_target_score": 0})


def answers(calibration: Calibration, logits: np.ndarray, iou: list[float], size=(60, 80), peaks=None):
    boxes = np.tile(np.array([[0.5, 0.5, 0.4, 0.4]], np.float32), (len(logits), 1))
    return list(
        interpret(
            logits,
            boxes,
            np.array(iou, np.float32),
            np.ones(len(iou), np.float32) if peaks is None else np.array(peaks, np.float32),
            geometry_of(size, TINY),
            sam_side_px=TINY.sam.image_side_px,
            clip_side_px=TINY.clip.image_side_px,
            calibration=calibration,
            mask_threshold=0.0,
        )
    )


def test_no_answer_contradicts_itself() -> None:
    side = TINY.sam.mask_side
    nothing, speck, blob = (np.full((side, side), -5, np.float32) for _ in range(3))
    speck[3, 3] = 5.01
    blob[10:40, 10:40] = 5
    found = answers(Calibration(no_target_score=0.3), np.stack([nothing, speck, blob, blob]), [0.9, 0.9, 0.9, 0.2])
    assert [answer.no_target for answer in found] == [True, True, False, True]
    for answer in found:
        assert answer.mask.shape == (60, 80)
        assert answer.area_px == answer.mask.sum()
        assert answer.no_target == (answer.area_px == 0) == (not answer.box_xyxy_px.any())
    assert [answer.score for answer in found] == pytest.approx([0.9, 0.9, 0.9, 0.2])


def test_a_phrase_like_no_patch_finds_nothing() -> None:
    blobs = np.full((2, TINY.sam.mask_side, TINY.sam.mask_side), 5, np.float32)
    found = answers(Calibration(no_target_similarity=0.1), blobs, [0.9, 0.9], peaks=[0.3, 0.05])
    assert [answer.no_target for answer in found] == [False, True]
    assert found[0].mask.all()
    assert not found[1].mask.any()
    assert not found[1].box_xyxy_px.any()


def test_each_phrase_is_interpreted_alone() -> None:
    logits = np.stack([logits_of(TINY.sam.mask_side, seed) for seed in range(3)])
    together = answers(Calibration(), logits, [0.1, 0.5, 0.9])
    for row, iou, answer in zip(logits, [0.1, 0.5, 0.9], together, strict=True):
        (alone,) = answers(Calibration(), row[None], [iou])
        np.testing.assert_array_equal(alone.mask, answer.mask)
        np.testing.assert_array_equal(alone.box_xyxy_px, answer.box_xyxy_px)
        assert replace(alone, mask=None, box_xyxy_px=None) == replace(answer, mask=None, box_xyxy_px=None)
