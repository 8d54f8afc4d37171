"""Pictures of single things, and paint for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.emoji_font import load_tiles
from benchmarks.third_scenes.backgrounds import Values
from benchmarks.third_scenes.colours import HUES, PAINTABLE
from ssp_sam.results import BoolMask

_MARGIN_PX = 2
_LEAST_SHARE = 0.2  # of a thing that has to take the paint
_PALE = ("t-shirt", 200.0, 60.0)  # its own colour is so light a blue that it is looked for in another way
_OWN_HUES_DEG = {
    "blue": (216.0, 50.0),
    "purple": (250.0, 50.0),
    "orange": (28.0, 40.0),
    "yellow": (45.0, 30.0),
    "pink": (335.0, 45.0),
    "red": (2.0, 32.0),
}
"""Where the pixels of a colour are: middle, and how far from it."""


class PaintError(Exception):
    """The picture of a paintable thing has too little of its own colour."""


def load_glyphs(font: Path) -> dict[str, Image.Image]:
    """Return the pictures of the nouns, RGBA with narrow margins. Raises FontError."""
    return {noun: _trim(tile) for noun, tile in load_tiles(font).items()}


def is_opaque(image: Image.Image) -> BoolMask:
    """Return which pixels of an RGBA image belong to the thing, (H, W)."""
    opaque: BoolMask = np.asarray(image.getchannel("A")) >= 128
    return opaque


def repaint(glyph: Image.Image, noun: str, colour: str) -> Image.Image:
    """Give the pixels of a paintable noun's own colour another one; light and shade stay. Raises PaintError."""
    pixels = np.array(glyph).astype(float)
    hue_deg, saturation, value = _hsv(pixels[..., :3] / 255)
    is_there = pixels[..., 3] > 40
    pale_noun, pale_deg, pale_width_deg = _PALE
    own_deg, width_deg = (pale_deg, pale_width_deg) if noun == pale_noun else _OWN_HUES_DEG[PAINTABLE[noun]]
    away_deg = (hue_deg - own_deg + 180) % 360 - 180
    is_vivid = is_there & (saturation > (0.12 if noun == pale_noun else 0.25))
    is_own = is_vivid & (np.abs(away_deg) < width_deg)
    if is_own.sum() < _LEAST_SHARE * is_there.sum():
        raise PaintError(f"the picture of {noun!r} has too little {PAINTABLE[noun]} to be painted {colour}")

    new = HUES[colour]
    lighter = value - value[is_own].mean()
    if colour in ("black", "white"):
        new_saturation = np.full_like(saturation, new.saturation)
        new_value = np.clip(new.value + lighter * (0.35 if colour == "black" else 0.3), 0, 1)
    else:
        new_saturation = np.clip(new.saturation + (saturation - saturation[is_own].mean()) * 0.5, 0, 1)
        new_value = np.clip(new.value + lighter * 0.8, 0, 1)
    painted = _rgb((new.hue_deg + away_deg * 0.25) % 360, new_saturation, new_value) * 255
    pixels[..., :3] = np.where(is_own[..., None], painted, pixels[..., :3])
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8), "RGBA")


def _trim(tile: Image.Image) -> Image.Image:
    box = Image.fromarray(is_opaque(tile)).getbbox()
    assert box, "a tile has something on it"
    left, top, right, bottom = box
    return tile.crop((left - _MARGIN_PX, top - _MARGIN_PX, right + _MARGIN_PX, bottom + _MARGIN_PX))


def _hsv(rgb: Values) -> tuple[Values, Values, Values]:
    """Return hue in degrees, saturation and value, each (H, W)."""
    red, green, blue = np.moveaxis(rgb, -1, 0)
    most: Values = rgb.max(-1)
    range_ = most - rgb.min(-1)
    saturation: Values = np.where(most > 0, range_ / np.maximum(most, 1e-6), 0.0)
    step = np.maximum(range_, 1e-6)
    from_red, from_green, from_blue = ((green - blue) / step) % 6, (blue - red) / step + 2, (red - green) / step + 4
    sixths: Values = np.where(most == red, from_red, np.where(most == green, from_green, from_blue))
    return sixths * 60, saturation, most


def _rgb(hue_deg: Values, saturation: Values, value: Values) -> Values:
    """Return the colours, (H, W, 3)."""
    sixths = hue_deg / 60
    sector = sixths.astype(int) % 6
    along = sixths - np.floor(sixths)
    least, falling, rising = (value * (1 - saturation * part) for part in (1, along, 1 - along))
    red = np.choose(sector, [value, falling, least, least, rising, value])
    green = np.choose(sector, [rising, value, value, falling, least, least])
    blue = np.choose(sector, [least, least, rising, value, value, falling])
    return np.stack([red, green, blue], axis=-1)
