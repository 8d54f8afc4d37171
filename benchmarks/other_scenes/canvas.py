"""A picture in the making: what is seen of each thing when others come over it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from benchmarks.other_scenes.scene import Scene, Thing
from ssp_sam.results import BoolMask

_LEAST_CONTRAST = 38  # between a thing's mean colour and that of the background behind it, as a distance in RGB
_LEAST_SEEN = 0.65  # share of a thing that later ones must leave


@dataclass(frozen=True)
class Drawing:
    """A picture of a thing before it is drawn: upright, how long its longest side is to be, and how it is turned."""

    upright: Image.Image
    size_px: float
    turn_deg: float


@dataclass(frozen=True)
class Piece:
    """A drawing at its place.

    size_px: the drawing's. layer: RGBA, of the whole picture's size. inside: its opaque pixels. whole_px: how many they
    are with those beyond the edge.
    """

    size_px: float
    layer: Image.Image
    inside: BoolMask
    whole_px: int


@dataclass(frozen=True)
class Placed:
    """A thing that has its place."""

    noun: str
    colour: str | None
    piece: Piece


class Canvas:
    """A picture in the making, which knows whose each of its pixels is."""

    def __init__(self, background: Image.Image) -> None:
        self._picture = background
        self._bare = np.asarray(background).astype(float)
        self._owner: npt.NDArray[np.int_] = np.full((background.height, background.width), -1)
        self._placed: list[Placed] = []

    @property
    def size_wh_px(self) -> tuple[int, int]:
        """Of the picture."""
        return self._picture.size

    @property
    def count(self) -> int:
        """How many things there are."""
        return len(self._placed)

    def centre_xy_px(self, index: int) -> tuple[float, float]:
        """Return the mean of the pixels that are seen of a thing, (x, y)."""
        y_px, x_px = np.argwhere(self._owner == index).mean(0)
        return x_px, y_px

    def has_place(self, piece: Piece, *, may_overlap: bool) -> bool:
        """Say whether a piece may be put: what it covers can still be seen, and it stands out itself."""
        covered_px = [int((piece.inside & (self._owner == index)).sum()) for index in range(self.count)]
        if sum(covered_px) > 0 and not may_overlap:
            return False
        for index, (placed, lost_px) in enumerate(zip(self._placed, covered_px, strict=True)):
            if int((self._owner == index).sum()) - lost_px < _LEAST_SEEN * placed.piece.whole_px:
                return False
        colour = np.asarray(piece.layer)[piece.inside][:, :3].mean(0)
        return bool(np.linalg.norm(colour - self._bare[piece.inside].mean(0)) >= _LEAST_CONTRAST)

    def put(self, placed: Placed, *, has_shadow: bool) -> None:
        """Add a thing, over all that is there."""
        piece = placed.piece
        if has_shadow:
            shadow = Image.fromarray((np.roll(piece.inside, (3, 4), (0, 1)) * 110).astype(np.uint8))
            self._picture.paste((20, 20, 25), mask=shadow.filter(ImageFilter.GaussianBlur(4)))
        self._picture.paste(piece.layer, mask=piece.layer)
        self._owner[piece.inside] = self.count
        self._placed.append(placed)

    def finish(self) -> Scene:
        """Return what was made."""
        things = []
        for index, placed in enumerate(self._placed):
            mask = self._owner == index
            y_px, x_px = np.nonzero(mask)
            box_xyxy_px = float(x_px.min()), float(y_px.min()), float(x_px.max() + 1), float(y_px.max() + 1)
            things.append(Thing(placed.noun, placed.piece.size_px, placed.colour, mask, box_xyxy_px))
        return Scene(self._picture, things)


def place(drawing: Drawing, centre_xy_px: tuple[float, float], size_wh_px: tuple[int, int]) -> Piece:
    """Return a drawing with its middle at a place of a picture so large."""
    upright, scale = drawing.upright, drawing.size_px / max(drawing.upright.size)
    width, height = (max(1, round(side * scale)) for side in upright.size)
    image = upright.resize((width, height), Image.Resampling.LANCZOS)
    if drawing.turn_deg:
        image = image.rotate(drawing.turn_deg, Image.Resampling.BICUBIC, expand=True)
    left, top = (round(centre - side / 2) for centre, side in zip(centre_xy_px, image.size, strict=True))
    layer = Image.new("RGBA", size_wh_px)
    layer.paste(image, (left, top))
    whole_px = int(_is_opaque(image).sum())
    return Piece(drawing.size_px, layer, _is_opaque(layer), whole_px)


def _is_opaque(image: Image.Image) -> BoolMask:
    is_opaque: BoolMask = np.asarray(image)[..., 3] > 127
    return is_opaque
