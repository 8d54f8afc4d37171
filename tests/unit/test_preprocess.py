from __future__ import annotations

import io
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from segment_anything.utils.transforms import ResizeLongestSide
from torchvision.transforms import functional as tv

from ssp_sam.config import PRESETS, Preset, get_preset
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.limits import MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS, MAX_JPEG_SCANS
from ssp_sam.modeling.clip_image import CLIP_MEAN_255, CLIP_STD_255
from ssp_sam.modeling.images import PixelNormalizer
from ssp_sam.modeling.sam import SAM_MEAN_255, SAM_STD_255
from ssp_sam.preprocess import IMAGE_FORMATS, Geometry, decode_image, geometry_of, prepare, read_image, to_rgb

SIDES = st.one_of(st.integers(1, 40), st.integers(1, 5000))
SIZES = [(480, 640), (640, 480), (33, 33), (1, 1), (1, 700), (700, 1), (7, 1000), (1023, 1025), (1024, 1024), (3, 2)]


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def file_of(image: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


# --- geometry ---------------------------------------------------------------------------------------------------------


@given(SIDES, SIDES, st.sampled_from(sorted(PRESETS)))
@settings(deadline=None)
def test_the_geometry_is_that_of_the_published_model(height: int, width: int, name: str) -> None:
    preset = get_preset(name)
    geometry = geometry_of((height, width), preset)
    sam_side, clip_side, longest = preset.sam.image_side_px, preset.clip.image_side_px, max(height, width)

    assert geometry.original_hw == (height, width)
    expected = ResizeLongestSide.get_preprocess_shape(height, width, sam_side)
    assert geometry.sam_hw == tuple(max(1, side) for side in expected)
    assert geometry.clip_hw == tuple(max(1, round(side * clip_side / longest)) for side in (height, width))
    h, w = geometry.clip_hw
    assert geometry.clip_offset_tl == (round((clip_side - h) / 2 - 0.1), round((clip_side - w) / 2 - 0.1))
    # It lies on both squares and touches them with its longest side.
    assert max(geometry.sam_hw) == sam_side
    assert max(geometry.clip_hw) == clip_side
    assert all(o >= 0 and o + n <= clip_side for o, n in zip(geometry.clip_offset_tl, geometry.clip_hw, strict=True))


@given(st.lists(st.integers(1, 7000), min_size=8, max_size=8))
def test_a_geometry_survives_the_array(values: list[int]) -> None:
    geometry = Geometry(*[(values[i], values[i + 1]) for i in range(0, 8, 2)])
    array = geometry.to_array()
    assert array.dtype == np.int32
    assert array.shape == (4, 2)
    assert Geometry.from_array(array) == geometry


# --- pixels -----------------------------------------------------------------------------------------------------------


def clip_reference(image: Image.Image, preset: Preset) -> torch.Tensor:
    """Return CLIP's input the published way: resize, scale, normalise, place on zeros."""
    geometry = geometry_of((image.height, image.width), preset)
    (height, width), (top, left) = geometry.clip_hw, geometry.clip_offset_tl
    resized = tv.to_tensor(tv.resize(image, [height, width], antialias=True))
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    square = torch.zeros(3, preset.clip.image_side_px, preset.clip.image_side_px)
    square[:, top : top + height, left : left + width] = tv.normalize(resized, mean, std)
    return square


def sam_reference(image: Image.Image, preset: Preset) -> torch.Tensor:
    """Return SAM's input the published way."""
    side = preset.sam.image_side_px
    resized = torch.from_numpy(ResizeLongestSide(side).apply_image(np.asarray(image))).permute(2, 0, 1).float()
    mean, std = torch.tensor(SAM_MEAN_255)[:, None, None], torch.tensor(SAM_STD_255)[:, None, None]
    pad = (0, side - resized.shape[2], 0, side - resized.shape[1])
    return torch.nn.functional.pad((resized - mean) / std, pad)


@pytest.mark.parametrize("size", [(48, 64), (300, 77), (33, 33), (1, 40), (400, 3)])
@pytest.mark.parametrize("name", ["tiny", "mini336"])
def test_both_inputs_are_those_of_the_published_route(size: tuple[int, int], name: str) -> None:
    preset, image = get_preset(name), picture(*size)
    inputs = prepare(image, preset)
    geometry = torch.from_numpy(inputs.geometry.to_array())[None]

    clip = PixelNormalizer(CLIP_MEAN_255, CLIP_STD_255)
    got = clip(torch.from_numpy(inputs.clip_image)[None], geometry[:, 2], geometry[:, 3])[0]
    torch.testing.assert_close(got, clip_reference(image, preset), rtol=0, atol=1e-5)

    sam = PixelNormalizer(SAM_MEAN_255, SAM_STD_255)
    got = sam(torch.from_numpy(inputs.sam_image)[None], geometry[:, 1], torch.zeros(1, 2, dtype=torch.int32))[0]
    torch.testing.assert_close(got, sam_reference(image, preset), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_any_shape_fills_its_place_and_nothing_else(size: tuple[int, int]) -> None:
    preset = get_preset("tiny")
    white = Image.new("RGB", (size[1], size[0]), (255, 255, 255))
    inputs = prepare(white, preset)
    for square, (height, width), (top, left) in (
        (inputs.sam_image, inputs.geometry.sam_hw, (0, 0)),
        (inputs.clip_image, inputs.geometry.clip_hw, inputs.geometry.clip_offset_tl),
    ):
        assert (square[:, top : top + height, left : left + width] == 255).all()
        assert np.count_nonzero(square) == 3 * height * width


# --- kinds of input and of file ---------------------------------------------------------------------------------------


def test_every_kind_of_input_gives_the_same_pixels(tmp_path: Path) -> None:
    image = picture(20, 30)
    data = file_of(image)
    path = tmp_path / "ü image.png"
    path.write_bytes(data)
    array = np.asarray(image)
    padded = np.zeros((20, 60, 3), np.uint8)
    padded[:, ::2] = array
    for kind in (data, path, str(path), array, padded[:, ::2], np.asfortranarray(array), image, Image.open(path)):
        got = read_image(kind)
        assert got.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(got), array)


@pytest.mark.parametrize("image_format", IMAGE_FORMATS)
def test_every_format_is_read(image_format: str) -> None:
    options = {"lossless": True} if image_format == "WEBP" else {}
    flat = Image.new("RGB", (24, 16), (200, 100, 50))
    got = np.asarray(decode_image(file_of(flat, image_format, **options))).astype(int)
    assert got.shape == (16, 24, 3)
    assert np.abs(got - [200, 100, 50]).max() <= 2  # JPEG


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation: int) -> None:
    upright = picture(5, 8)
    stored: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = Image.fromarray(np.ascontiguousarray(stored[orientation](np.asarray(upright))))
    data = file_of(turned, exif=exif)
    for kind in (data, Image.open(io.BytesIO(data))):
        np.testing.assert_array_equal(np.asarray(read_image(kind)), np.asarray(upright))
        np.testing.assert_array_equal(np.asarray(read_image(kind, upright=False)), np.asarray(turned))


