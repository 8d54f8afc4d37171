"""Scenes: which things, how large, where, and what is seen of them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance

from benchmarks.third_scenes.backgrounds import draw_background
from benchmarks.third_scenes.canvas import Piece, compose, is_distinct, layers_in_sight
from benchmarks.third_scenes.cast import choose_nouns, choose_paints, own_colour
from benchmarks.third_scenes.colours import DOUBTFUL, PAINTABLE
from benchmarks.third_scenes.paint import is_opaque, repaint
from benchmarks.third_scenes.scene import Scene

_SIZES_WH_PX = ((256, 256), (256, 192), (320, 224), (192, 256), (224, 304), (288, 240))
_LARGEST_MEAN_SIZE = {2: 0.6, 3: 0.55, 4: 0.48, 5: 0.42, 6: 0.38}  # over the picture's shorter side, by how many
_MOST_BEYOND = 0.12  # share of a thing's side that the picture's edge may cut off
_MOST_COVERED = 0.75  # share of the smaller one of two boxes; with more there is no place for a thing
_ATTEMPTS = 60
_LEAST_THINGS = 2


@dataclass(frozen=True)
class _Manner:
    """How the things of a scene are arranged.

    mean_size: over the picture's shorter side; spread: how far sizes differ from it; covered: share of the smaller one
    of two boxes that is covered without looking for a better place; jitter: how far rows and columns are from straight.
    """

    size_wh_px: tuple[int, int]
    count: int
    layout: str
    mean_size: float
    spread: float
    covered: float
    jitter: float


def draw_scene(rng: random.Random, glyphs: Mapping[str, Image.Image], nouns: Sequence[str]) -> Scene | None:
    """Return a scene; None if what was tried would have too few things, or one that is hard to see.

    glyphs: the pictures of all nouns. nouns: those that scenes have.
    """
    (size_wh_px,) = rng.choices(_SIZES_WH_PX, [6, 1, 1, 1, 1, 1])
    cast = choose_nouns(rng, nouns)
    count = len(cast)
    (layout,) = rng.choices(["free", "row", "column", "loose"], [4, 3 if count > 2 else 1, 1, 3])
    mean_size, spread = rng.uniform(0.16, _LARGEST_MEAN_SIZE[count]), rng.choice([0.08, 0.35, 0.6, 0.8])
    paints = choose_paints(rng, cast)
    covered, jitter = rng.choice([0.03, 0.15, 0.35]), rng.uniform(0, 0.06)
    manner = _Manner(size_wh_px, count, layout, mean_size, spread, covered, jitter)
    pieces = _place_all(rng, manner, glyphs, cast, paints)
    rng.shuffle(pieces)
    layers = layers_in_sight(pieces, size_wh_px)
    if len(layers) < _LEAST_THINGS:
        return None
    background = draw_background(rng, size_wh_px)
    has_shadows = rng.random() < 0.3
    if not all(is_distinct(layer, background) for layer in layers):
        return None
    return Scene(compose(rng, background, layers, has_shadows=has_shadows), [layer.thing() for layer in layers])


def _place_all(
    rng: random.Random,
    manner: _Manner,
    glyphs: Mapping[str, Image.Image],
    cast: Sequence[str],
    paints: Mapping[str, list[str]],
) -> list[Piece]:
    """Return the things that found a place."""
    pieces: list[Piece] = []
    colours_left = {noun: list(colours) for noun, colours in paints.items()}
    for number, noun in enumerate(cast):
        glyph, colour = glyphs[noun], own_colour(noun)
        if noun in colours_left:
            colour = colours_left[noun].pop()
            if colour != PAINTABLE[noun] or noun in DOUBTFUL:
                glyph = repaint(glyph, noun, colour)
        image = _vary(rng, manner, glyph)
        place_xy_px = _find_place(rng, manner, number, image.size, [piece.box_xyxy_px for piece in pieces])
        if place_xy_px:
            (left, top), (width, height) = place_xy_px, image.size
            box_xyxy_px = left, top, left + width, top + height
            pieces.append(Piece(noun, colour, image, box_xyxy_px, int(is_opaque(image).sum())))
    return pieces


def _vary(rng: random.Random, manner: _Manner, glyph: Image.Image) -> Image.Image:
    """Return a picture of a thing as large, light and turned as it is in the scene."""
    share = manner.mean_size * rng.uniform(1 - manner.spread, 1 + manner.spread * 0.8)
    size_px = float(np.clip(share, 0.1, 0.6)) * min(manner.size_wh_px)
    if rng.random() < 0.5:
        glyph = glyph.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    glyph = ImageEnhance.Brightness(glyph).enhance(rng.uniform(0.88, 1.1))
    glyph = ImageEnhance.Color(glyph).enhance(rng.uniform(0.88, 1.15))
    scale = size_px / max(glyph.size)
    size_wh_px = max(4, round(glyph.width * scale)), max(4, round(glyph.height * scale))
    glyph = glyph.resize(size_wh_px, Image.Resampling.LANCZOS)
    turn_deg = rng.gauss(0, 8) if rng.random() < 0.8 else rng.uniform(-25, 25)
    glyph = glyph.rotate(turn_deg, Image.Resampling.BICUBIC, expand=True)
    return glyph.crop(glyph.getbbox())


def _find_place(
    rng: random.Random,
    manner: _Manner,
    number: int,
    size_wh_px: tuple[int, int],
    taken: Sequence[tuple[int, int, int, int]],
) -> tuple[int, int] | None:
    """Return the left upper corner of a place where little is covered. number: of the thing in the cast."""
    best_xy_px: tuple[int, int] | None = None
    best_covered = np.inf
    for _ in range(_ATTEMPTS):
        left, top = (
            int(np.clip(value, -_MOST_BEYOND * side, whole - (1 - _MOST_BEYOND) * side))
            for value, side, whole in zip(
                _try_place(rng, manner, number, size_wh_px), size_wh_px, manner.size_wh_px, strict=True
            )
        )
        box_xyxy_px = left, top, left + size_wh_px[0], top + size_wh_px[1]
        covered = max((_covered(box_xyxy_px, other) for other in taken), default=0.0)
        if covered < best_covered:
            best_covered, best_xy_px = covered, (left, top)
        if covered <= manner.covered:
            break
    return best_xy_px if best_covered <= _MOST_COVERED else None


def _try_place(rng: random.Random, manner: _Manner, number: int, size_wh_px: tuple[int, int]) -> tuple[float, float]:
    """Return a left upper corner, (x, y)."""
    (picture_width, picture_height), (width, height) = manner.size_wh_px, size_wh_px
    if manner.layout not in ("row", "column"):
        x_px = rng.uniform(-0.06 if rng.random() < 0.15 else 0, 1) * (picture_width - width)
        return x_px, rng.uniform(0, 1) * (picture_height - height)
    axis = 0 if manner.layout == "row" else 1
    along_px, across_px = manner.size_wh_px[axis], manner.size_wh_px[1 - axis]
    slot = (number + 0.5) / manner.count
    place_along = slot * along_px - size_wh_px[axis] / 2 + rng.uniform(-manner.jitter, manner.jitter) * along_px
    from_middle = rng.uniform(-1, 1) * across_px * (0.08 + manner.jitter)
    place_across = across_px * 0.5 - size_wh_px[1 - axis] / 2 + from_middle
    return (place_along, place_across) if manner.layout == "row" else (place_across, place_along)


def _covered(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    """Return the share of the smaller one of two boxes that lies in the other."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    areas_px = [(right - left) * (bottom - top) for left, top, right, bottom in (one, other)]
    return width * height / min(areas_px) if width > 0 and height > 0 else 0.0
