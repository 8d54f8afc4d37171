"""From a glyph to a picture on a scene: recolouring, scaling, turning, and what colour it then has."""

import colorsys
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from ssp_sam.data.things import COLOURS

Matrix = npt.NDArray[np.float64]

_LUMA = np.array([0.299, 0.587, 0.114])  # of RGB
_GREY_AXIS = np.full(3, 1 / np.sqrt(3))

# A dyed thing runs from a dark shade of the colour to a bright one, along its own luma.
DYES = {
    "red": (225, 30, 30),
    "orange": (250, 140, 10),
    "yellow": (250, 225, 30),
    "green": (40, 175, 50),
    "blue": (35, 95, 235),
    "purple": (145, 55, 200),
    "pink": (255, 120, 185),
}

_COLOURED_MIN = 0.25  # saturation from which on a pixel is no grey
_COLOURED_SHARE_MIN = 0.5  # of a picture, to give it another colour by its hue alone


@dataclass(frozen=True)
class _ColourRange:
    """What people call by one word: hues (degrees, the first may be negative), saturation and value (0 to 1)."""

    hues: tuple[int, int]
    saturation: tuple[float, float]
    value: tuple[float, float]


_ANY_HUE = (0, 360)
# Between the ranges are colours that people name differently.
_COLOUR_RANGES = {
    "red": _ColourRange((-14, 12), (0.5, 1), (0.35, 1)),
    "orange": _ColourRange((20, 40), (0.5, 1), (0.7, 1)),
    "yellow": _ColourRange((46, 64), (0.4, 1), (0.7, 1)),
    "green": _ColourRange((80, 160), (0.35, 1), (0.3, 1)),
    "blue": _ColourRange((195, 245), (0.35, 1), (0.35, 1)),
    "purple": _ColourRange((262, 292), (0.35, 1), (0.3, 1)),
    "pink": _ColourRange((305, 345), (0.2, 1), (0.7, 1)),
    "brown": _ColourRange((8, 38), (0.35, 1), (0.25, 0.6)),
    "black": _ColourRange(_ANY_HUE, (0, 0.4), (0, 0.28)),
    "white": _ColourRange(_ANY_HUE, (0, 0.12), (0.88, 1)),
    "grey": _ColourRange(_ANY_HUE, (0, 0.2), (0.4, 0.75)),
}
# So near to a range some people use its word: degrees of hue, and of saturation and value.
_NEAR_HUE, _NEAR_SHARE = 18.0, 0.2


@dataclass(frozen=True)
class Sprite:
    """A thing as it will be drawn.

    Attributes:
        picture: RGBA of size (w, h).
        solid: (h, w) bool, where it covers more than half of a pixel.
        colour_shares, colour_shares_max: share of the surface in each of `COLOURS`; see `Thing`.
    """

    picture: Image.Image
    solid: npt.NDArray[np.bool_]
    colour_shares: tuple[float, ...]
    colour_shares_max: tuple[float, ...]


def jitter_matrix(rng: np.random.Generator) -> Matrix:
    """Return a slight change of hue, saturation and brightness as an affine map of RGB: (3, 4)."""
    angle = np.deg2rad(rng.uniform(-8, 8))
    saturation, brightness = rng.uniform(0.7, 1.2), rng.uniform(0.75, 1.15)
    # Turning about the grey axis (Rodrigues' formula) keeps greys and moves hues.
    x = _GREY_AXIS[0]
    cross = x * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    turn = np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * np.outer(_GREY_AXIS, _GREY_AXIS)
    saturate = saturation * np.eye(3) + (1 - saturation) * _LUMA
    return np.hstack([brightness * turn @ saturate, np.full((3, 1), rng.uniform(-8, 8))])


def brightness_matrix(rng: np.random.Generator) -> Matrix:
    """Return a slight change of brightness alone: (3, 4)."""
    return np.hstack([rng.uniform(0.85, 1.1) * np.eye(3), np.zeros((3, 1))])


def dye_matrix(colour: str) -> Matrix:
    """Return the map that gives everything one hue, dark where it was dark but never too dark to be seen: (3, 4)."""
    dye = np.array(DYES[colour], dtype=np.float64)
    return np.column_stack([0.55 * np.outer(dye / 255, _LUMA), 0.6 * dye])


