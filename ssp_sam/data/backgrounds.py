"""Random backgrounds: plain ones, clouds that look like a photograph out of focus, patterns, horizons."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

PAPER_SHARE = 0.2
"""Of colours: white or nearly so, as people's pictures of single things often are behind them."""


def _colour(rng: np.random.Generator) -> Floats:
    """A colour, more often dull than gaudy, and now and then paper: (3,) in 0 to 255."""
    grey = rng.uniform(235, 262) if rng.random() < PAPER_SHARE else rng.uniform(10, 250)
    spread = (6, 20, 45)[int(rng.integers(3))]
    return np.clip(grey + rng.normal(0, spread, 3), 0, 255).astype(np.float32)


def _near(colour: Floats, rng: np.random.Generator, spread: float = 35) -> Floats:
    """A colour not far from another."""
    return np.clip(colour + rng.normal(0, spread) + rng.normal(0, spread / 2, 3), 0, 255).astype(np.float32)


def _mix(weight: Floats, first: Floats, second: Floats) -> Pixels:
    """Mix two colours by a weight of (S, S) in 0 to 1: (S, S, 3)."""
    steps = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
    table = (first + steps * (second - first)).astype(
        np.uint8
    )  # (256, 3): looking up is faster than mixing every pixel
    return table[(weight * 255).astype(np.uint8)]


def _ramp(side_px: int, rng: np.random.Generator) -> Floats:
    """A slope from 0 to 1 in a random direction: (S, S)."""
    angle = rng.uniform(0, 2 * np.pi)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    steps = np.linspace(-0.5, 0.5, side_px, dtype=np.float32) / (abs(cos) + abs(sin))
    return np.clip(cos * steps[None, :] + (sin * steps[:, None] + np.float32(0.5)), 0, 1)


def flat(side_px: int, rng: np.random.Generator) -> Pixels:
    """One colour."""
    return np.broadcast_to(_colour(rng).astype(np.uint8), (side_px, side_px, 3)).copy()


def gradient(side_px: int, rng: np.random.Generator) -> Pixels:
    """A slope between two colours, or from one over another to a third, as of sky and meadow."""
    first, ramp = _colour(rng), _ramp(side_px, rng)
    if rng.random() < 0.5:
        return _mix(ramp, first, _near(first, rng, 50))
    bend = np.float32(rng.uniform(0.3, 0.7))
    middle = _near(first, rng, 50)
    below = _mix(np.clip(ramp / bend, 0, 1), first, middle)
    above = _mix(np.clip((ramp - bend) / (1 - bend), 0, 1), middle, _near(middle, rng, 50))
    return np.where((ramp < bend)[..., None], below, above)


def grain(side_px: int, rng: np.random.Generator) -> Pixels:
    """One colour with a different speck at every pixel."""
    strength = int(rng.integers(8, 70))
    base = np.clip(_colour(rng), 0, 255 - strength).astype(np.uint8)
    return base + rng.integers(0, strength, (side_px, side_px, 3), dtype=np.uint8)


def clouds(side_px: int, rng: np.random.Generator) -> Pixels:
    """Patches of several sizes between two colours on a slope to a third."""
    small_px = max(side_px // 4, 1)  # nothing in it is finer
    first = _colour(rng)
    weight = np.zeros((small_px, small_px), dtype=np.float32)
    total = 0.0
    for octave, cells in enumerate((2, 4, 9, 20)):
        strength = 0.55**octave
        bumps = Image.fromarray(rng.integers(0, 256, (cells, cells), dtype=np.uint8))
        weight += strength * np.asarray(bumps.resize((small_px, small_px), Image.Resampling.BICUBIC), dtype=np.float32)
        total += strength
    weight = np.clip((weight / (255 * total) - 0.5) * 1.8 + 0.5, 0, 1)
    patches = _mix(weight, first, _near(first, rng, 80)).astype(np.float32)
    slope = _ramp(small_px, rng)[..., None] * np.float32(rng.uniform(0, 0.7))
    pixels = patches + slope * (_near(first, rng, 60) - patches)
    return np.array(Image.fromarray(pixels.astype(np.uint8)).resize((side_px, side_px), Image.Resampling.BICUBIC))


def stripes(side_px: int, rng: np.random.Generator) -> Pixels:
    """Two colours in bands."""
    first = _colour(rng)
    bands = rng.uniform(3, 16)
    wave = np.sin(_ramp(side_px, rng) * np.float32(2 * np.pi * bands))
    return _mix(np.clip(wave * 4 + np.float32(0.5), 0, 1), first, _near(first, rng))


def checks(side_px: int, rng: np.random.Generator) -> Pixels:
    """A board of two colours."""
    first = _colour(rng)
    cell_px = int(side_px * rng.uniform(0.04, 0.2)) + 1
    steps = np.arange(side_px) // cell_px
    board = ((steps[None, :] + steps[:, None]) % 2).astype(np.float32)
    return _mix(board, first, _near(first, rng))


# What lies above and below a horizon.
_HORIZON_PARTS = (flat, gradient, grain, clouds)


def horizon(side_px: int, rng: np.random.Generator) -> Pixels:
    """One kind above another, as of wall and floor or sky and land, with an edge that may roll or have a border."""
    above, below = (_HORIZON_PARTS[part](side_px, rng) for part in rng.integers(len(_HORIZON_PARTS), size=2))
    steps = np.arange(side_px, dtype=np.float32) / side_px
    rolling = rng.uniform(0, 0.05) * (rng.random() < 0.5)
    edge = rng.uniform(0.25, 0.75) + rolling * np.sin(steps * rng.uniform(3, 12) + rng.uniform(0, 6))
    picture = np.where((steps[:, None] < edge)[..., None], above, below)
    if rng.random() < 0.3:
        picture[np.abs(steps[:, None] - edge) < rng.uniform(0.004, 0.02)] = _colour(rng).astype(np.uint8)
    return picture


# How often each kind is drawn.
WEIGHTS: dict[Callable[[int, np.random.Generator], Pixels], float] = {
    flat: 0.12,
    gradient: 0.15,
    grain: 0.1,
    clouds: 0.3,
    stripes: 0.08,
    checks: 0.08,
    horizon: 0.17,
}


def random_background(width_px: int, height_px: int, rng: np.random.Generator) -> Pixels:
    """Draw a background of a random kind.

    Returns:
        (height_px, width_px, 3) uint8 RGB.
    """
    kinds = list(WEIGHTS)
    kind = kinds[int(rng.choice(len(kinds), p=list(WEIGHTS.values())))]
    side_px = max(width_px, height_px)
    top, left = (side_px - height_px) // 2, (side_px - width_px) // 2
    return kind(side_px, rng)[top : top + height_px, left : left + width_px]
