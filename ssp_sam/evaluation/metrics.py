"""The metrics of referring segmentation, from intersections and areas of masks.

======  =====================================================================================================
mIoU    mean of intersection over union, over samples with a target
oIoU    sum of intersections over sum of unions, over samples with a target
Pr@t    share of samples with a target whose IoU is at least t
gIoU    mean IoU over all samples; one without target scores 1 if the prediction is empty, else 0
cIoU    sum of intersections over sum of unions, over all samples: a wrong mask where nothing is adds its area
N-acc   share of samples without target that are predicted empty
T-acc   share of samples with a target that are predicted not empty
======  =====================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BoolMask = npt.NDArray[np.bool_]

PRECISION_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Overlap:
    """Areas of one sample in pixels: of the predicted mask, of the truth, and of what they share."""

    predicted_px: int
    truth_px: int
    shared_px: int

    @classmethod
    def of(cls, predicted: BoolMask, truth: BoolMask) -> Overlap:
        """Compare two bool masks of the same shape; raise ValueError if the shapes differ."""
        if predicted.shape != truth.shape:
            raise ValueError(f"a mask of shape {predicted.shape} cannot be compared with a truth of {truth.shape}")
        predicted_px, truth_px, shared_px = map(np.count_nonzero, (predicted, truth, predicted & truth))
        return cls(int(predicted_px), int(truth_px), int(shared_px))

    @property
    def union_px(self) -> int:
        """Area that either of the two covers."""
        return self.predicted_px + self.truth_px - self.shared_px

    @property
    def iou(self) -> float:
        """Intersection over union; 1 where both are empty."""
        return self.shared_px / self.union_px if self.union_px else 1.0


@dataclass(frozen=True)
class Metrics:
    """Figures over a set of samples; NaN where there is no sample that a figure is about.

    precision: Pr@t by threshold t.
    """

    samples: int
    targets: int
    giou: float
    ciou: float
    miou: float
    oiou: float
    precision: dict[float, float]
    n_acc: float
    t_acc: float

    def to_json(self) -> dict[str, float | int | None]:
        """Return plain JSON values by name, None for NaN."""
        values: dict[str, float] = {"gIoU": self.giou, "cIoU": self.ciou, "mIoU": self.miou, "oIoU": self.oiou}
        values |= {f"Pr@{threshold}": value for threshold, value in self.precision.items()}
        values |= {"N-acc": self.n_acc, "T-acc": self.t_acc}
        figures = {name: None if np.isnan(value) else round(value, 4) for name, value in values.items()}
        return {"samples": self.samples, "targets": self.targets, **figures}


def summarize(
    overlaps: Iterable[Overlap], thresholds: Iterable[float] = PRECISION_THRESHOLDS, *, strict: bool = False
) -> Metrics:
    """Work out all metrics of a set of samples; `strict`: Pr@t asks for an IoU above t, as PhraseCut does."""
    table = np.array([(o.predicted_px, o.truth_px, o.shared_px) for o in overlaps], dtype=np.int64).reshape(-1, 3)
    predicted, truth, shared = table.T
    union = predicted + truth - shared
    iou = np.divide(shared, union, out=np.ones(len(table)), where=union > 0)
    has_target = truth > 0
    exceeds = np.greater if strict else np.greater_equal
    return Metrics(
        samples=len(table),
        targets=int(has_target.sum()),
        giou=_mean(iou),
        ciou=_ratio(shared.sum(), union.sum()),
        miou=_mean(iou[has_target]),
        oiou=_ratio(shared[has_target].sum(), union[has_target].sum()),
        precision={threshold: _mean(exceeds(iou[has_target], threshold)) for threshold in thresholds},
        n_acc=_mean(predicted[~has_target] == 0),
        t_acc=_mean(predicted[has_target] > 0),
    )


def _mean(values: npt.NDArray[np.float64] | npt.NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _ratio(part: np.int64, whole: np.int64) -> float:
    return float(part / whole) if whole else float("nan")
