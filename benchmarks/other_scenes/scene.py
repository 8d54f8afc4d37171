"""What a finished scene is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from ssp_sam.results import BoolMask

Axis = Literal["x", "y"]


@dataclass(frozen=True, eq=False)
class Thing:
    """A thing as it is in the finished scene.

    size_px: longest side of its upright drawing; colour: one of `COLOURS` if it was tinted; mask: what is seen of it,
    (H, W); box_xyxy_px: around that.
    """

    noun: str
    size_px: float
    colour: str | None
    mask: BoolMask
    box_xyxy_px: tuple[float, float, float, float]

    def centre_px(self, axis: Axis) -> float:
        """Return where the middle of the box is."""
        left, top, right, bottom = self.box_xyxy_px
        return (left + right) / 2 if axis == "x" else (top + bottom) / 2


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture, RGB, and what is in it."""

    picture: Image.Image
    things: Sequence[Thing]

    def side_px(self, axis: Axis) -> int:
        """Return the picture's width or height."""
        return self.picture.width if axis == "x" else self.picture.height

    @property
    def short_side_px(self) -> int:
        """The lesser of the two."""
        return min(self.picture.size)
