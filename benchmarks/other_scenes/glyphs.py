"""Pictures of single things, from an emoji font."""

from __future__ import annotations

import importlib.resources
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.other_scenes.words import CODES

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
"""Where Debian's package puts it."""

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (215, 35, 40),
    "blue": (45, 95, 225),
    "green": (45, 165, 70),
    "yellow": (248, 208, 40),
    "purple": (140, 60, 185),
}

TINTABLE = (
    "balloon",
    "umbrella",
    "t-shirt",
    "dress",
    "backpack",
    "billed cap",
    "bucket",
    "high-heeled shoe",
    "teapot",
    "automobile",
    "coat",
    "closed book",
    "scarf",
    "running shoe",
)
"""Nouns whose pictures look right in every one of `COLOURS`."""

_FONT_SIZE_PX = 109  # the only one that the font has
_TILE_SIDE_PX = 180
_VIVID = 45  # least difference between a pixel's strongest and weakest channel


class FontError(Exception):
    """There is no font to draw with; the message says where it was looked for."""


def load_glyphs(font: Path) -> dict[str, Image.Image]:
    """Return the pictures of the nouns, RGBA without empty margins. Raises FontError."""
    if not font.is_file():
        raise FontError(f"there is no emoji font at {font}; `make font` installs it at {FONT}")
    try:
        face = ImageFont.truetype(str(font), _FONT_SIZE_PX)
    except OSError as error:
        raise FontError(f"cannot draw with {font} ({error}); `make font` installs a font at {FONT}") from error
    glyphs = {}
    nouns = importlib.resources.files("ssp_sam.data").joinpath("nouns.txt").read_text(encoding="utf-8")
    for noun in filter(None, nouns.splitlines()):
        try:
            character = chr(CODES[noun]) if noun in CODES else unicodedata.lookup(noun.upper())
        except KeyError:  # a noun that was added to the list since
            continue
        tile = Image.new("RGBA", (_TILE_SIDE_PX, _TILE_SIDE_PX))
        ImageDraw.Draw(tile).text((20, 20), character, font=face, embedded_color=True)
        if tile.getbbox():
            glyphs[noun] = tile.crop(tile.getbbox())
    return glyphs


def tint(glyph: Image.Image, colour: str) -> Image.Image:
    """Give the coloured pixels of a picture, not the grey ones, one of `COLOURS`; light and shade stay."""
    target = np.array(COLOURS[colour])
    pixels = np.asarray(glyph).astype(float)
    rgb, alpha = pixels[..., :3], pixels[..., 3]
    luma = rgb @ np.array([0.3, 0.59, 0.11])
    is_vivid = (rgb.max(-1) - rgb.min(-1) > _VIVID) & (alpha > 0)
    level = (luma / max(1.0, np.median(luma[is_vivid])))[..., None]
    shade, light = level * target, 255 - (255 - target) * np.clip(1.6 - 0.6 * level, 0, 1)
    tinted = np.where(is_vivid[..., None], np.where(level < 1, shade, light), rgb)
    return Image.fromarray(np.dstack([tinted, alpha]).clip(0, 255).astype(np.uint8))
