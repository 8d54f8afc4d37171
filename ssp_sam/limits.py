"""Limits of one request. They bound the memory that one caller can take, and are what error messages quote."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

from ssp_sam.errors import InvalidArgumentError

_MAX_FLOAT32 = (2 - 2**-23) * 2.0**127

MAX_IMAGE_BYTES = 64 * 2**20
MAX_IMAGE_PIXELS = 50_000_000
MAX_IMAGE_SIDE_PX = 65_535
"""As long as a side of a JPEG can be. What masks are made with grows with the sides, not with the area."""
MAX_JPEG_SCANS = 100
"""A file may ask for any number of passes over all of its pixels; programs write up to a dozen."""
MAX_RAW_MASK_BYTES = 128 * 2**20
MAX_PHRASES = 64
MAX_PHRASE_CHARACTERS = 1000
MAX_TIMEOUT_S = 86_400.0
"""A day, for a request as for the start and the stop of a server: what waits longer is forgotten."""


def check_image_bytes(count: int, what: str = "the image file") -> None:
    """Raise InvalidArgumentError if an image file of so many bytes is over the limit; `what` has them."""
    if count > MAX_IMAGE_BYTES:
        raise InvalidArgumentError(f"{what} has {count} bytes, at most {MAX_IMAGE_BYTES} are allowed")


def check_image_size(width: int, height: int) -> None:
    """Raise InvalidArgumentError if an image of this size in pixels is over the limit, or has no pixel at all."""
    if width * height > MAX_IMAGE_PIXELS:
        raise InvalidArgumentError(
            f"image too large: {width} x {height} is {width * height} pixels, at most {MAX_IMAGE_PIXELS} are allowed"
        )
    if max(width, height) > MAX_IMAGE_SIDE_PX:
        raise InvalidArgumentError(
            f"image too long: {width} x {height}, at most {MAX_IMAGE_SIDE_PX} pixels are allowed along a side"
        )
    if width < 1 or height < 1:
        raise InvalidArgumentError(f"the image has no pixels: {width} x {height}; at least 1 x 1 is needed")


def check_phrases(phrases: Sequence[str]) -> None:
    """Raise InvalidArgumentError unless phrases came, not too many, each a non-empty text of sane length."""
    if isinstance(phrases, str) or not isinstance(phrases, Sequence):
        raise InvalidArgumentError(
            f"phrases must be a list of texts, such as ['the left dog']; got {str(phrases)[:40]!r}"
        )
    if not phrases:
        raise InvalidArgumentError(f"no phrase came; 1 to {MAX_PHRASES} are allowed")
    if len(phrases) > MAX_PHRASES:
        raise InvalidArgumentError(f"{len(phrases)} phrases came; 1 to {MAX_PHRASES} are allowed")
    for index, phrase in enumerate(phrases):
        if not isinstance(phrase, str):
            raise InvalidArgumentError(f"phrase {index} is of type {type(phrase).__name__}; each must be a text")
        if not phrase.strip():
            raise InvalidArgumentError(f"phrase {index} is empty; each must name something, like 'the left dog'")
        if len(phrase) > MAX_PHRASE_CHARACTERS:
            raise InvalidArgumentError(
                f"phrase {index} has {len(phrase)} characters; at most {MAX_PHRASE_CHARACTERS} are allowed"
            )


def check_threshold(mask_threshold: float) -> float:
    """Return the threshold, or raise InvalidArgumentError if it is not a finite number that float32 has room for."""
    if not isinstance(mask_threshold, Real):
        raise InvalidArgumentError(f"mask_threshold is a number, not {type(mask_threshold).__name__}")
    if not abs(mask_threshold) <= _MAX_FLOAT32:
        raise InvalidArgumentError(f"mask_threshold is {mask_threshold}; it must be a finite logit, usually 0")
    return float(mask_threshold)


def check_raw_masks(phrases: int, original_hw: tuple[int, int]) -> None:
    """Raise InvalidArgumentError if masks of so many phrases, a byte a pixel, are over the limit."""
    height, width = original_hw
    count = phrases * height * width
    if count > MAX_RAW_MASK_BYTES:
        raise InvalidArgumentError(
            f"{phrases} raw masks of {width} x {height} have {count} bytes, at most {MAX_RAW_MASK_BYTES} are allowed; "
            "ask for fewer phrases at once, or for rle or png"
        )
