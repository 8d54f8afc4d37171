from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssp_sam import limits
from ssp_sam.client import encode_image
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.preprocess import read_image

PIXELS = np.random.default_rng(1).integers(0, 255, (7, 5, 3), dtype=np.uint8)


def decode(encoded: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded)))


def test_files_go_as_they_are(tmp_path: Path, png: bytes) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(png)
    assert encode_image(path) == encode_image(str(path)) == encode_image(png) == png


@pytest.mark.parametrize("pixels", [PIXELS, PIXELS[::-1, ::2], np.asfortranarray(PIXELS), PIXELS[:1, :1]])
def test_pixels_lose_nothing(pixels: np.ndarray) -> None:
    assert np.array_equal(decode(encode_image(pixels)), pixels)
    assert np.array_equal(decode(encode_image(Image.fromarray(np.ascontiguousarray(pixels)))), pixels)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "LA"])
def test_other_modes_become_rgb(mode: str) -> None:
    image = Image.fromarray(PIXELS).convert("L" if mode == "LA" else "RGB").convert(mode)
    assert np.array_equal(decode(encode_image(image)), np.asarray(image.convert("RGB")))


def test_pillow_image_is_sent_upright_like_its_file(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / "image.png", exif=turned)
    sent = Image.open(io.BytesIO(encode_image(Image.open(tmp_path / "image.png"))))
    assert sent.size == (7, 5)
    assert 0x0112 not in sent.getexif()
    assert np.array_equal(np.asarray(sent), np.asarray(read_image(tmp_path / "image.png")))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (PIXELS[:, :, 0], r"uint8 of shape \(7, 5\)"),
        (PIXELS.astype(np.float32), "float32 of shape"),
        (np.zeros((7, 5, 4), np.uint8), r"\(7, 5, 4\)"),
        (PIXELS[:0], "no pixels: 5 x 0"),
        (None, "got NoneType"),
        (io.BytesIO(), "got BytesIO"),
    ],
)
def test_wrong_images(image: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        encode_image(image)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"cannot read the image .*none.png.*No such file"):
        encode_image(tmp_path / "none.png")
    with pytest.raises(InvalidArgumentError, match="Is a directory"):
        encode_image(tmp_path)
    with pytest.raises(InvalidArgumentError, match=r"cannot read the image 'a.x00b': embedded null byte"):
        encode_image("a\0b")
    cut = io.BytesIO()
    Image.fromarray(PIXELS).resize((80, 60)).save(cut, "JPEG")
    with pytest.raises(InvalidArgumentError, match=r"the image, of mode RGB, cannot be read: .*truncated"):
        encode_image(Image.open(io.BytesIO(cut.getvalue()[:-200])))


def test_too_large_images_are_not_sent(tmp_path: Path, png: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(png)
    monkeypatch.setattr(limits, "MAX_IMAGE_BYTES", len(png))
    assert encode_image(path) == png
    monkeypatch.setattr(limits, "MAX_IMAGE_BYTES", len(png) - 1)
    for image in (path, png):
        with pytest.raises(InvalidArgumentError, match=f"{len(png)} bytes, at most {len(png) - 1}"):
            encode_image(image)
