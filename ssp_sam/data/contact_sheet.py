"""Scenes on a sheet to look at: every phrase in a colour, its mask outlined in the same colour."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ssp_sam.data.phrases import Expression

OUTLINES = ((230, 25, 75), (0, 130, 200), (60, 160, 60), (200, 60, 200), (245, 130, 48), (0, 150, 150))
_LINE_PX = 17
_MARGIN_PX = 8


def outline(mask: npt.NDArray[np.bool_], width_px: int = 2) -> npt.NDArray[np.bool_]:
    """Return the pixels of a mask, (H, W) bool, that are within `width_px` of its edge."""
    padded = np.pad(mask, width_px)
    inner = mask.copy()
    height, width = mask.shape
    for step in range(1, width_px + 1):
        for dy, dx in ((step, 0), (-step, 0), (0, step), (0, -step)):
            inner &= padded[width_px + dy :, width_px + dx :][:height, :width]
    return mask & ~inner


def panel(image: npt.NDArray[np.uint8], expressions: Sequence[Expression]) -> Image.Image:
    """Draw one picture, (H, W, 3) uint8 RGB, with its phrases below."""
    pixels = image.copy()
    for number, expression in enumerate(expressions):
        # Outlines of one thing lie inside one another.
        mask = expression.mask
        for earlier in expressions[:number]:
            if (earlier.mask & expression.mask).any():
                mask = mask & ~outline(mask)
        pixels[outline(mask)] = OUTLINES[number % len(OUTLINES)]
    height, width = image.shape[:2]
    font = ImageFont.load_default(13)
    texts = [each.phrase if each.mask.any() else f"{each.phrase}  (not there)" for each in expressions]
    widest_px = max((int(font.getlength(text)) + 4 for text in texts), default=0)
    result = Image.new("RGB", (max(width, widest_px), height + _LINE_PX * len(texts) + 4), "white")
    result.paste(Image.fromarray(pixels))
    draw = ImageDraw.Draw(result)
    for number, text in enumerate(texts):
        draw.text((2, height + 2 + _LINE_PX * number), text, OUTLINES[number % len(OUTLINES)], font=font)
    return result


def contact_sheet(panels: Sequence[Image.Image], columns: int = 4) -> Image.Image:
    """Lay panels out in rows, each with room for the largest."""
    width, height = (max(sides) + _MARGIN_PX for sides in zip(*(picture.size for picture in panels), strict=True))
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    sheet = Image.new("RGB", (columns * width + _MARGIN_PX, rows * height + _MARGIN_PX), "white")
    for number, picture in enumerate(panels):
        row, column = divmod(number, columns)
        sheet.paste(picture, (_MARGIN_PX + column * width, _MARGIN_PX + row * height))
    return sheet
