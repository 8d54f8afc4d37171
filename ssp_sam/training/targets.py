"""From truth masks at an image's own size to what the losses compare with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from ssp_sam.config import Preset
from ssp_sam.preprocess import Geometry, UInt8Array
from ssp_sam.results import BoolMask

CELLS, SQUARE, HALF_SQUARE = MASK_GRIDS = ("cells", "square", "half-square")
"""Where masks can be compared; see `PhaseConfig.compare_masks_on`."""

NOTHING, UNCLEAR = -1, -2
"""No thing: a patch that shows none, and one of which that cannot be said."""

SMALL_SHARE_MIN = 0.15
"""So much of a patch shows a thing well enough to tell what it is, if no patch shows more of it."""


class Targets(NamedTuple):
    """Truths of an image's P targets, as `Batch` has them."""

    truth_mask: UInt8Array
    truth_grid: npt.NDArray[np.float32]
    truth_box: npt.NDArray[np.float32]


def targets_of(masks: Sequence[BoolMask], geometry: Geometry, preset: Preset, *, masks_on: str) -> Targets:
    """Return the truths of masks, bool (H, W); masks_on: that of `MASK_GRIDS` on which masks are compared."""
    sam_side, clip_side = preset.sam.image_side_px, preset.clip.image_side_px
    if masks_on == HALF_SQUARE:
        truth_mask = np.stack([_half_square(mask, geometry.sam_hw, sam_side) for mask in masks])
    else:
        truth_mask = np.stack([_place(mask, geometry.sam_hw, (0, 0), sam_side) for mask in masks])
        if masks_on == CELLS:
            truth_mask = np.rint(cell_means(truth_mask, preset.sam.mask_side)).astype(np.uint8)
    boxes = np.stack([_box(mask, geometry, clip_side) for mask in masks])
    return Targets(truth_mask, patch_shares(masks, geometry, preset), boxes)


def patch_shares(masks: Sequence[BoolMask], geometry: Geometry, preset: Preset) -> npt.NDArray[np.float32]:
    """Return (P, N), how much of each patch of CLIP's padded square masks cover, as `Batch.truth_grid` has it."""
    clip_side = preset.clip.image_side_px
    on_clip = np.stack([_place(mask, geometry.clip_hw, geometry.clip_offset_tl, clip_side) for mask in masks])
    return _stretched(cell_means(on_clip, preset.clip.grid).reshape(len(masks), -1) / 255).astype(np.float32)


def things_shown(masks: Sequence[BoolMask], geometry: Geometry, preset: Preset) -> npt.NDArray[np.int64]:
    """Return (N,), which of things each patch of CLIP's padded square shows, by their masks, bool (H, W).

    A patch that no thing touches shows `NOTHING`; one that is touched, but not covered by half by any, is `UNCLEAR`,
    unless it is what shows most of a thing that covers no patch by half.
    """
    clip_side, cells = preset.clip.image_side_px, preset.clip.grid
    on_clip = np.stack([_place(mask, geometry.clip_hw, geometry.clip_offset_tl, clip_side) for mask in masks])
    covered = cell_means(on_clip, cells).reshape(len(masks), -1) / 255  # (things, N)
    most = covered.argmax(axis=0)
    shown = np.where(covered.max(axis=0) >= 0.5, most, UNCLEAR)
    for thing in np.flatnonzero(covered.max(axis=1) < 0.5):
        best = covered[thing].argmax()
        if most[best] == thing and covered[thing, best] >= SMALL_SHARE_MIN:
            shown[best] = thing
    return np.where(covered.sum(axis=0) < 0.02, NOTHING, shown)


def _stretched(covered: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return shares (P, N) of patches, of each target such that the most covered patch counts as covered altogether.

    Else nothing would ever be sure to be where a small thing is.
    """
    most = covered.max(axis=1, keepdims=True)
    return np.divide(covered, most, out=np.zeros_like(covered), where=most > 0)


def _half_square(mask: BoolMask, size_hw: tuple[int, int], side: int) -> UInt8Array:
    """Return 0 or 255 (side / 2, side / 2), the mask as the release places it: what is touched at all counts."""
    height, width = size_hw
    square = np.zeros((side, side), dtype=np.float32)
    resized = Image.fromarray(mask.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    square[:height, :width] = np.asarray(resized)
    return np.where(square[::2, ::2] > 0, 255, 0).astype(np.uint8)


def _place(mask: BoolMask, size_hw: tuple[int, int], offset_tl: tuple[int, int], side: int) -> UInt8Array:
    """Return uint8 (side, side), the mask where `preprocess.place_on_square` puts the image."""
    square = np.zeros((side, side), dtype=np.uint8)
    (height, width), (top, left) = size_hw, offset_tl
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    resized = grey.resize((width, height), Image.Resampling.BILINEAR)
    square[top : top + height, left : left + width] = np.asarray(resized)
    return square


def cell_means(squares: UInt8Array | BoolMask, cells: int) -> npt.NDArray[np.float64]:
    """Return (count, cells, cells), the mean of each cell of (count, side, side)."""
    count, side, _ = squares.shape
    step = side // cells
    # Rows first, whole ones: five times faster than both axes at once.
    rows = squares.reshape(count, cells, step, side).sum(axis=2, dtype=np.uint32)
    means: npt.NDArray[np.float64] = rows.reshape(count, cells, cells, step).sum(axis=3) / step**2
    return means


def _box(mask: BoolMask, geometry: Geometry, clip_side: int) -> npt.NDArray[np.float32]:
    """Return the box around a mask as centre and size on CLIP's padded square; zeros for an empty mask."""
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.zeros(4, dtype=np.float32)
    low = np.array([cols[0], rows[0]])
    high = np.array([cols[-1] + 1, rows[-1] + 1])
    ratio = np.divide(geometry.clip_hw, geometry.original_hw)[::-1]
    low, high = (end * ratio + geometry.clip_offset_tl[::-1] for end in (low, high))
    box: npt.NDArray[np.float32] = (np.concatenate([(low + high) / 2, high - low]) / clip_side).astype(np.float32)
    return box
