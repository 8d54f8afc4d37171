"""Pictures of single things, from an emoji font."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.emoji_font import load_tiles

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

_VIVID = 45  # least difference between a pixel's strongest and weakest channel


def load_glyphs(font: Path) -> dict[str, Image.Image]:
    """Return the pictures of the nouns, RGBA without empty margins. Raises FontError."""
    return {noun: tile.crop(tile.getbbox()) for noun, tile in load_tiles(font).items()}


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
