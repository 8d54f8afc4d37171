"""From an image file to what the two image encoders take. Numpy and Pillow only: this runs where no torch is."""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from ssp_sam.config import Preset
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.limits import MAX_IMAGE_PIXELS, MAX_JPEG_SCANS, check_image_bytes, check_image_size

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")

# What begins a part of a JPEG file that says how long its header is: no stuffed byte, restart, or start.
_JPEG_PART = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])", re.DOTALL)
_JPEG_END, _JPEG_SCAN = 0xD9, 0xDA
_MAX_JPEG_PARTS = 10_000  # so many times 64 KiB are more than a file may have
_TIFF_TILE_SIZE = (322, 323)
_ROWS_PER_BLOCK = 256

UInt8Array = npt.NDArray[np.uint8]
ImageInput = str | os.PathLike[str] | bytes | UInt8Array | Image.Image


@dataclass(frozen=True)
class Geometry:
    """Where the image lies on the two padded squares. All in pixels.

    original_hw: the image itself; sam_hw: its size in the top left of SAM's square; clip_hw, clip_offset_tl: its size
    and its top left corner on CLIP's square.
    """

    original_hw: tuple[int, int]
    sam_hw: tuple[int, int]
    clip_hw: tuple[int, int]
    clip_offset_tl: tuple[int, int]

    def to_array(self) -> npt.NDArray[np.int32]:
        """Return the four pairs as int32 (4, 2), in the order of the fields."""
        return np.array([self.original_hw, self.sam_hw, self.clip_hw, self.clip_offset_tl], dtype=np.int32)

    @classmethod
    def from_array(cls, array: npt.NDArray[np.int32]) -> Geometry:
        """Undo `to_array`; raise InvalidArgumentError for sizes that no image has."""
        original, sam, clip, offset = ((int(a), int(b)) for a, b in array)
        for height, width in (original, sam, clip):
            check_image_size(width, height)
        return cls(original, sam, clip, offset)


class EncoderInputs(NamedTuple):
    """sam_image: uint8 (3, S, S); clip_image: uint8 (3, R, R); both RGB, padded with 0."""

    sam_image: UInt8Array
    clip_image: UInt8Array
    geometry: Geometry


def decode_image(data: bytes, *, upright: bool = True) -> Image.Image:
    """Return the RGB image in an image file, turned as its EXIF orientation says; if not `upright`, as it is stored.

    A TIFF file is turned in both cases: Pillow does so when it reads one.

    Raises InvalidArgumentError if `data` is no image of a known format, is broken, or is over the limits; what it would
    take to decode it is checked before anything is decoded.
    """
    check_image_bytes(len(data))
    try:
        image = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
    except Image.DecompressionBombError as error:
        raise InvalidArgumentError(
            f"image too large: at most {MAX_IMAGE_PIXELS} pixels are allowed ({error})"
        ) from error
    except Exception as error:  # whatever Pillow's parsers stumble over in a damaged file; TypeError was seen
        raise InvalidArgumentError(
            f"not an image of a known format, or with a kind of pixels that cannot be read: got {len(data)} bytes "
            f"starting with {data[:8]!r}; allowed are {', '.join(IMAGE_FORMATS)}"
        ) from error
    check_image_size(image.width, image.height)
    _check_depth(image)
    _check_effort(image, data)
    try:
        image.load()
        return to_rgb(ImageOps.exif_transpose(image) if upright else image)
    except Exception as error:  # as above
        raise InvalidArgumentError(f"the {image.format} file of {len(data)} bytes is broken: {error}") from error


def _check_effort(image: Image.Image, data: bytes) -> None:
    """Raise InvalidArgumentError for a file that takes much more to decode than its size in pixels says."""
    if isinstance(image, TiffImageFile):
        # Each tile is decoded whole, however little of it the image shows.
        width, length = (image.tag_v2.get(tag) for tag in _TIFF_TILE_SIZE)
        if isinstance(width, int) and isinstance(length, int):
            check_image_size(width, length)
    if image.format in ("JPEG", "MPO") and _jpeg_scans(data) > MAX_JPEG_SCANS:
        raise InvalidArgumentError(
            f"the JPEG file has more than {MAX_JPEG_SCANS} scans or {_MAX_JPEG_PARTS} parts; so many are allowed"
        )


def _jpeg_scans(data: bytes) -> int:
    """Return how many passes over its pixels a JPEG file asks for, or some number above MAX_JPEG_SCANS."""
    scans = position = 0
    for _ in range(_MAX_JPEG_PARTS):
        part = _JPEG_PART.search(data, position)
        if part is None or part[1][0] == _JPEG_END or scans > MAX_JPEG_SCANS:
            return scans
        scans += part[1][0] == _JPEG_SCAN
        header_bytes = int.from_bytes(data[part.end() : part.end() + 2], "big")
        position = part.end() + header_bytes
    return MAX_JPEG_SCANS + 1


