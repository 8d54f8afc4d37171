"""A thing in a scene, with what phrases need to know of it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey")


@dataclass(frozen=True)
class Thing:
    """One thing of a scene of H x W pixels.

    Attributes:
        noun: what it is, one line of `nouns.txt`.
        mask: (H, W) bool, the pixels where it is seen.
        box_xyxy_px: the smallest box around `mask`: left, top, right, bottom; right and bottom are exclusive.
        area_px: number of pixels of `mask`.
        full_area_px: what `area_px` would be if nothing hid the thing.
        colour_shares: share of the thing's surface in each of `COLOURS`; the rest has none of them.
        colour_shares_max: the same with what some might call so, though not everybody.
    """

    noun: str
    mask: npt.NDArray[np.bool_]
    box_xyxy_px: tuple[int, int, int, int]
    area_px: int
    full_area_px: int
    colour_shares: tuple[float, ...]
    colour_shares_max: tuple[float, ...]

    @property
    def centre_xy_px(self) -> tuple[float, float]:
        """The middle of the box."""
        left, top, right, bottom = self.box_xyxy_px
        return (left + right) / 2, (top + bottom) / 2


def box_of(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return the smallest box (left, top, right, bottom; the last two exclusive) around a mask that is not empty."""
    columns = np.flatnonzero(mask.any(axis=0))
    rows = np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
