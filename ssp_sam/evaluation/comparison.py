"""Sets of weights side by side, by their answers to the same phrases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ssp_sam.evaluation.answers import Answer
from ssp_sam.evaluation.metrics import summarize
from ssp_sam.evaluation.summary import Figures
from ssp_sam.postprocess import Calibration

FIGURES = ("gIoU", "Pr@0.5", "Pr@0.8", "N-acc", "T-acc", "raw Pr@0.5", "AUC")
"""What `compared` gives. Raw: as if every answer had a target. AUC: that of the similarity as what tells whether there
is one, the chance that a phrase with a target has more of it than one without."""

RIGHT_IOU = 0.5


def keeping(answers: Sequence[Answer], share: float) -> Calibration:
    """Return the calibration with the highest threshold of similarity that leaves at least `share` of the targets.

    Masks too small for a `Calibration` by default are no answer; where more targets than 1 - share have such a mask,
    no threshold leaves enough, and there is none. Raises ValueError for a share outside 0..1, or without any target.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of targets to keep is {share:g}; allowed is 0 to 1")
    plain = Calibration()
    targets = [answer for answer in answers if answer.overlap.truth_px]
    if not targets:
        raise ValueError("none of the phrases has a target")
    found = sorted((each.similarity_peak for each in targets if not each.is_no_target(plain)), reverse=True)
    needed = int(np.ceil(share * len(targets) - 1e-9))
    if not 0 < needed <= len(found):
        return plain
    return Calibration(no_target_similarity=found[needed - 1])


def compared(answers: Sequence[Answer], calibration: Calibration) -> Figures:
    """Return `FIGURES` of one set of weights and the number of its answers, None for a figure of nothing."""
    judged = summarize(answer.judged(calibration) for answer in answers).to_json()
    raw = summarize(answer.overlap for answer in answers)
    area = area_under_roc(
        [answer.similarity_peak for answer in answers if answer.overlap.truth_px],
        [answer.similarity_peak for answer in answers if not answer.overlap.truth_px],
    )
    named = {"raw Pr@0.5": raw.precision[RIGHT_IOU], "AUC": area}
    return judged | {name: None if np.isnan(value) else round(value, 4) for name, value in named.items()}


def area_under_roc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Return the chance that a positive is above a negative, a tie counting half; NaN if either has none."""
    if not len(positive) or not len(negative):
        return float("nan")
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left") + np.searchsorted(ordered, positive, side="right")
    return float(below.mean() / 2 / len(ordered))


def right(answers: Sequence[Answer], calibration: Calibration) -> npt.NDArray[np.bool_]:
    """Say of each answer whether it finds what is there, by `RIGHT_IOU`, or says that there is nothing."""
    return np.array([answer.judged(calibration).iou >= RIGHT_IOU for answer in answers], dtype=np.bool_)


def right_by_kind(answers: Sequence[Answer], calibration: Calibration) -> Figures:
    """Return the share of right answers by kind of phrase, in the order of their names, and how many all are."""
    correct = right(answers, calibration)
    kind = np.array([answer.kind for answer in answers])
    return {"samples": len(answers)} | {str(each): float(correct[kind == each].mean()) for each in np.unique(kind)}
