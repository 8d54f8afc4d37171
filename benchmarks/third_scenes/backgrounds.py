"""What lies behind the things: patterns, blurs and simple places."""

from __future__ import annotations

import colorsys
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Values = npt.NDArray[np.floating[Any]]
Rgb = tuple[int, int, int]

_GROUNDS: tuple[Rgb, ...] = ((96, 150, 70), (190, 170, 110), (120, 120, 125), (230, 235, 240), (150, 120, 80))
_CLOUD_GRAINS = ((3, 1), (7, 0.5), (17, 0.25), (40, 0.12))  # how many to a side, and how strong
_STEP_PX = 8  # of a horizon


class _Sheet:
    """A sheet to draw a background on, and two colours for it.

    x_px, y_px: where each of its pixels is, (H, W).
    """

    def __init__(self, rng: random.Random, noise: np.random.RandomState, size_wh_px: tuple[int, int]) -> None:
        self.rng, self.noise = rng, noise
        self.width, self.height = size_wh_px
        self.one, self.two = soft_colour(rng), soft_colour(rng)
        grid = np.mgrid[0 : self.height, 0 : self.width].astype(float)
        self.y_px: Values = grid[0]
        self.x_px: Values = grid[1]

    def mix(self, share: Values) -> Values:
        """Return pixels, (H, W, 3), between the two colours. share: of the second, (H, W)."""
        return _mix(self.one, self.two, share)

    def grain(self) -> Values:
        """Return noise, (H, W, 1)."""
        values: Values = self.noise.randn(self.height, self.width, 1)
        return values

    def blank(self) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        """Return an image in the first colour, and what draws on it."""
        image = Image.new("RGB", (self.width, self.height), self.one)
        return image, ImageDraw.Draw(image)


def draw_background(rng: random.Random, size_wh_px: tuple[int, int]) -> Values:
    """Return a background of any style, RGB from 0 to 255, (H, W, 3)."""
    noise = np.random.RandomState(rng.randrange(2**31))
    style = rng.choice(list(_STYLES))
    sheet = _Sheet(rng, noise, size_wh_px)
    pixels = _STYLES[style](sheet)
    if rng.random() < 0.4:
        pixels = pixels + sheet.grain() * rng.uniform(1, 9)
    return np.clip(pixels, 0, 255)


def soft_colour(rng: random.Random) -> Rgb:
    """Return a rather muted colour."""
    hue, lightness, saturation = rng.random(), rng.uniform(0.25, 0.9), rng.uniform(0.05, 0.5)
    red, green, blue = (int(255 * part) for part in colorsys.hls_to_rgb(hue, lightness, saturation))
    return red, green, blue


def _mix(one: Rgb, two: Rgb, share: Values) -> Values:
    pixels: Values = np.array(one) * (1 - share[..., None]) + np.array(two) * share[..., None]
    return pixels


def _pixels(image: Image.Image) -> Values:
    return np.asarray(image).astype(float)


def _flat(sheet: _Sheet) -> Values:
    return sheet.mix(np.zeros((sheet.height, sheet.width)))


def _gradient(sheet: _Sheet) -> Values:
    """From one colour to the other, in any direction."""
    angle = sheet.rng.uniform(0, 6.28)
    way = sheet.x_px * np.cos(angle) + sheet.y_px * np.sin(angle)
    return sheet.mix((way - way.min()) / (np.ptp(way) + 1e-6))


def _radial(sheet: _Sheet) -> Values:
    """From one colour at a point to the other far from it."""
    way = np.hypot(sheet.x_px - sheet.rng.uniform(0, sheet.width), sheet.y_px - sheet.rng.uniform(0, sheet.height))
    return sheet.mix(way / way.max())


def _cloud(sheet: _Sheet) -> Values:
    """Soft spots of several sizes."""
    total: Values = np.zeros((sheet.height, sheet.width))
    for count, strength in _CLOUD_GRAINS:
        grains = Image.fromarray((sheet.noise.rand(count, count) * 255).astype(np.uint8))
        total += strength * np.asarray(grains.resize((sheet.width, sheet.height), Image.Resampling.BICUBIC)) / 255
    return sheet.mix((total - total.min()) / np.ptp(total))


def _stripes(sheet: _Sheet) -> Values:
    angle = sheet.rng.choice([0, 1.57, 0.78, sheet.rng.uniform(0, 3.1)])
    width_px = sheet.rng.uniform(10, 50)
    stripe = (sheet.x_px * np.cos(angle) + sheet.y_px * np.sin(angle)) // width_px
    return sheet.mix((stripe % 2) * sheet.rng.uniform(0.3, 1))