def test_colour_modes() -> None:
    rgb = picture(6, 7)
    grey = rgb.convert("L")
    np.testing.assert_array_equal(decode_image(file_of(grey)), np.asarray(grey.convert("RGB")))
    one_bit = grey.convert("1")
    np.testing.assert_array_equal(decode_image(file_of(one_bit)), np.asarray(one_bit.convert("RGB")))
    palette = rgb.quantize(16)
    np.testing.assert_array_equal(decode_image(file_of(palette)), np.asarray(palette.convert("RGB")))
    alpha = rgb.convert("RGBA")
    alpha.putalpha(grey)
    np.testing.assert_array_equal(decode_image(file_of(alpha)), np.asarray(rgb))  # transparency shows the colour below
    np.testing.assert_array_equal(decode_image(file_of(grey.convert("LA"))), np.asarray(grey.convert("RGB")))
    cmyk = Image.new("CMYK", (7, 6), (0, 255, 255, 0))
    assert decode_image(file_of(cmyk, "TIFF")).getpixel((3, 3)) == (255, 0, 0)
    red = np.asarray(decode_image(file_of(cmyk, "JPEG", quality=95))).astype(int)
    assert np.abs(red - [255, 0, 0]).max() <= 4


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(image_format: str) -> None:
    values = np.linspace(0, 65535, 256 * 4).astype(np.uint16).reshape(32, 32)
    got = np.asarray(decode_image(file_of(Image.fromarray(values), image_format)))
    np.testing.assert_array_equal(got, np.repeat(np.round(values / 257)[..., None], 3, axis=2).astype(np.uint8))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_every_16_bit_grey_becomes_the_nearest_of_8_bits(dtype: type) -> None:
    values = np.arange(65536, dtype=dtype).reshape(1024, 64)
    got = np.asarray(to_rgb(Image.fromarray(values)))[..., 0].ravel()
    np.testing.assert_array_equal(got, np.floor(np.arange(65536) / 257 + 0.5))


def test_pixels_of_32_bits_are_refused() -> None:
    for values in (np.full((4, 5), 0.5, np.float32), np.full((4, 5), 128, np.int32)):
        data = file_of(Image.fromarray(values), "TIFF")
        for kind in (data, Image.open(io.BytesIO(data)), Image.open(io.BytesIO(data)).copy(), Image.fromarray(values)):
            with pytest.raises(InvalidArgumentError, match="has channels of signed or 32-bit numbers"):
                read_image(kind)


