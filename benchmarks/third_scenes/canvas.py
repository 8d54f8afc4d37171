"""Things at their places: what is seen of each when others come over it, and the picture of all."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from benchmarks.third_scenes.backgrounds import Values
from benchmarks.third_scenes.paint import is_opaque
from benchmarks.third_scenes.scene import Thing
from ssp_sam.results import BoolMask

_LEAST_SEEN = 0.6  # share of a thing
_LEAST_SEEN_PX = 80
_LEAST_CONTRAST = 38  # of a thing to what is behind it: the mean over its pixels and the channels
_LEAST_CHANNEL_CONTRAST = 22  # between the medians of the channel that differs most
_SHADOW_XY_PX = (3, 4)


@dataclass(frozen=True, eq=False)
class Piece:
    """A thing at its place. image: of it alone, RGBA; box_xyxy_px: where that goes; whole_px: its opaque pixels."""

    noun: str
    colour: str | None
    image: Image.Image
    box_xyxy_px: tuple[int, int, int, int]
    whole_px: int


@dataclass(frozen=True, eq=False)
class Layer:
    """A thing in the picture. image: RGBA of the whole picture's size; mask: what is seen of it, (H, W)."""

    piece: Piece
    image: Image.Image
    mask: BoolMask

    def thing(self) -> Thing:
        """Return it without its picture."""
        y_px, x_px = np.nonzero(self.mask)
        box_xyxy_px = float(x_px.min()), float(y_px.min()), float(x_px.max() + 1), float(y_px.max() + 1)
        piece = self.piece
        return Thing(piece.noun, piece.colour, self.mask, box_xyxy_px, piece.box_xyxy_px, piece.whole_px)


def layers_in_sight(pieces: Sequence[Piece], size_wh_px: tuple[int, int]) -> list[Layer]:
    """Return the things, each over those before it, without those that are mostly hidden."""
    left = [(piece, _layer_image(piece, size_wh_px)) for piece in pieces]
    while left:
        layers = _cover(left)
        worst = min(range(len(layers)), key=lambda i: _share_seen(layers[i]))
        if _share_seen(layers[worst]) >= _LEAST_SEEN:
            return layers
        del left[worst]
    return []


def is_distinct(layer: Layer, background: Values) -> bool:
    """Say whether a thing stands out from what is behind it. background: (H, W, 3)."""
    own = np.asarray(layer.image).astype(float)[..., :3][layer.mask]
    behind = background[layer.mask]
    contrast = np.abs(own - behind).mean(1).mean()
    channel_contrast = np.abs(np.median(own, 0) - np.median(behind, 0)).max()
    return bool(contrast >= _LEAST_CONTRAST and channel_contrast >= _LEAST_CHANNEL_CONTRAST)


def compose(rng: random.Random, background: Values, layers: Sequence[Layer], *, has_shadows: bool) -> Image.Image:
    """Return the picture of all things, seldom a little blurred, sometimes darker or lighter."""
    picture = Image.fromarray(background.astype(np.uint8)).convert("RGB")
    for layer in layers:
        opacity = layer.image.getchannel("A")
        if has_shadows:
            shadow = opacity.point(lambda value: value * 90 // 255).filter(ImageFilter.GaussianBlur(3))
            shifted = Image.new("L", picture.size)
            shifted.paste(shadow, _SHADOW_XY_PX)
            picture.paste((0, 0, 0), (0, 0), shifted)
        picture.paste(layer.image.convert("RGB"), (0, 0), opacity)
    if rng.random() < 0.15:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.7)))
    if rng.random() < 0.3:
        picture = ImageEnhance.Brightness(picture).enhance(rng.uniform(0.82, 1.12))
    return picture


def _layer_image(piece: Piece, size_wh_px: tuple[int, int]) -> Image.Image:
    image = Image.new("RGBA", size_wh_px)
    image.paste(piece.image, piece.box_xyxy_px[:2])
    return image


def _cover(images: Sequence[tuple[Piece, Image.Image]]) -> list[Layer]:
    layers = []
    width, height = images[0][1].size
    covered: BoolMask = np.zeros((height, width), bool)
    for piece, image in reversed(images):
        inside = is_opaque(image)
        layers.append(Layer(piece, image, inside & ~covered))
        covered = covered | inside
    return layers[::-1]


def _share_seen(layer: Layer) -> float:
    """Return how much is seen of a thing, below 0 if it is just too small."""
    seen_px = int(layer.mask.sum())
    return seen_px / layer.piece.whole_px if seen_px >= _LEAST_SEEN_PX else -1.0
