"""What a phrase means in a scene; what is a matter of opinion is left open."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from benchmarks.third_scenes.colours import clearly_other
from benchmarks.third_scenes.names import Name
from benchmarks.third_scenes.scene import Axis, Scene, Thing, X, Y

OPPOSITES = {"left": "right", "right": "left", "above": "below", "below": "above"}

_LEAST_SIZE_RATIO = 1.3  # of the largest to the next, or of the next to the smallest
_CORNER, _NEAR_CORNER = 0.36, 0.56  # shares of the picture's sides


def called(scene: Scene, name: Name) -> list[Thing]:
    """Return all things that a name is said of; none if it could be said of other things too."""
    if any(thing.noun in name.covers for thing in scene.things if thing.noun != name.noun):
        return []
    return [thing for thing in scene.things if thing.noun == name.noun]


def is_absent(scene: Scene, name: Name) -> bool:
    """Say whether there is nothing that a name could be taken to mean."""
    return not any(thing.noun in name.covers for thing in scene.things)


def first_along(scene: Scene, things: Sequence[Thing], axis: Axis) -> Thing | None:
    """Return the thing that is clearly the leftmost or topmost."""
    order = sorted(things, key=lambda thing: thing.centre_px(axis))
    is_clear = _is_before(scene, order[0], order[1], axis, _least_gap(things))
    return order[0] if is_clear and all(order[0].low_px(axis) < thing.low_px(axis) for thing in order[1:]) else None


def last_along(scene: Scene, things: Sequence[Thing], axis: Axis) -> Thing | None:
    """Return the thing that is clearly the rightmost or bottommost."""
    order = sorted(things, key=lambda thing: thing.centre_px(axis))
    is_clear = _is_before(scene, order[-2], order[-1], axis, _least_gap(things))
    return (
        order[-1] if is_clear and all(order[-1].high_px(axis) > thing.high_px(axis) for thing in order[:-1]) else None
    )


def is_split(scene: Scene, low: Thing, high: Thing, axis: Axis, *, is_low_meant: bool) -> bool:
    """Say whether of two neighbours the one that is meant is well in its half, and the other in the other half."""
    low_bound, high_bound = (0.42, 0.53) if is_low_meant else (0.47, 0.58)
    side_px = scene.side_px(axis)
    return low.centre_px(axis) < low_bound * side_px and high.centre_px(axis) > high_bound * side_px


def ranked(scene: Scene, things: Sequence[Thing], axis: Axis) -> list[Thing] | None:
    """Return the things from left to right or from top to bottom; None if two neighbours are hard to tell apart."""
    order = sorted(things, key=lambda thing: thing.centre_px(axis))
    is_clear = all(
        _is_before(scene, one, two, axis, 0.085)
        and one.low_px(axis) < two.low_px(axis)
        and one.high_px(axis) < two.high_px(axis)
        for one, two in pairwise(order)
    )
    return order if is_clear else None


def middle_of_three(order: Sequence[Thing], axis: Axis) -> Thing | None:
    """Return the middle one of three things that stand in a line. order: as `ranked` along the axis."""
    if len(order) != 3:
        return None
    across: Axis = Y if axis == X else X
    across_px = [thing.centre_px(across) for thing in order]
    is_line = order[2].centre_px(axis) - order[0].centre_px(axis) > 1.7 * (max(across_px) - min(across_px))
    return order[1] if is_line else None


def in_corner(scene: Scene, things: Sequence[Thing], row: str, column: str) -> Thing | None:
    """Return the only thing in a corner, when no other is even near it. row: "top" or "bottom"; column: a side."""

    ends: Sequence[tuple[Axis, bool]] = ((X, column == "left"), (Y, row == "top"))

    def is_within(thing: Thing, share: float) -> bool:
        for axis, is_low in ends:
            centre_px, side_px = thing.centre_px(axis), scene.side_px(axis)
            if not (centre_px < share * side_px if is_low else centre_px > (1 - share) * side_px):
                return False
        return True

    inside = [thing for thing in things if is_within(thing, _CORNER)]
    if len(inside) != 1 or any(is_within(thing, _NEAR_CORNER) for thing in things if thing is not inside[0]):
        return None
    return inside[0]


def smallest(things: Sequence[Thing]) -> Thing | None:
    """Return the thing that is smallest by far, both itself and in what is seen of it."""
    order = sorted(things, key=lambda thing: thing.size_px)
    is_seen_so = order[0].seen_px * _LEAST_SIZE_RATIO < min(thing.seen_px for thing in order[1:])
    return order[0] if order[1].size_px >= _LEAST_SIZE_RATIO * order[0].size_px and is_seen_so else None


def largest(things: Sequence[Thing]) -> Thing | None:
    """Return the thing that is largest by far, both itself and in what is seen of it."""
    order = sorted(things, key=lambda thing: thing.size_px)
    is_seen_so = order[-1].seen_px > _LEAST_SIZE_RATIO * max(thing.seen_px for thing in order[:-1])
    return order[-1] if order[-1].size_px >= _LEAST_SIZE_RATIO * order[-2].size_px and is_seen_so else None


def is_colour_clear(things: Sequence[Thing], colour: str) -> bool:
    """Say whether each of the things has clearly this colour or clearly another."""
    return all(
        thing.colour is not None and (thing.colour == colour or clearly_other(thing.colour, colour)) for thing in things
    )


def is_colour_absent(things: Sequence[Thing], colour: str) -> bool:
    """Say whether each of the things has clearly another colour."""
    return all(thing.colour is not None and clearly_other(thing.colour, colour) for thing in things)


def stands(scene: Scene, way: str, thing: Thing, anchor: Thing) -> bool:
    """Say whether a thing clearly stands to another in a way."""
    if way == "next":
        gap_x_px, gap_y_px = _gap_px(thing, anchor, X), _gap_px(thing, anchor, Y)
        apart_x_px, apart_y_px = (abs(thing.centre_px(axis) - anchor.centre_px(axis)) for axis in (X, Y))
        is_near = -0.08 * scene.short_side_px <= gap_x_px <= 0.06 * scene.short_side_px
        return is_near and apart_y_px <= 0.7 * apart_x_px and gap_y_px < 0
    if way in ("left", "above"):
        return _is_beside(scene, thing, anchor, _axis(way))
    return _is_beside(scene, anchor, thing, _axis(way))


def stands_not(scene: Scene, way: str, thing: Thing, anchor: Thing) -> bool:
    """Say whether a thing clearly does not stand to another in a way."""
    if way == "next":
        gap_x_px, gap_y_px = (max(0.0, _gap_px(thing, anchor, axis)) for axis in (X, Y))
        return math.sqrt(gap_x_px**2 + gap_y_px**2) >= 0.33 * scene.short_side_px
    axis, sign = _axis(way), 1 if way in ("left", "above") else -1
    ahead_px = sign * (anchor.centre_px(axis) - thing.centre_px(axis))
    whole_ahead_px = sign * (anchor.whole_centre_px(axis) - thing.whole_centre_px(axis))
    return ahead_px < -0.05 * scene.side_px(axis) and whole_ahead_px < -0.04 * scene.side_px(axis)


def only_standing(scene: Scene, way: str, things: Sequence[Thing], anchor: Thing) -> Thing | None:
    """Return the thing that stands so when it is the only one and the others clearly do not."""
    standing = [thing for thing in things if stands(scene, way, thing, anchor)]
    if len(standing) != 1:
        return None
    others = (thing for thing in things if thing is not standing[0])
    return standing[0] if all(stands_not(scene, way, thing, anchor) for thing in others) else None


def none_stands(scene: Scene, way: str, things: Sequence[Thing], anchor: Thing) -> bool:
    """Say whether all things clearly stand otherwise: on the other side, where there is one."""
    opposite = OPPOSITES.get(way)
    return all(
        stands_not(scene, way, thing, anchor) and (opposite is None or stands(scene, opposite, thing, anchor))
        for thing in things
    )


def told_by_colour(things: Sequence[Thing]) -> Iterator[tuple[Thing, str]]:
    """Yield the things that their colour tells from the others, with the colour."""
    for thing in things:
        if thing.colour and is_colour_absent([other for other in things if other is not thing], thing.colour):
            yield thing, thing.colour


def _axis(way: str) -> Axis:
    return X if way in ("left", "right") else Y


def _least_gap(things: Sequence[Thing]) -> float:
    """Return how far apart the first two of several things have to be, over the picture's side."""
    return 0.15 if len(things) == 2 else 0.1