def test_signed_pixels_of_tiff_files_are_refused() -> None:
    sample_format = 339
    data = file_of(Image.fromarray(np.full((4, 5), 128, np.uint16)), "TIFF", tiffinfo={sample_format: 2})
    assert Image.open(io.BytesIO(data)).mode == "I"
    with pytest.raises(InvalidArgumentError, match=r"the TIFF file has channels of signed .* unsigned ones of 8 or 16"):
        read_image(data)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (9, 5), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    for image_format, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("PNG", {})):
        data = file_of(frames[0], image_format, save_all=True, append_images=frames[1:], **options)
        assert decode_image(data).getpixel((4, 2)) == (255, 0, 0), image_format


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"])
def test_a_truncated_file_is_refused(image_format: str) -> None:
    data = file_of(picture(60, 80), image_format)
    with pytest.raises(InvalidArgumentError, match=r"broken|not an image"):
        decode_image(data[: len(data) // 2])


@pytest.mark.parametrize(
    "data", [b"", b"no image", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7", b"\x00" * 99]
)
def test_what_is_no_image_is_named(data: bytes) -> None:
    with pytest.raises(InvalidArgumentError, match=f"got {len(data)} bytes .*allowed are JPEG, PNG"):
        decode_image(data)


def png_header(width: int, height: int) -> bytes:
    """Return a PNG file that claims a size and has almost no data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(100_000, 100_000), (8_000, 8_000), (11_000, 11_000), (MAX_IMAGE_PIXELS + 1, 1)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_too_many_pixels_are_refused_before_anything_is_decoded(size: tuple[int, int]) -> None:
    data = png_header(*size)
    tracemalloc.start()
    try:
        began_s = time.perf_counter()
        with pytest.raises(InvalidArgumentError, match=f"image too large: .*at most {MAX_IMAGE_PIXELS} "):
            decode_image(data)
        took_s, (_, peak) = time.perf_counter() - began_s, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert took_s < 1
    assert peak < 10_000_000


def jpeg_with_scans(more: int) -> bytes:
    """Return a progressive JPEG file whose last scan comes `more` times again."""
    data = file_of(picture(40, 60), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + more * data[last:-2] + data[-2:]


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    assert decode_image(jpeg_with_scans(20)).size == (60, 40)
    for more in (MAX_JPEG_SCANS, 50_000):
        with pytest.raises(InvalidArgumentError, match=f"more than {MAX_JPEG_SCANS} scans"):
            decode_image(jpeg_with_scans(more))


def test_only_scans_count_in_a_jpeg() -> None:
    # Comments, and what follows the picture, may hold anything: thumbnails, films.
    looks = b"\xff\xda" * 20_000
    assert decode_image(file_of(picture(8, 8), "JPEG", comment=looks[:60_000]) + looks).size == (8, 8)
    restarts = file_of(picture(64, 64), "JPEG", restart_marker_blocks=1)
    assert restarts.count(b"\xff\xd0") > 1
    assert decode_image(restarts).size == (64, 64)
    empty_parts = b"\xff\xd8" + b"\xff\xfe\x00\x02" * 1_000_000
    with pytest.raises(InvalidArgumentError):
        decode_image(empty_parts)


def test_a_tiff_of_large_tiles_is_refused() -> None:
    tags = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 277: 1, 322: 8192, 323: 8192, 324: 0, 325: 8192 * 8192}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0)
    with pytest.raises(InvalidArgumentError, match="8192 x 8192"):
        decode_image(data)


def test_too_many_bytes_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=f"at most {MAX_IMAGE_BYTES} are allowed"):
        decode_image(file_of(picture(2, 2)) + bytes(MAX_IMAGE_BYTES))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 5), np.uint8), r"got uint8 of shape \(4, 5\)"),
        (np.zeros((4, 5, 4), np.uint8), r"\(4, 5, 4\)"),
        (np.zeros((4, 5, 3), np.float32), "got float32"),
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
    ],
)
def test_arrays_of_another_kind_are_refused(array: Any, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        read_image(array)


def test_other_inputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="got int"):
        read_image(7)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match=r"cannot read the image .*missing\.png"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(InvalidArgumentError, match="cannot read the image"):
        read_image("a\0b")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(MAX_IMAGE_BYTES + 1)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("it was read"))
    with pytest.raises(
        InvalidArgumentError, match=rf"^the image '.*large\.png' has {MAX_IMAGE_BYTES + 1} bytes, at most"
    ):
        read_image(path)


def sample(image_format: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif} if image_format in ("JPEG", "PNG", "WEBP", "TIFF") else {}
    return file_of(picture(12, 17), image_format, **options)


SAMPLES = {image_format: sample(image_format) for image_format in IMAGE_FORMATS}


@given(st.data())
@settings(max_examples=600, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_is_read_or_refused_but_never_anything_else(data: st.DataObject) -> None:
    damaged = bytearray(SAMPLES[data.draw(st.sampled_from(IMAGE_FORMATS))])
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    kept = data.draw(st.integers(1, len(damaged)) | st.just(len(damaged)))
    try:
        image = decode_image(bytes(damaged[:kept]))
    except InvalidArgumentError:
        return
    assert image.mode == "RGB"


def test_whatever_the_decoder_stumbles_over_is_the_files_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen with a damaged TIFF: Pillow's parsers raise more than they document."""

    def stumble(self: Image.Image) -> None:
        raise TypeError("'str' object cannot be interpreted as an integer")

    data = file_of(picture(4, 4), "TIFF")
    monkeypatch.setattr("PIL.TiffImagePlugin.TiffImageFile.load", stumble)
    with pytest.raises(InvalidArgumentError, match=r"the TIFF file of .* is broken: 'str' object"):
        decode_image(data)
