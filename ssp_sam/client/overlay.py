"""Pictures of answers: the masks over the image, each phrase in a colour of its own."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from ssp_sam.client.labels import Box, Label, draw_caption, draw_labels, label_font
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.results import BoolMask, Segmentation

_PALETTE = (
    (255, 64, 84),
    (30, 144, 255),
    (255, 190, 0),
    (0, 190, 110),
    (180, 90, 255),
    (255, 125, 20),
    (0, 205, 225),
    (255, 105, 190),
    (150, 215, 40),
    (105, 115, 255),
    (195, 135, 85),
    (0, 140, 130),
)
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
_FILL_OPACITY = 0.42
_HALO_OPACITY = 0.45
_HALO_WIDTH = 0.35  # on each side, of the line's width


def draw_overlay(image: Image.Image, answers: Sequence[Segmentation]) -> Image.Image:
    """Return a copy of `image` (RGB, the same size) with the answers drawn over it.

    A phrase that was found gets a translucent fill, an outline and a label with its score; phrases that found nothing
    are listed in a strip along the bottom. Lines and letters grow with the image. A phrase with letters that the
    built-in font lacks is labelled by its place in `answers`, counted from 0.

    Raises `InvalidArgumentError` if a mask is not of the image's size.
    """
    for answer in answers:
        if answer.mask.shape != (image.height, image.width):
            raise InvalidArgumentError(
                f"the mask of {answer.phrase!r} is {answer.mask.shape[1]} x {answer.mask.shape[0]} pixels, "
                f"the image is {image.width} x {image.height}"
            )
    found = [(i, answer) for i, answer in enumerate(answers) if answer.mask.any()]
    found.sort(key=lambda item: -item[1].area_px)  # small masks on top of large ones
    boxes = {i: mask_box(answer.mask) for i, answer in found}

    overlay = image.convert("RGB")
    if overlay is image:
        overlay = image.copy()
    for i, answer in found:
        _fill(overlay, answer.mask, boxes[i], colour(i))
    width_px = max(2, round(max(image.size) / 500))
    for i, answer in found:
        _outline(overlay, answer.mask, boxes[i], colour(i), width_px)

    draw = ImageDraw.Draw(overlay)
    font = label_font(image.size)
    missing = [(i, answer.phrase) for i, answer in enumerate(answers) if not answer.mask.any()]
    strip = draw_caption(draw, font, missing)
    labels = [Label(i, answer.phrase, f"{answer.score:.2f}", boxes[i], colour(i)) for i, answer in sorted(found)]
    draw_labels(draw, font, labels, strip)
    return overlay


def colour(index: int) -> tuple[int, int, int]:
    """Return the RGB colour of the phrase at `index`; all that one request may hold differ."""
    if index < len(_PALETTE):
        return _PALETTE[index]
    # Steps of the golden ratio spread hues evenly however many there are.
    hue = (index * _GOLDEN_RATIO) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.6, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def mask_box(mask: BoolMask) -> Box:
    """Return the smallest (left, top, right, bottom) around the True pixels, of which there must be one."""
    columns = np.flatnonzero(mask.any(axis=0))
    rows = np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _fill(overlay: Image.Image, mask: BoolMask, box: Box, rgb: tuple[int, int, int]) -> None:
    left, top, right, bottom = box
    opacity = mask[top:bottom, left:right] * np.uint8(_FILL_OPACITY * 255)
    overlay.paste(rgb, box, Image.fromarray(opacity))


def _outline(overlay: Image.Image, mask: BoolMask, box: Box, rgb: tuple[int, int, int], width_px: int) -> None:
    """Draw the line around the mask, with a dark halo so that it shows on any background.

    The blurred mask crosses 1/2 at the edge, and how far from 1/2 it is tells the distance from the edge: this gives a
    line with smooth sides.
    """
    margin = 4 * width_px
    left, top = max(0, box[0] - margin), max(0, box[1] - margin)
    right, bottom = min(mask.shape[1], box[2] + margin), min(mask.shape[0], box[3] + margin)
    sigma_px = width_px / 2
    region = Image.fromarray(mask[top:bottom, left:right].astype(np.uint8) * 255)
    blurred = np.asarray(region.filter(ImageFilter.GaussianBlur(sigma_px)), dtype=np.float32) / 255
    from_edge = np.abs(blurred - 0.5)
    halo = _line_opacity(from_edge, (0.5 + _HALO_WIDTH) * width_px, sigma_px) * _HALO_OPACITY
    line = _line_opacity(from_edge, 0.5 * width_px, sigma_px)
    for opacity, ink in ((halo, (0, 0, 0)), (line, rgb)):
        overlay.paste(ink, (left, top), Image.fromarray((opacity * 255).astype(np.uint8)))


def _line_opacity(from_edge: npt.NDArray[np.float32], half_width_px: float, sigma_px: float) -> npt.NDArray[np.float32]:
    """Return 1 within `half_width_px` of the edge and 0 beyond it, over one pixel of ramp."""
    relative = half_width_px / sigma_px
    at_side = 0.5 * math.erf(relative / math.sqrt(2))
    per_pixel = math.exp(-(relative**2) / 2) / (sigma_px * math.sqrt(2 * math.pi))
    per_pixel = min(per_pixel, 2 * (0.5 - at_side))  # far away the blurred mask is level: the ramp has to end before
    opacity: npt.NDArray[np.float32] = np.clip((at_side - from_edge) / np.float32(per_pixel) + 0.5, 0, 1)
    return opacity