def _check_depth(image: Image.Image) -> None:
    """Raise InvalidArgumentError for signed or 32-bit channels: nothing says which of their values is white."""
    # Pillow opens 16-bit PNG files as "I", too; 16-bit TIFF files are "I;16" or the like.
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        what = f"the {image.format} file" if image.format else "the image"
        raise InvalidArgumentError(
            f"{what} has channels of signed or 32-bit numbers (Pillow's mode {image.mode}); "
            "unsigned ones of 8 or 16 bits are allowed"
        )


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image with 8-bit RGB pixels; 16-bit grey is scaled, where Pillow itself would clip it."""
    if image.mode.startswith("I;16") or image.mode == "I":
        deep = np.asarray(image)
        grey = np.empty(deep.shape, dtype=np.uint8)
        for start in range(0, len(deep), _ROWS_PER_BLOCK):
            rows = slice(start, start + _ROWS_PER_BLOCK)
            grey[rows] = (deep[rows].clip(0, 65535).astype(np.uint32) + 128) // 257
        return Image.fromarray(grey).convert("RGB")
    return image.convert("RGB")


def read_image(image: ImageInput, *, upright: bool = True) -> Image.Image:
    """Return an RGB image of a path, the bytes of a file, an RGB uint8 array (H, W, 3) or a Pillow image.

    upright: whether it is turned as its EXIF orientation says. Raises InvalidArgumentError for anything else and for
    files that cannot be read or decoded.
    """
    if isinstance(image, Image.Image):
        check_image_size(image.width, image.height)
        _check_depth(image)
        try:
            return to_rgb(ImageOps.exif_transpose(image) if upright else image)
        except Exception as error:  # of a file that Pillow has not read to its end, or a mode that it cannot convert
            raise InvalidArgumentError(f"the image, of mode {image.mode}, cannot be read: {error}") from error
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise InvalidArgumentError(
                f"an image array must be RGB uint8 of shape (H, W, 3); got {image.dtype} of shape {image.shape}"
            )
        check_image_size(image.shape[1], image.shape[0])
        return Image.fromarray(image)
    if isinstance(image, bytes):
        return decode_image(image, upright=upright)
    if isinstance(image, (str, os.PathLike)):
        return decode_image(read_image_file(image), upright=upright)
    raise InvalidArgumentError(
        f"an image must be a path, bytes, a uint8 array (H, W, 3) or a Pillow image; got {type(image).__name__}"
    )


def read_image_file(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of an image file; raises InvalidArgumentError if it cannot be read or has too many."""
    what = f"the image {os.fspath(path)!r}"
    try:
        check_image_bytes(Path(path).stat().st_size, what)  # before it is read into memory
        data = Path(path).read_bytes()
        check_image_bytes(len(data), what)  # a pipe does not say before how many it has
        return data
    except InvalidArgumentError:  # a ValueError as well
        raise
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise InvalidArgumentError(f"cannot read {what}: {reason}") from error


def geometry_of(original_hw: tuple[int, int], preset: Preset) -> Geometry:
    """Return where an image of this size is placed on the squares of `preset`."""
    height, width = original_hw
    longest = max(original_hw)
    sam_side, clip_side = preset.sam.image_side_px, preset.clip.image_side_px
    # Each published encoder rounds in its own way. An extremely long image keeps at least one pixel of its short side.
    scale = sam_side / longest
    sam_hw = (max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))
    clip_hw = (max(1, round(height * clip_side / longest)), max(1, round(width * clip_side / longest)))
    offset = (round((clip_side - clip_hw[0]) / 2 - 0.1), round((clip_side - clip_hw[1]) / 2 - 0.1))
    return Geometry(original_hw, sam_hw, clip_hw, offset)


def prepare(image: Image.Image, preset: Preset) -> EncoderInputs:
    """Resize an RGB image for both encoders and place it on their padded squares."""
    geometry = geometry_of((image.height, image.width), preset)
    return EncoderInputs(
        place_on_square(image, geometry.sam_hw, (0, 0), preset.sam.image_side_px),
        place_on_square(image, geometry.clip_hw, geometry.clip_offset_tl, preset.clip.image_side_px),
        geometry,
    )


def place_on_square(image: Image.Image, size_hw: tuple[int, int], offset_tl: tuple[int, int], side: int) -> UInt8Array:
    """Return uint8 (3, side, side) with the RGB image, resized, at `offset_tl`."""
    # Pillow's bilinear resize is antialiased; torchvision's resize of a Pillow image, which both releases use, is
    # this call.
    resized = np.asarray(image.resize((size_hw[1], size_hw[0]), Image.Resampling.BILINEAR))
    square = np.zeros((3, side, side), dtype=np.uint8)
    (height, width), (top, left) = size_hw, offset_tl
    square[:, top : top + height, left : left + width] = resized.transpose(2, 0, 1)
    return square
