"""From the mask decoder's logits to masks and boxes of the image's own size, without torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ssp_sam.preprocess import Geometry
from ssp_sam.results import BoolMask

FloatArray = npt.NDArray[np.float32]

# The release judges masks in a padded square of this side.
RELEASE_SIDE_PX = 512
COLUMNS_PER_CHUNK = 32
_PIXELS_PER_BLOCK = 4096
_KEPT_AXIS_PX = 8192


@dataclass(frozen=True)
class Calibration:
    """How the decoder's raw answers become `score` and `no_target`; chosen on held-out data of a checkpoint.

    score_knots: (raw IoU estimate, score) pairs, neither of which falls; between them the score is interpolated.
    no_target_area_px512: a mask below this area, measured in a padded square of 512 x 512 pixels, means "no target";
        the release counts under 50 as empty.
    no_target_score: a score below this means "no target".
    no_target_similarity: a phrase less like every patch of the image than this (`similarity_peak` of `interpret`) means
        "no target"; None where that was not calibrated.
    """

    score_knots: tuple[tuple[float, float], ...] = ((0.0, 0.0), (1.0, 1.0))
    no_target_area_px512: float = 50.0
    no_target_score: float = 0.0
    no_target_similarity: float | None = None

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Calibration:
        """Read what `dataclasses.asdict` wrote, lists in place of tuples; older ones know no similarity."""
        knots = tuple((float(raw), float(score)) for raw, score in values["score_knots"])
        if not knots:
            raise ValueError("score_knots is empty; at least one pair is needed")
        if any(later[0] < earlier[0] or later[1] < earlier[1] for earlier, later in pairwise(knots)):
            raise ValueError(f"neither the estimates nor the scores in score_knots may fall; got {knots}")
        similarity = values.get("no_target_similarity")
        return cls(
            knots,
            float(values["no_target_area_px512"]),
            float(values["no_target_score"]),
            None if similarity is None else float(similarity),
        )

    def score(self, iou: float) -> float:
        """Return the score for a raw IoU estimate, one of the numbers that float32 has: so it is served."""
        raw, scores = zip(*self.score_knots, strict=True)
        return float(np.float32(np.interp(iou, raw, scores)))

    def is_no_target(
        self, area_px512: npt.ArrayLike, score: npt.ArrayLike, similarity_peak: npt.ArrayLike
    ) -> npt.NDArray[np.bool_]:
        """Say of answers, by what is known of each, whether nothing was found; area_px512: see `area_px512`."""
        area_px512, score, similarity_peak = (np.asarray(values) for values in (area_px512, score, similarity_peak))
        nothing: npt.NDArray[np.bool_] = (area_px512 == 0) | (area_px512 < self.no_target_area_px512)
        nothing |= score < self.no_target_score
        if self.no_target_similarity is not None:
            nothing |= similarity_peak < self.no_target_similarity
        return nothing


def area_px512(area_px: int, original_hw: tuple[int, int]) -> float:
    """Return the area, in a padded square of 512 x 512 pixels, of so many pixels of an image of this size."""
    return area_px * (RELEASE_SIDE_PX / max(original_hw)) ** 2


@dataclass(frozen=True)
class Found:
    """The answer for one phrase: mask bool (H, W), box in pixels (4,), score 0..1, and whether nothing was found."""

    mask: BoolMask
    box_xyxy_px: FloatArray
    score: float
    no_target: bool
    area_px: int


def interpret(
    mask_logits: FloatArray,
    box_cxcywh_norm: FloatArray,
    iou: FloatArray,
    similarity_peak: FloatArray,
    geometry: Geometry,
    *,
    sam_side_px: int,
    clip_side_px: int,
    calibration: Calibration,
    mask_threshold: float,
) -> Iterator[Found]:
    """Yield the answer for each of P phrases, one at a time so that only one full-size mask is alive here.

    mask_logits: (P, 4G, 4G); box_cxcywh_norm: (P, 4); iou: (P,); similarity_peak: (P,), how like the phrase the SSP
    encoder finds the patch that is most like it. The decoder never learns that: it works with similarities that were
    stretched to 0..1, whatever they were. A pixel belongs to a mask if its logit is above `mask_threshold`. Where
    nothing is found mask and box are emptied, so that no answer contradicts itself.
    """
    boxes = box_xyxy_px(box_cxcywh_norm, geometry, clip_side_px)
    for logits, box_px, raw_iou, peak in zip(mask_logits, boxes, iou, similarity_peak, strict=True):
        mask = full_size_mask(logits, geometry, sam_side_px, mask_threshold)
        area_px = int(np.count_nonzero(mask))
        score = calibration.score(float(raw_iou))
        no_target = bool(calibration.is_no_target(area_px512(area_px, geometry.original_hw), score, peak))
        if no_target:
            yield Found(np.zeros_like(mask), np.zeros_like(box_px), score, True, 0)
        else:
            yield Found(mask, box_px, score, False, area_px)


def box_xyxy_px(box_cxcywh_norm: FloatArray, geometry: Geometry, clip_side_px: int) -> FloatArray:
    """Return boxes (P, 4) as x0, y0, x1, y1 in pixels of the image, clamped to it.

    box_cxcywh_norm: (P, 4), centre and size in 0..1 of CLIP's padded square, whose side is `clip_side_px`.
    """
    centre, size = box_cxcywh_norm[:, :2] * clip_side_px, box_cxcywh_norm[:, 2:] * clip_side_px
    (height, width), (clip_height, clip_width) = geometry.original_hw, geometry.clip_hw
    top, left = geometry.clip_offset_tl
    corners = np.concatenate([centre - size / 2, centre + size / 2], axis=1) - np.tile([left, top], 2)
    corners = corners * np.tile([width / clip_width, height / clip_height], 2)
    boxes: FloatArray = corners.clip(0, np.tile([width, height], 2)).astype(np.float32)
    return boxes


def full_size_logits(logits: FloatArray, geometry: Geometry, sam_side_px: int) -> FloatArray:
    """Return logits (H, W) at the image's own size of logits (4G, 4G) over SAM's padded square.

    The same numbers as SAM's `postprocess_masks`: to S x S, without the padding, to H x W, bilinear both times.
    """
    rows, cols = _axes(logits.shape[0], geometry, sam_side_px)
    full: FloatArray = rows.weights @ logits @ cols.weights.T
    return full


def full_size_mask(logits: FloatArray, geometry: Geometry, sam_side_px: int, threshold: float) -> BoolMask:
    """Return `full_size_logits(...) > threshold`, without ever holding logits of the whole image.

    Its columns lie one behind the other, as run-length encoding wants them.
    """
    rows, cols = _axes(logits.shape[0], geometry, sam_side_px)
    mask = np.zeros(geometry.original_hw, dtype=np.bool_, order="F")
    # Every pixel is a weighted mean of logits, so only those with a share in some logit above the threshold can be
    # True.
    above = logits > threshold
    row_range = rows.reached_by(above.any(axis=1))
    col_range = cols.reached_by(above.any(axis=0))
    if not mask[row_range, col_range].size:
        return mask
    near_cols, near_rows = cols.needed_by(col_range), rows.needed_by(row_range)  # other weights are zero
    half = rows.weights[row_range, near_rows] @ logits[near_rows, near_cols]
    for start in range(col_range.start, col_range.stop, COLUMNS_PER_CHUNK):
        chunk = slice(start, min(start + COLUMNS_PER_CHUNK, col_range.stop))
        near = cols.needed_by(chunk)
        of_half = half[:, near.start - near_cols.start : near.stop - near_cols.start]
        np.greater(cols.weights[chunk, near] @ of_half.T, threshold, out=mask.T[chunk, row_range])
    return mask


@dataclass(frozen=True)
class _Axis:
    """What each logit along an axis counts for each pixel of the image along it.

    weights: (length, 4G); first, last: (length,), the logits between which those lie that count for a pixel.
    """

    weights: FloatArray
    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]

    def reached_by(self, logits: npt.NDArray[np.bool_]) -> slice:
        """Return the range of pixels for which any of the marked logits (4G,) counts."""
        marked = np.flatnonzero(logits)
        if not len(marked):
            return slice(0, 0)
        # Both rise along the axis.
        return slice(int(self.last.searchsorted(marked[0])), int(self.first.searchsorted(marked[-1], "right")))

    def needed_by(self, pixels: slice) -> slice:
        """Return the range of logits that count for a range of pixels."""
        return slice(int(self.first[pixels.start]), int(self.last[pixels.stop - 1]) + 1)


def _axes(mask_side: int, geometry: Geometry, sam_side_px: int) -> tuple[_Axis, _Axis]:
    rows, cols = (
        # Longer ones take megabytes, and are rare.
        (_kept_axis if length <= _KEPT_AXIS_PX else _axis)(mask_side, sam_side_px, sam_length, length)
        for sam_length, length in zip(geometry.sam_hw, geometry.original_hw, strict=True)
    )
    return rows, cols


def _axis(mask_side: int, sam_side_px: int, sam_length: int, length: int) -> _Axis:
    """Return the axis along which an image of `length` pixels has `sam_length` on SAM's square.

    Bilinear interpolation is linear and separable, so the two resizes and the crop between them are one matrix per
    axis.
    """
    to_square = _interpolated(np.eye(mask_side), np.arange(sam_length), sam_side_px)
    weights = np.empty((length, mask_side), dtype=np.float32)
    for start in range(0, length, _PIXELS_PER_BLOCK):
        pixels = np.arange(start, min(start + _PIXELS_PER_BLOCK, length))
        weights[pixels] = _interpolated(to_square, pixels, length)
    counts = weights > 0
    return _Axis(weights, counts.argmax(axis=1), mask_side - 1 - counts[:, ::-1].argmax(axis=1))


_kept_axis = lru_cache(maxsize=16)(_axis)


def _interpolated(rows: npt.NDArray[np.float64], wanted: npt.NDArray[np.int64], target: int) -> npt.NDArray[np.float64]:
    """Return the `wanted` ones of `target` rows that bilinear interpolation makes of rows (source, K).

    With half-pixel centres, as torch does it.
    """
    source = len(rows)
    position = np.maximum((wanted + 0.5) * (source / target) - 0.5, 0)
    low = np.minimum(position.astype(np.int64), source - 1)
    high = np.minimum(low + 1, source - 1)
    share = (position - low)[:, None]
    interpolated: npt.NDArray[np.float64] = rows[low] * (1 - share) + rows[high] * share
    return interpolated
