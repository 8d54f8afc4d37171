"""A picture on which things are put one over the other."""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from ssp_sam.data.rendering import Sprite
from ssp_sam.data.things import Thing, box_of


class Canvas:
    """A background with things on it, that knows which thing is seen at each pixel.

    Args:
        background: (H, W, 3) uint8 RGB.
    """

    def __init__(self, background: npt.NDArray[np.uint8]) -> None:
        self._picture = Image.fromarray(background)
        self._topmost = np.full(background.shape[:2], -1, dtype=np.int8)  # (H, W) index of the thing that is seen
        self._nouns: list[str] = []
        self._sprites: list[Sprite] = []
        self._full_areas_px: list[int] = []
        self._seen_areas_px: list[int] = []

    def put(
        self,
        noun: str,
        sprite: Sprite,
        centre_xy_px: tuple[float, float],
        *,
        hidden_share_max: float = 0.6,
        shadow_xy_px: tuple[int, int] | None = None,
    ) -> bool:
        """Draw a thing over what is there, unless too much of it or of another would then be hidden.

        Args:
            noun: what it is.
            sprite: its looks.
            centre_xy_px: where its middle goes.
            hidden_share_max: how much of any thing may be hidden by others or by the edge.
            shadow_xy_px: how far its shadow falls from it, if it has one; a shadow is no part of a thing.

        Returns:
            Whether it was drawn.
        """
        width, height = sprite.picture.size
        left, top = round(centre_xy_px[0] - width / 2), round(centre_xy_px[1] - height / 2)
        region = self._topmost[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
        solid = sprite.solid[max(-top, 0) :, max(-left, 0) :][: region.shape[0], : region.shape[1]]
        full_area, seen_area = int(sprite.solid.sum()), int(solid.sum())
        covered = np.bincount(region[solid] + 1, minlength=len(self._nouns) + 1)[1:]
        seen_after = [*np.subtract(self._seen_areas_px, covered).tolist(), seen_area]
        full_areas = [*self._full_areas_px, full_area]
        changed = [*covered.tolist(), full_area]
        if any(
            change and seen <= (1 - hidden_share_max) * full
            for change, seen, full in zip(changed, seen_after, full_areas, strict=True)
        ):
            return False
        if shadow_xy_px is not None:
            self._darken(sprite, left + shadow_xy_px[0], top + shadow_xy_px[1])
        self._picture.paste(sprite.picture, (left, top), sprite.picture)
        region[solid] = len(self._nouns)
        self._nouns.append(noun)
        self._sprites.append(sprite)
        self._full_areas_px, self._seen_areas_px = full_areas, [int(area) for area in seen_after]
        return True

    def _darken(self, sprite: Sprite, left: int, top: int) -> None:
        soft_px = 2 + max(sprite.picture.size) // 40
        shade = Image.new("L", (sprite.picture.width + 4 * soft_px, sprite.picture.height + 4 * soft_px))
        shade.paste(sprite.picture.getchannel("A").point(lambda value: value * 0.45), (2 * soft_px, 2 * soft_px))
        shade = shade.filter(ImageFilter.BoxBlur(soft_px))
        self._picture.paste((16, 16, 20), (left - 2 * soft_px, top - 2 * soft_px), shade)

    def image(self) -> npt.NDArray[np.uint8]:
        """Return the picture: (H, W, 3) uint8 RGB."""
        return np.array(self._picture)

    def things(self) -> tuple[Thing, ...]:
        """Return what was put, in that order, with what can be seen of it."""
        result = []
        for index, (noun, sprite) in enumerate(zip(self._nouns, self._sprites, strict=True)):
            mask = self._topmost == index
            full_area, seen_area = self._full_areas_px[index], self._seen_areas_px[index]
            shares = sprite.colour_shares, sprite.colour_shares_max
            result.append(Thing(noun, mask, box_of(mask), seen_area, full_area, *shares))
        return tuple(result)