def _is_before(scene: Scene, one: Thing, two: Thing, axis: Axis, gap: float) -> bool:
    """Say whether a thing is so far before another, both by what is seen and as a whole."""
    side_px = scene.side_px(axis)
    return one.centre_px(axis) + gap * side_px <= two.centre_px(axis) and one.whole_centre_px(
        axis
    ) + 0.6 * gap * side_px <= two.whole_centre_px(axis)


def _is_beside(scene: Scene, one: Thing, two: Thing, axis: Axis) -> bool:
    """Say whether a thing is clearly before another along an axis, and not far off it."""
    side_px = scene.side_px(axis)
    across: Axis = Y if axis == X else X
    ahead_px = two.centre_px(axis) - one.centre_px(axis)
    least_px = 0.1 * side_px
    overlap_px = one.high_px(axis) - two.low_px(axis)
    shorter_px = min(thing.high_px(axis) - thing.low_px(axis) for thing in (one, two))
    return (
        ahead_px >= least_px
        and one.high_px(axis) <= two.centre_px(axis)
        and one.centre_px(axis) <= two.low_px(axis) + 0.03 * side_px
        and abs(one.centre_px(across) - two.centre_px(across)) <= 0.55 * ahead_px
        and overlap_px <= 0.25 * shorter_px
        and two.whole_centre_px(axis) - one.whole_centre_px(axis) >= least_px
    )


def _gap_px(one: Thing, two: Thing, axis: Axis) -> float:
    """Return how far apart the boxes are along an axis, below 0 if they overlap."""
    return max(one.low_px(axis), two.low_px(axis)) - min(one.high_px(axis), two.high_px(axis))
