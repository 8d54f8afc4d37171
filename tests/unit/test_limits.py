from __future__ import annotations

from typing import Any

import pytest

from ssp_sam.errors import InvalidArgumentError
from ssp_sam.limits import (
    MAX_IMAGE_BYTES,
    MAX_IMAGE_PIXELS,
    MAX_PHRASE_CHARACTERS,
    MAX_PHRASES,
    check_image_bytes,
    check_image_size,
    check_phrases,
)


def test_what_is_at_the_limit_passes() -> None:
    check_image_bytes(MAX_IMAGE_BYTES)
    check_image_size(MAX_IMAGE_PIXELS, 1)
    check_image_size(1, 1)
    check_phrases(["x" * MAX_PHRASE_CHARACTERS] * MAX_PHRASES)


def test_too_many_bytes() -> None:
    with pytest.raises(InvalidArgumentError, match=f"{MAX_IMAGE_BYTES + 1} bytes, at most {MAX_IMAGE_BYTES}"):
        check_image_bytes(MAX_IMAGE_BYTES + 1)


@pytest.mark.parametrize("size", [(MAX_IMAGE_PIXELS + 1, 1), (100_000, 100_000), (0, 5), (5, 0), (0, 10**9)])
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
        ([b"x"], "phrase 0 is of type bytes; each must be a text"),
        (["x", None], "phrase 1 is of type NoneType"),
    ],
)
def test_phrases_that_cannot_be_used(phrases: list[Any], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        check_phrases(phrases)
