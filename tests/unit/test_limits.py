from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from ssp_sam.errors import InvalidArgumentError
from ssp_sam.limits import (
    MAX_IMAGE_BYTES,
    MAX_IMAGE_PIXELS,
    MAX_IMAGE_SIDE_PX,
    MAX_PHRASE_CHARACTERS,
    MAX_PHRASES,
    MAX_RAW_MASK_BYTES,
    check_image_bytes,
    check_image_size,
    check_phrases,
    check_raw_masks,
    check_threshold,
)


def test_what_is_at_the_limit_passes() -> None:
    check_image_bytes(MAX_IMAGE_BYTES)
    check_image_size(MAX_IMAGE_SIDE_PX, MAX_IMAGE_PIXELS // MAX_IMAGE_SIDE_PX)
    check_image_size(1, 1)
    check_phrases(["x" * MAX_PHRASE_CHARACTERS] * MAX_PHRASES)
    check_raw_masks(MAX_RAW_MASK_BYTES // 1024, (32, 32))
    assert check_threshold(np.float32(-1.5)) == -1.5


def test_too_many_bytes() -> None:
    with pytest.raises(InvalidArgumentError, match=f"{MAX_IMAGE_BYTES + 1} bytes, at most {MAX_IMAGE_BYTES}"):
        check_image_bytes(MAX_IMAGE_BYTES + 1)


@pytest.mark.parametrize(
    "size",
    [
        (MAX_IMAGE_PIXELS + 1, 1),
        (MAX_IMAGE_SIDE_PX + 1, 1),
        (1, MAX_IMAGE_SIDE_PX + 1),
        (100_000, 100_000),
        (0, 5),
        (5, 0),
        (0, 10**9),
    ],
)
def test_images_over_or_under_the_limits(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidArgumentError, match=f"{size[0]} x {size[1]}"):
        check_image_size(*size)


@pytest.mark.parametrize(
    ("phrases", "words"),
    [
        ([], "no phrase came; 1 to 64 are allowed"),
        (["x"] * 65, "65 phrases came; 1 to 64 are allowed"),
        (["x", " \t"], "phrase 1 is empty"),
        (["x", "y" * 1001], "phrase 1 has 1001 characters; at most 1000 are allowed"),
        ("the dog", "must be a list of texts.*got 'the dog'"),
        ((phrase for phrase in ["x"]), "must be a list of texts.*got '<generator"),
        (np.array(["x", "y"]), "must be a list of texts.*got .*'x' 'y'"),
        ([b"x"], "phrase 0 is of type bytes; each must be a text"),
        (["x", None], "phrase 1 is of type NoneType"),
    ],
)
def test_phrases_that_cannot_be_used(phrases: list[Any], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        check_phrases(phrases)


@pytest.mark.parametrize("threshold", [float("nan"), float("inf"), -np.inf, 1e39])
def test_thresholds_that_are_no_numbers(threshold: float) -> None:
    with pytest.raises(InvalidArgumentError, match=re.escape(f"mask_threshold is {threshold};")):
        check_threshold(threshold)


@pytest.mark.parametrize("threshold", ["0.5", None, 1j])
def test_thresholds_of_another_type(threshold: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=f"mask_threshold is a number, not {type(threshold).__name__}"):
        check_threshold(threshold)


def test_thresholds_that_float32_has_are_taken_as_they_are() -> None:
    for threshold in (0, -1.5, np.float32(0.25), float(np.finfo(np.float32).max)):
        assert check_threshold(threshold) == threshold


def test_raw_masks_that_are_too_large() -> None:
    with pytest.raises(InvalidArgumentError, match=f"64 raw masks of 4000 x 3000 .*at most {MAX_RAW_MASK_BYTES} "):
        check_raw_masks(64, (3000, 4000))
