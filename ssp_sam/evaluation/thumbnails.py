"""Small pictures of samples: the truth as an outline, the prediction as a fill."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from ssp_sam.results import BoolMask

TRUTH_RGB = (255, 214, 10)
PREDICTED_RGB = (46, 134, 255)
LONGEST_PX = 440
_FILL_OPACITY = 0.5
_SHADE = 0.25  # of what is neither truth nor prediction, so that these stand out
_FINER = 2  # drawn so much larger, then reduced, for smooth edges
_LINE_PX = 4
_HALO_PX = 1  # dark, on both sides of the line
_JPEG_QUALITY = 82


def draw(image: Image.Image, truth: BoolMask, predicted: BoolMask) -> Image.Image:
    """Return `image` (RGB) with the masks, bool (H, W), over it; the longest side has `LONGEST_PX` pixels."""
    scale = LONGEST_PX / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    canvas_wh = width * _FINER, height * _FINER
    canvas = image.resize(canvas_wh, Image.Resampling.BICUBIC)
    truth_area, predicted_area = (_resized(mask, canvas_wh) for mask in (truth, predicted))

    elsewhere = ImageChops.invert(ImageChops.lighter(truth_area, predicted_area))
    canvas.paste((0, 0, 0), mask=elsewhere.point(lambda value: int(value * _SHADE)))
    canvas.paste(PREDICTED_RGB, mask=predicted_area.point(lambda value: int(value * _FILL_OPACITY)))
    half_line = _LINE_PX * _FINER // 2
    canvas.paste((0, 0, 0), mask=_edge(truth_area, half_line + _HALO_PX * _FINER).point(lambda value: value // 2))
    canvas.paste(TRUTH_RGB, mask=_edge(truth_area, half_line))
    return canvas.resize((width, height), Image.Resampling.BOX)


def as_data_url(picture: Image.Image) -> str:
    """Return the picture as a JPEG that stands in a page itself."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _resized(mask: BoolMask, size_wh: tuple[int, int]) -> Image.Image:
    grey = Image.fromarray(mask.astype(np.uint8) * 255).resize(size_wh, Image.Resampling.BILINEAR)
    return grey.point(lambda value: 255 if value >= 128 else 0)


def _edge(area: Image.Image, half_width_px: int) -> Image.Image:
    """Return 255 where a pixel is within `half_width_px` of the border of an area of 255."""
    # The mean of a square is neither of the two where both are in it. (Least and largest values take far longer.)
    return area.filter(ImageFilter.BoxBlur(half_width_px)).point(lambda mean: 255 if 0 < mean < 255 else 0)
