"""What lies behind the things: eight styles, from one flat colour to a landscape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Values = npt.NDArray[np.floating[Any]]

_GROUNDS = ((110, 165, 80), (205, 185, 130), (225, 232, 240))  # grass, sand, snow
_WOODS = ((180, 130, 80), (130, 90, 60), (215, 185, 145))


class _Sheet:
    """A sheet to draw a background on.

    width_px, height_px: its size. x_px, y_px: where each of its pixels is, (H, W).
    """

    def __init__(self, rng: np.random.Generator, width_px: int, height_px: int) -> None:
        self.rng, self.width_px, self.height_px = rng, width_px, height_px
        grid = np.mgrid[0:height_px, 0:width_px].astype(np.float32)
        self.y_px: Values = grid[0]
        self.x_px: Values = grid[1]

    def colour(self, low: int, high: int = 235) -> Values:
        """Return a rather muted colour, RGB, whose channels lie between the two values."""
        base = self.rng.uniform(low, high, 3)
        muted: Values = base * 0.55 + base.mean() * 0.45
        return muted

    def plain(self, colour: Values) -> Values:
        """Return the whole sheet in one colour, (H, W, 3)."""
        return np.ones((self.height_px, self.width_px, 3)) * colour

    def noise(self, grain_px: int, strength: float) -> Values:
        """Return noise that changes over so many pixels, (H, W, 1). strength: its standard deviation."""
        size_hw = max(2, self.height_px // grain_px), max(2, self.width_px // grain_px)
        grains = Image.fromarray(self.rng.normal(0, strength, size_hw).astype(np.float32))
        return np.asarray(grains.resize((self.width_px, self.height_px), Image.Resampling.BICUBIC))[..., None]


def draw_background(rng: np.random.Generator, width_px: int, height_px: int) -> Image.Image:
    """Return a background of any style, RGB."""
    sheet = _Sheet(rng, width_px, height_px)
    style = str(rng.choice(list(_STYLES)))
    pixels = np.broadcast_to(_STYLES[style](sheet), (height_px, width_px, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _flat(sheet: _Sheet) -> Values:
    return sheet.plain(sheet.colour(110))


def _gradient(sheet: _Sheet) -> Values:
    """From one colour to another, in any direction."""
    angle = sheet.rng.uniform(0, 2 * np.pi)
    way = sheet.x_px / sheet.width_px * np.cos(angle) + sheet.y_px / sheet.height_px * np.sin(angle)
    share = ((way - way.min()) / np.ptp(way))[..., None]
    pixels: Values = sheet.colour(90) * (1 - share) + sheet.colour(90) * share
    return pixels


def _texture(sheet: _Sheet) -> Values:
    """Cloth, sand or concrete."""
    plain = sheet.plain(sheet.colour(90, 220))
    return plain + sheet.noise(1, 7) + sheet.noise(int(sheet.rng.integers(6, 40)), 10)


def _land(sheet: _Sheet) -> Values:
    """Sky, far hills and the ground before them."""
    rng, width, height = sheet.rng, sheet.width_px, sheet.height_px
    down = (sheet.y_px / height)[..., None]
    pixels: Values = np.array([120, 175, 230]) * (1 - down) + np.array([225, 235, 240]) * down
    hills, ground = sheet.colour(110, 190), np.array(_GROUNDS[rng.integers(len(_GROUNDS))])
    for depth, tone in ((0.0, hills), (0.12, ground)):
        level_px = height * (rng.uniform(0.4, 0.5) + depth)
        ridge_px = level_px + height * 0.04 * np.sin(sheet.x_px / width * rng.uniform(3, 9) + rng.uniform(0, 6))
        pixels = np.where((sheet.y_px > ridge_px)[..., None], tone + sheet.noise(3, 5) - 20 * (down - 0.5), pixels)
    return pixels


def _table(sheet: _Sheet) -> Values:
    """A wall above a wooden top."""
    rng = sheet.rng
    wood = np.array(_WOODS[rng.integers(len(_WOODS))])
    waves = sheet.y_px / rng.uniform(2, 5) + 3 * np.sin(sheet.x_px / sheet.width_px * rng.uniform(2, 6))
    grain = (np.sin(waves) * 6)[..., None]
    is_top = (sheet.y_px > sheet.height_px * rng.uniform(0.2, 0.5))[..., None]
    return np.where(is_top, wood + grain + sheet.noise(2, 4), sheet.colour(120) + sheet.noise(30, 4))


def _tiles(sheet: _Sheet) -> Values:
    """Tiles with joints, in one or two tones."""
    side_px, shift_px = int(sheet.rng.integers(35, 90)), sheet.rng.uniform(0, 30)
    x_px, y_px = sheet.x_px + shift_px, sheet.y_px + shift_px
    is_joint = (x_px % side_px < 3) | (y_px % side_px < 3)
    check = ((x_px // side_px + y_px // side_px) % 2)[..., None] * sheet.rng.choice([0, 18])
    return np.where(is_joint[..., None], sheet.colour(100, 170), sheet.colour(140) - check + sheet.noise(4, 4))


def _stripes(sheet: _Sheet) -> Values:
    """Wallpaper."""
    colour = sheet.colour(130)
    along_px = sheet.x_px if sheet.rng.random() < 0.6 else sheet.x_px + sheet.y_px
    is_light = (along_px // sheet.rng.uniform(15, 50) % 2 > 0)[..., None]
    return np.where(is_light, colour, colour - sheet.rng.uniform(15, 35))


def _room(sheet: _Sheet) -> Values:
    """Wall, skirting board and floor."""
    edge_px = sheet.height_px * sheet.rng.uniform(0.5, 0.75)
    floor = sheet.colour(80, 190) + sheet.noise(3, 5)
    wall = sheet.colour(140) - 25 * (sheet.x_px / sheet.width_px)[..., None]
    pixels = np.where((sheet.y_px > edge_px)[..., None], floor, wall)
    return np.where((abs(sheet.y_px - edge_px) < sheet.height_px * 0.012)[..., None], 238, pixels)


_STYLES: Mapping[str, Callable[[_Sheet], Values]] = {
    "flat": _flat,
    "gradient": _gradient,
    "texture": _texture,
    "land": _land,
    "table": _table,
    "tiles": _tiles,
    "stripes": _stripes,
    "room": _room,
}
