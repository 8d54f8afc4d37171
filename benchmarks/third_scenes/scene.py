"""What a finished scene is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from PIL import Image

from ssp_sam.results import BoolMask

Axis = Literal[0, 1]
X: Final = 0
Y: Final = 1
BoxPx = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Thing:
    """A thing as it is in the finished scene.

    colour: None if one could argue about it. mask: what is seen of it, (H, W); box_xyxy_px: around that.
    whole_box_xyxy_px: around all of it, what is hidden or beyond the edge too; whole_px: how many pixels that is.
    """

    noun: str
    colour: str | None
    mask: BoolMask
    box_xyxy_px: BoxPx
    whole_box_xyxy_px: BoxPx
    whole_px: int

    def low_px(self, axis: Axis) -> float:
        """Return the left or upper edge of what is seen."""
        return self.box_xyxy_px[axis]

    def high_px(self, axis: Axis) -> float:
        """Return the right or lower edge of what is seen."""
        return self.box_xyxy_px[axis + 2]

    def centre_px(self, axis: Axis) -> float:
        """Return the middle of what is seen."""
        return (self.box_xyxy_px[axis] + self.box_xyxy_px[axis + 2]) / 2

    def whole_centre_px(self, axis: Axis) -> float:
        """Return the middle of all of it."""
        return (self.whole_box_xyxy_px[axis] + self.whole_box_xyxy_px[axis + 2]) / 2

    @property
    def size_px(self) -> float:
        """The side of a square as large as all of it."""
        return float(self.whole_px**0.5)

    @property
    def seen_px(self) -> int:
        """How many pixels are seen."""
        return int(self.mask.sum())


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture, RGB, and what is in it, the rearmost first."""

    picture: Image.Image
    things: Sequence[Thing]

    def side_px(self, axis: Axis) -> int:
        """Return the picture's width or height."""
        return self.picture.size[axis]

    @property
    def short_side_px(self) -> int:
        """The lesser of the two."""
        return min(self.picture.size)