def _check(sheet: _Sheet) -> Values:
    side_px = sheet.rng.randint(12, 50)
    return sheet.mix(((sheet.x_px // side_px + sheet.y_px // side_px) % 2) * sheet.rng.uniform(0.3, 1))


def _dots(sheet: _Sheet) -> Values:
    side_px = sheet.rng.randint(16, 44)
    from_dot_px = np.hypot(sheet.x_px % side_px - side_px / 2, sheet.y_px % side_px - side_px / 2)
    return sheet.mix((from_dot_px < side_px * sheet.rng.uniform(0.15, 0.35)) * sheet.rng.uniform(0.4, 1))


def _land(sheet: _Sheet) -> Values:
    """Sky above rough ground."""
    rng, width, height = sheet.rng, sheet.width, sheet.height
    sky = rng.randint(120, 200), rng.randint(180, 230), rng.randint(220, 255)
    ground = rng.choice(_GROUNDS)
    horizon_px, phase = height * rng.uniform(0.3, 0.75), rng.uniform(0, 6)
    image, draw = sheet.blank()
    draw.rectangle((0, 0, width, height), fill=sky)
    ridge = [
        (x_px, horizon_px + rng.uniform(4, 5) * 2 * np.sin(x_px / width * 5 + phase))
        for x_px in range(0, width + _STEP_PX, _STEP_PX)
    ]
    draw.polygon([(0, height), *ridge, (width + _STEP_PX, height)], fill=ground)
    return _pixels(image)


def _room(sheet: _Sheet) -> Values:
    """Wall, skirting board and floor."""
    image, draw = sheet.blank()
    edge_px = int(sheet.height * sheet.rng.uniform(0.45, 0.8))
    draw.rectangle((0, edge_px, sheet.width, sheet.height), fill=sheet.two)
    draw.rectangle((0, edge_px, sheet.width, edge_px + 4), fill=soft_colour(sheet.rng))
    return _pixels(image)


def _blobs(sheet: _Sheet) -> Values:
    """Blurred discs of many colours."""
    rng = sheet.rng
    image, draw = sheet.blank()
    for _ in range(rng.randint(6, 25)):
        x_px, y_px, radius_px = rng.uniform(0, sheet.width), rng.uniform(0, sheet.height), rng.uniform(8, 70)
        draw.ellipse((x_px - radius_px, y_px - radius_px, x_px + radius_px, y_px + radius_px), fill=soft_colour(rng))
    return _pixels(image.filter(ImageFilter.GaussianBlur(rng.choice([6, 14, 22]))))


def _wood(sheet: _Sheet) -> Values:
    """Planks."""
    rng = sheet.rng
    light = rng.randint(120, 190), rng.randint(85, 125), rng.randint(50, 85)
    dark = int(light[0] * 0.7), int(light[1] * 0.7), int(light[2] * 0.7)
    plank_px = rng.randint(30, 64)
    bend = 3 * np.sin(sheet.x_px / sheet.width * rng.uniform(2, 6))
    pixels = _mix(light, dark, 0.5 + 0.3 * np.sin(sheet.y_px * 0.5 + bend + (sheet.y_px // plank_px) * 2))
    pixels[(sheet.y_px % plank_px) < 2] *= 0.6
    return pixels


def _paper(sheet: _Sheet) -> Values:
    return _flat(sheet) + sheet.grain() * sheet.rng.uniform(4, 12)


def _shards(sheet: _Sheet) -> Values:
    """Triangles of many colours, paled."""
    rng = sheet.rng
    image, draw = sheet.blank()
    for _ in range(rng.randint(4, 12)):
        corners = [(rng.uniform(-20, sheet.width + 20), rng.uniform(-20, sheet.height + 20)) for _ in range(3)]
        draw.polygon(corners, fill=soft_colour(rng))
    plain, _ = sheet.blank()
    return _pixels(Image.blend(image, plain, rng.uniform(0.2, 0.6)))


_STYLES: Mapping[str, Callable[[_Sheet], Values]] = {
    "flat": _flat,
    "gradient": _gradient,
    "radial": _radial,
    "cloud": _cloud,
    "stripes": _stripes,
    "check": _check,
    "dots": _dots,
    "land": _land,
    "room": _room,
    "blobs": _blobs,
    "wood": _wood,
    "paper": _paper,
    "shards": _shards,
}
