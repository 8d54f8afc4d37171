"""Scenes: which things, how large, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from benchmarks.other_scenes.backgrounds import draw_background
from benchmarks.other_scenes.canvas import Canvas, Drawing, Piece, Placed, place
from benchmarks.other_scenes.glyphs import COLOURS, TINTABLE, tint
from benchmarks.other_scenes.scene import Scene
from benchmarks.other_scenes.words import GROUPS, SINGLE, clash

_SIZES_WH_PX = ((640, 480), (480, 640), (640, 427), (500, 375), (400, 400), (600, 338), (360, 480), (320, 240))
_LEAST_SIDE_PX = 240
_LEAST_SIZE = 0.1  # of a thing, over the picture's shorter side
_LEAST_AREA_PX = 80
_LEAST_INSIDE = 0.92  # share of a thing that must lie inside the picture
_ATTEMPTS = 60


@dataclass(frozen=True)
class _Manner:
    """How the things of a scene are arranged.

    mean_size: over the picture's shorter side; slots: each thing's place in a row or column.
    """

    sizes_vary: bool
    layout: str
    may_overlap: bool
    has_shadows: bool
    mean_size: float
    slots: Sequence[int]


def draw_scene(rng: np.random.Generator, glyphs: Mapping[str, Image.Image]) -> Scene:
    """Return a scene; one in which no thing found a place has none. glyphs: the pictures of all nouns."""
    canvas = Canvas(draw_background(rng, *_size_wh_px(rng)))
    cast = _choose_cast(rng, sorted(glyphs))
    manner = _choose_manner(rng, len(cast))
    for number, (noun, colour) in enumerate(cast):
        glyph = tint(glyphs[noun], colour) if colour else glyphs[noun]
        drawing = _choose_drawing(rng, manner, glyph, min(canvas.size_wh_px))
        piece = _find_place(rng, canvas, manner, number, drawing)
        if piece:
            canvas.put(Placed(noun, colour, piece), has_shadow=manner.has_shadows)
    return canvas.finish()


def _size_wh_px(rng: np.random.Generator) -> tuple[int, int]:
    width, height = _SIZES_WH_PX[rng.integers(len(_SIZES_WH_PX))]
    width, height = (int(side * rng.uniform(0.85, 1)) // 2 * 2 for side in (width, height))
    return max(_LEAST_SIDE_PX, width), max(_LEAST_SIDE_PX, height)


def _choose_cast(rng: np.random.Generator, nouns: Sequence[str]) -> list[tuple[str, str | None]]:
    """Return the nouns of a scene, each with its colour if it is tinted."""
    names = _choose_nouns(rng, nouns)
    if rng.random() >= 0.16:
        return [(name, None) for name in names]
    # A scene about colours: its first things become one noun in colours that may repeat.
    same = min(len(names), 3)
    tinted = str(rng.choice(TINTABLE))
    names = [tinted] * same + [name for name in names[same:] if name == tinted or not clash(name, tinted)]
    colours = rng.choice(list(COLOURS), 3, replace=rng.random() < 0.3)
    return [(name, str(colours[i % 3]) if name == tinted else None) for i, name in enumerate(names)]


def _choose_nouns(rng: np.random.Generator, nouns: Sequence[str]) -> list[str]:
    """Return one to six nouns, equal ones together; often there are several of one, often some of one group."""
    total = int(rng.choice([1, 2, 3, 4, 5, 6], p=[0.06, 0.13, 0.21, 0.24, 0.2, 0.16]))
    groups = list(GROUPS.values())
    theme = sorted(groups[rng.integers(len(groups))].sure) if rng.random() < 0.45 else nouns
    chosen: list[str] = []
    while len(chosen) < total:
        noun = str(rng.choice(theme if rng.random() < 0.8 else nouns))
        left = total - len(chosen)
        if noun not in nouns or any(clash(noun, other) for other in chosen):
            theme = nouns if rng.random() < 0.2 else theme  # it may have nobody left who fits
            continue
        is_repeated = left > 1 and noun not in SINGLE and rng.random() < (0.2 if chosen else 0.7)
        chosen += [noun] * (min(left, int(rng.choice([2, 3, 4], p=[0.4, 0.4, 0.2]))) if is_repeated else 1)
    return chosen


def _choose_manner(rng: np.random.Generator, count: int) -> _Manner:
    return _Manner(
        sizes_vary=rng.random() < 0.6,
        layout=str(rng.choice(["free", "row", "column"], p=[0.62, 0.28, 0.1])),
        may_overlap=rng.random() < 0.35,
        has_shadows=rng.random() < 0.3,
        mean_size=float(np.clip(rng.uniform(0.3, 0.75) / count**0.45, 0.14, 0.55)),
        slots=[int(slot) for slot in rng.permutation(count)],
    )


def _choose_drawing(rng: np.random.Generator, manner: _Manner, glyph: Image.Image, short_side_px: int) -> Drawing:
    spread = rng.choice([0.55, 0.8, 1.15, 1.65]) if manner.sizes_vary else 1.0
    size_px = short_side_px * float(np.clip(manner.mean_size * spread * rng.uniform(0.93, 1.07), _LEAST_SIZE, 0.6))
    upright = glyph.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.3 else glyph
    return Drawing(upright, size_px, rng.uniform(-28, 28) if rng.random() < 0.35 else 0.0)


def _find_place(
    rng: np.random.Generator, canvas: Canvas, manner: _Manner, number: int, drawing: Drawing
) -> Piece | None:
    """Return the drawing where it may be put, or None if no such place is found. number: of the thing in the cast."""
    least_px = _LEAST_SIZE * min(canvas.size_wh_px)
    for attempt in range(_ATTEMPTS):
        if attempt % 12 == 11:  # perhaps it is too large
            drawing = replace(drawing, size_px=max(drawing.size_px * 0.9, least_px))
        if manner.layout == "free" or attempt > 40:  # perhaps the row or column has no room
            may_be_near = manner.may_overlap and attempt < 20
            centre_xy_px = _anywhere(rng, canvas, drawing.size_px, may_be_near=may_be_near)
        else:
            centre_xy_px = _in_line(rng, canvas.size_wh_px, manner, number)
        piece = place(drawing, centre_xy_px, canvas.size_wh_px)
        inside_px = piece.inside.sum()
        if piece.whole_px < _LEAST_AREA_PX or inside_px < _LEAST_INSIDE * piece.whole_px:
            continue
        if inside_px < piece.whole_px and rng.random() < 0.8:  # few are cut off by the edge
            continue
        if canvas.has_place(piece, may_overlap=manner.may_overlap):
            return piece
    return None


def _in_line(
    rng: np.random.Generator, size_wh_px: tuple[int, int], manner: _Manner, number: int
) -> tuple[float, float]:
    """Return a place in the row or column, (x, y); a row is a little below the middle."""
    width, height = size_wh_px
    along = (manner.slots[number] + 0.5 + rng.uniform(-0.15, 0.15)) / len(manner.slots)
    across = rng.normal(0.58, 0.07)
    return (along * width, across * height) if manner.layout == "row" else ((across - 0.08) * width, along * height)


def _anywhere(rng: np.random.Generator, canvas: Canvas, size_px: float, *, may_be_near: bool) -> tuple[float, float]:
    """Return any place, (x, y). may_be_near: often one so near another thing that the two overlap."""
    width, height = canvas.size_wh_px
    x_px, y_px = rng.uniform(0.04, 0.96) * width, rng.uniform(0.04, 0.96) * height
    if may_be_near and canvas.count and rng.random() < 0.7:
        x_px, y_px = canvas.centre_xy_px(int(rng.integers(canvas.count)))
        x_px, y_px = x_px + rng.normal(0, 0.8) * size_px, y_px + rng.normal(0, 0.5) * size_px
    return x_px, y_px
