"""Scores as the authors' release works them out, for figures that compare with its tables.

It judges in SAM's padded square of 1024, halved: longest side 512 pixels, padding to the right and below. Other than
the field:

======  =====================================================================================================
gIoU    mean IoU over all samples; one without target scores 1 if less than 50 px are predicted, else 0
cIoU    sum of intersections over sum of unions; a wrong mask of 50 px or more where nothing is adds its area
Pr@t    share of all samples, those without target included, whose IoU is at least t
N-acc   samples with an IoU of exactly 1, targets among them, per sample without target: it may exceed 1
T-acc   samples with an IoU between 0 and 1, both excluded, per sample with a target: a perfect mask counts as missed
======  =====================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from PIL import Image

from ssp_sam.evaluation.metrics import PRECISION_THRESHOLDS, BoolMask, Metrics, Overlap
from ssp_sam.postprocess import RELEASE_SIDE_PX

SQUARE_PX = 2 * RELEASE_SIDE_PX
EMPTY_BELOW_PX = 50


def release_overlap(predicted: BoolMask, truth: BoolMask) -> Overlap:
    """Compare two bool masks (H, W) of one image in the release's square; raises ValueError if the shapes differ.

    The truth is placed exactly as the release places it. The prediction cannot be: the release cuts logits of 512 x 512
    at 0, and here is the mask that was cut at the image's own size. It is brought to 512 and cut at one half, so pixels
    along its edge may fall otherwise, and what the release predicts on the padding is not counted.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"a mask of shape {predicted.shape} cannot be compared with a truth of {truth.shape}")
    return Overlap.of(place_prediction(predicted), place_truth(truth))


def place_truth(mask: BoolMask) -> BoolMask:
    """Return bool (512, 512): a truth mask (H, W) as the release places it.

    Whatever has a share of the mask counts, so it grows by up to a pixel; then every second row and column is taken.
    """
    return _on_square(mask)[::2, ::2] > 0


def place_prediction(mask: BoolMask) -> BoolMask:
    """Return bool (512, 512): a predicted mask (H, W), each pixel where at least half of it is covered."""
    cells = _on_square(mask).reshape(RELEASE_SIDE_PX, 2, RELEASE_SIDE_PX, 2)
    covered: BoolMask = cells.mean(axis=(1, 3)) >= 0.5
    return covered


def summarize_as_release(overlaps: Iterable[Overlap], thresholds: Iterable[float] = PRECISION_THRESHOLDS) -> Metrics:
    """Work out the release's figures from overlaps in its square.

    It knows one mean and one ratio: mIoU is its gIoU here, and oIoU its cIoU.
    """
    table = np.array([(o.predicted_px, o.truth_px, o.shared_px) for o in overlaps], dtype=np.int64).reshape(-1, 3)
    predicted, truth, shared = table.T
    has_target = truth > 0
    passes_as_empty = ~has_target & (predicted < EMPTY_BELOW_PX)
    union = np.where(passes_as_empty, 0, predicted + truth - shared)
    iou = np.divide(shared, union, out=np.ones(len(table)), where=union > 0)
    targets, count = int(has_target.sum()), len(table)
    giou, ciou = _ratio(iou.sum(), count), _ratio(shared.sum(), union.sum())
    return Metrics(
        samples=count,
        targets=targets,
        giou=giou,
        ciou=ciou,
        miou=giou,
        oiou=ciou,
        precision={threshold: _ratio((iou >= threshold).sum(), count) for threshold in thresholds},
        n_acc=_ratio((iou == 1).sum(), count - targets),
        t_acc=_ratio(((iou > 0) & (iou < 1)).sum(), targets),
    )


def _on_square(mask: BoolMask) -> npt.NDArray[np.float32]:
    """Return float32 (1024, 1024), 0..1: the mask with its longest side scaled to 1024, in the top left corner."""
    scale = SQUARE_PX / max(mask.shape)
    height, width = (max(1, int(side * scale + 0.5)) for side in mask.shape)
    square = np.zeros((SQUARE_PX, SQUARE_PX), dtype=np.float32)
    # In floats, as torchvision 0.16, which the release names, resizes such a mask; 0.17 would cut it to 8 bits first.
    resized = Image.fromarray(mask.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    square[:height, :width] = np.asarray(resized)
    return square


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