def tinted(picture: Image.Image, colour: str) -> Image.Image | None:
    """Give what has a colour one hue and leave greys, light and shade as they are: RGBA to RGBA.

    Returns None where most of the picture is grey, so that little would change.
    """
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in DYES[colour]))
    hsv = np.asarray(picture.convert("RGB").convert("HSV"), dtype=np.float64) / 255  # (h, w, 3)
    solid = np.asarray(picture.getchannel("A")) > 127
    coloured = hsv[..., 1] > _COLOURED_MIN  # of the half-transparent rim, too
    inside = solid & coloured
    if inside.sum() < _COLOURED_SHARE_MIN * solid.sum():
        return None
    light = hsv[..., 2] / hsv[..., 2][inside].mean()
    dyed = np.stack([np.full_like(light, hue), np.full_like(light, saturation), (value * light).clip(0, 1)], axis=-1)
    mixed = np.where(coloured[..., None], dyed, hsv)
    result = Image.fromarray(np.rint(255 * mixed).astype(np.uint8), "HSV").convert("RGB")
    result.putalpha(picture.getchannel("A"))
    return result


@cache
def _colour_tables() -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Say of every RGB colour which one of `COLOURS` it is, if any, and which it might be: (32, 32, 32, COLOURS) each.

    8 values a step. What clearly is one colour is no other.
    """
    hsv = np.array(
        [colorsys.rgb_to_hsv(*((8 * step + 4) / 255 for step in cell)) for cell in np.ndindex(32, 32, 32)]
    ).reshape(32, 32, 32, 3)
    is_clear, is_near = (
        np.stack([_within(hsv, _COLOUR_RANGES[colour], *margins) for colour in COLOURS], axis=-1)
        for margins in ((0, 0), (_NEAR_HUE, _NEAR_SHARE))
    )
    last = len(COLOURS) - 1 - is_clear[..., ::-1].argmax(axis=-1)  # where ranges overlap, the later word goes first
    is_clear = is_clear & (np.arange(len(COLOURS)) == last[..., None])
    return is_clear, is_clear | (is_near & ~is_clear.any(axis=-1, keepdims=True))


def _within(
    hsv: npt.NDArray[np.float64], limits: _ColourRange, hue_margin: float, margin: float
) -> npt.NDArray[np.bool_]:
    """Say which colours (..., 3) lie in a range, or near it: bool (...)."""
    first, last = limits.hues[0] - hue_margin, limits.hues[1] + hue_margin
    within: npt.NDArray[np.bool_] = (360 * hsv[..., 0] - first) % 360 <= last - first
    for channel, (low, high) in enumerate((limits.saturation, limits.value), start=1):
        within &= (hsv[..., channel] >= low - margin) & (hsv[..., channel] <= high + margin)
    return within


def colour_shares(rgb: npt.NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return what share of the pixels, (n, 3), has each of `COLOURS`, and what share might be called so.

    Dull, dark and in-between ones have none, but might be called by the colours nearby.
    """
    steps = rgb >> 3
    shares = (table[steps[:, 0], steps[:, 1], steps[:, 2]].sum(axis=0) / max(1, len(rgb)) for table in _colour_tables())
    clear, possible = (tuple(each.tolist()) for each in shares)
    return clear, possible


def make_sprite(
    picture: Image.Image,
    longest_px: float,
    *,
    matrix: Matrix,
    turn_degrees: float = 0.0,
    mirrored: bool = False,
) -> Sprite:
    """Recolour, scale, turn and mirror a picture.

    Args:
        picture: RGBA, cropped to its content.
        longest_px: length of its longer side before it is turned.
        matrix: (3, 4) affine map of RGB.
        turn_degrees: counter-clockwise.
        mirrored: exchange left and right, before turning.
    """
    alpha = picture.getchannel("A")
    recoloured = picture.convert("RGB").convert("RGB", tuple(matrix.ravel().tolist()))
    surface = np.asarray(recoloured)[::3, ::3][np.asarray(alpha)[::3, ::3] > 127]  # (n, 3); a ninth is plenty
    recoloured.putalpha(alpha)

    turn = np.deg2rad(turn_degrees)
    cos, sin = float(np.cos(turn)), float(np.sin(turn))
    scale = longest_px / max(picture.size)
    width = int(np.ceil(scale * (abs(cos) * picture.width + abs(sin) * picture.height)))
    height = int(np.ceil(scale * (abs(sin) * picture.width + abs(cos) * picture.height)))
    # From a pixel of the result back to the picture, both about their middles.
    back = np.array([[cos, -sin], [sin, cos]]) / scale
    if mirrored:
        back[0] *= -1
    shift = np.array(picture.size) / 2 - back @ (width / 2, height / 2)
    drawn = recoloured.transform(
        (width, height),
        Image.Transform.AFFINE,
        tuple(np.column_stack([back, shift]).ravel().tolist()),
        Image.Resampling.BILINEAR,
    )
    solid = np.asarray(drawn.getchannel("A")) > 127
    return Sprite(drawn, solid, *colour_shares(surface))
