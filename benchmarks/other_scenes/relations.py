"""How things of a scene stand to each other; what is a matter of opinion is left open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from benchmarks.other_scenes.scene import Axis, Scene, Thing


def ranked(scene: Scene, ids: Sequence[int], axis: Axis) -> list[int] | None:
    """Return the things from left to right or from top to bottom; None if two neighbours are hard to tell apart."""
    order = sorted(ids, key=lambda i: scene.things[i].centre_px(axis))
    for one, two in pairwise(scene.things[i] for i in order):
        size_px = (one.size_px + two.size_px) / 2
        if two.centre_px(axis) - one.centre_px(axis) < max(0.08 * scene.side_px(axis), 0.45 * size_px):
            return None
    return order


def middle_of_three(
    scene: Scene, ids: Sequence[int], by_x: Sequence[int] | None, by_y: Sequence[int] | None
) -> int | None:
    """Return the one of three things that anybody would call the middle one, if there is one.

    by_x, by_y: the things as `ranked` along the two axes.
    """
    middles = {order[1] for order in (by_x, by_y) if order}
    if len(ids) != 3 or len(middles) != 1:
        return None
    (middle,) = middles

    def spread_px(axis: Axis) -> float:
        centres_px = [scene.things[i].centre_px(axis) for i in ids]
        return max(centres_px) - min(centres_px)

    def from_centre_px(index: int) -> float:
        thing, (width, height) = scene.things[index], scene.picture.size
        return math.hypot(thing.centre_px("x") - width / 2, thing.centre_px("y") - height / 2)

    if min(ids, key=from_centre_px) != middle:
        return None
    if by_x and by_y:  # it is the middle one of both
        return middle
    is_line = 2 * spread_px("y") < spread_px("x") if by_x else 2 * spread_px("x") < spread_px("y")
    return middle if is_line else None


def stands(way: str, thing: Thing, anchor: Thing, short_side_px: int) -> bool | None:
    """Say whether a thing stands to another in one of `WAYS`; None if one could say either.

    short_side_px: of the picture, which says how near "beside" is.
    """
    gap_x_px, gap_y_px = _gap_px("x", thing, anchor), _gap_px("y", thing, anchor)
    right_px = thing.centre_px("x") - anchor.centre_px("x")
    below_px = thing.centre_px("y") - anchor.centre_px("y")
    if way == "beside":
        mean_size_px = (thing.size_px + anchor.size_px) / 2
        if -0.04 * short_side_px < gap_x_px < 0.09 * short_side_px and abs(below_px) < 0.3 * mean_size_px:
            return True
        return False if max(gap_x_px, gap_y_px) > 0.28 * short_side_px else None
    ahead_px, aside_px, gap_px = {
        "left": (-right_px, below_px, gap_x_px),
        "right": (right_px, below_px, gap_x_px),
        "above": (-below_px, right_px, gap_y_px),
        "below": (below_px, right_px, gap_y_px),
    }[way]
    if ahead_px > 0 and abs(aside_px) < 0.6 * ahead_px and gap_px > -0.1 * min(thing.size_px, anchor.size_px):
        return True
    return False if ahead_px < 0 and -ahead_px > 0.35 * abs(aside_px) else None


def _gap_px(axis: Axis, one: Thing, other: Thing) -> float:
    """Return how far apart the boxes are along an axis, below 0 if they overlap."""
    low, high = (0, 2) if axis == "x" else (1, 3)
    return max(other.box_xyxy_px[low] - one.box_xyxy_px[high], one.box_xyxy_px[low] - other.box_xyxy_px[high])
