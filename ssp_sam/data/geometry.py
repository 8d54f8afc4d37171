"""Where things are to one another, said only where people would agree on it: the margins say how clear it has to be."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ssp_sam.data.things import Thing

# Margins between what is meant and what is not; lengths are shares of the image's longer side.
POSITION_MARGIN = 0.08  # centres this far apart: one is left of (right of, above, below) the other
POSITION_OVERLAP = 0.25  # and this share of the larger one's width (or height) apart
PLACE_BAND = 0.15  # "dog on the left": its centre is left of the image's middle by this share of its width
SIZE_RATIO = 1.35  # of areas
NEAR_GAP = 0.06  # things that are closer are next to each other
FAR_GAP = 0.16  # boxes that are further apart are not
RELATION_SLOPE = 0.8  # "left of": it is further to the left than up or down by this factor
RELATION_OVERLAP = 0.3  # of what is smaller: things that overlap more lie on one another, not beside or above


def _lowest(values: Sequence[float], margin: float) -> int | None:
    """Index of the smallest value, if all others are larger by the margin."""
    order = np.argsort(values)
    return int(order[0]) if len(values) == 1 or values[order[1]] - values[order[0]] >= margin else None


# The axis along which a side is the low (+1) or the high (-1) end.
_SIDE_AXES = {"left": (0, 1), "right": (0, -1), "top": (1, 1), "bottom": (1, -1)}


def _margin_px(members: Sequence[Thing], axis: int, side_px: int) -> float:
    """How far apart centres have to be along an axis, for things so large."""
    extent_px = max(thing.box_xyxy_px[axis + 2] - thing.box_xyxy_px[axis] for thing in members)
    return max(POSITION_MARGIN * side_px, POSITION_OVERLAP * extent_px)


def _middle(members: Sequence[Thing], side_px: int) -> int | None:
    """Index of the middle one of three things in a row."""
    if len(members) != 3:
        return None
    centres = np.array([thing.centre_xy_px for thing in members])
    order = np.argsort(centres[:, 0])
    x, y = centres[order].T
    in_a_row = np.ptp(x) >= 1.5 * np.ptp(y) or min(y[0], y[2]) < y[1] < max(y[0], y[2])
    return int(order[1]) if in_a_row and np.diff(x).min() >= _margin_px(members, 0, side_px) else None


def furthest(direction: str, members: Sequence[Thing], side_px: int) -> int | None:
    """Index of the thing that is clearly furthest in the direction."""
    if direction == "middle":
        return _middle(members, side_px)
    found = set()
    for side in direction.split():
        axis, sign = _SIDE_AXES[side]
        margin_px = _margin_px(members, axis, side_px)
        found.add(_lowest([sign * thing.centre_xy_px[axis] for thing in members], margin_px))
    return found.pop() if len(found) == 1 else None


def counted_from(side: str, members: Sequence[Thing], side_px: int) -> list[int] | None:
    """Indexes of the things as they follow from a side; None where two of them are not clearly one after the other."""
    axis, sign = _SIDE_AXES[side]
    along = np.array([sign * thing.centre_xy_px[axis] for thing in members])
    order = np.argsort(along)
    return order.tolist() if np.diff(along[order]).min() >= _margin_px(members, axis, side_px) else None


def most(extreme: str, members: Sequence[Thing]) -> int | None:
    """Index of the thing that is clearly the largest or smallest, both in what is seen of it and as a whole."""
    sign = -1 if extreme == "largest" else 1
    seen, full = (
        _lowest([sign * float(np.log(area)) for area in areas], float(np.log(SIZE_RATIO)))
        for areas in ([thing.area_px for thing in members], [thing.full_area_px for thing in members])
    )
    return seen if seen == full else None


def is_placed(direction: str, thing: Thing, size_wh_px: tuple[int, int]) -> bool:
    """Whether the thing is in that part of an image of this size."""
    offsets = [value / length - 0.5 for value, length in zip(thing.centre_xy_px, size_wh_px, strict=True)]
    if direction == "middle":
        return max(map(abs, offsets)) <= PLACE_BAND
    return all(sign * offsets[axis] <= -PLACE_BAND for axis, sign in map(_SIDE_AXES.__getitem__, direction.split()))


def _gap_px(first: Thing, second: Thing) -> float:
    """Distance between two boxes; 0 where they overlap."""
    a, b = first.box_xyxy_px, second.box_xyxy_px
    across, down = (max(a[i] - b[i + 2], b[i] - a[i + 2], 0) for i in (0, 1))
    return float(np.hypot(across, down))


def _overlaps(first: Thing, second: Thing) -> npt.NDArray[np.float64]:
    """How much two boxes overlap across and down, as shares of the shorter extent each; 0 where they do not."""
    a, b = np.array([first.box_xyxy_px, second.box_xyxy_px], dtype=np.float64)
    overlaps = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    return np.asarray(overlaps.clip(0) / np.minimum(a[2:] - a[:2], b[2:] - b[:2]))


def _seen_gap_px(first: Thing, second: Thing) -> float:
    """Distance between what is seen of two things; about 0 where they touch."""
    a, b = (np.argwhere(_edge(thing.mask)).astype(np.float32) for thing in (first, second))
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return float(np.sqrt(max(squares.min(), 0)))


def _edge(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return those pixels of a mask (H, W) that have a neighbour outside of it, or beyond the image."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.logical_and(mask, ~inside)


def holds(relation: str, subject: Thing, other: Thing, side_px: int) -> bool | None:
    """Whether a thing is in that relation to another; None where one cannot be sure."""
    if relation == "next to":
        gap = _gap_px(subject, other) / side_px
        if gap > NEAR_GAP:
            return False if gap >= FAR_GAP else None
        # Boxes of long things that lie askew touch where the things themselves are far apart.
        is_near = _seen_gap_px(subject, other) <= NEAR_GAP * side_px
        return True if is_near and np.prod(_overlaps(subject, other)) <= RELATION_OVERLAP else None
    axis, sign = {"left of": (0, 1), "right of": (0, -1), "above": (1, 1), "below": (1, -1)}[relation]
    offset = np.subtract(other.centre_xy_px, subject.centre_xy_px) / side_px
    along, across = sign * offset[axis], abs(offset[1 - axis])
    if along >= POSITION_MARGIN and along >= RELATION_SLOPE * across:
        return True if _overlaps(subject, other)[axis] <= RELATION_OVERLAP else None
    return False if along <= 0 else None
