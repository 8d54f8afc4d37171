"""What a caller may pass as an image, as the bytes of an image file."""

from __future__ import annotations

import io
import os

from ssp_sam.limits import check_image_bytes
from ssp_sam.preprocess import ImageInput, read_image, read_image_file

# Three times faster than Pillow's default for a photograph, and the file is only sent, not kept.
_PNG_COMPRESS_LEVEL = 1


def encode_image(image: ImageInput) -> bytes:
    """Return the image file that stands for `image`.

    image: path of an image file, or the bytes of one, both taken as they are; or RGB pixels as a uint8 array (H, W, 3)
        or a Pillow image, both written as PNG without loss.

    Encoding pixels costs time: to ask several times about the same pixels, call this once and pass the bytes.

    Raises `InvalidArgumentError` for another type, shape or dtype, a file that cannot be read, and too many bytes.
    """
    made = "the image file"
    if isinstance(image, bytes):
        encoded = image
    elif isinstance(image, (str, os.PathLike)):
        return read_image_file(image)
    else:
        file = io.BytesIO()
        read_image(image).save(file, "PNG", compress_level=_PNG_COMPRESS_LEVEL)
        encoded = file.getvalue()
        made = "the PNG file made of these pixels (pass a JPEG file of them instead)"
    check_image_bytes(len(encoded), made)
    return encoded
