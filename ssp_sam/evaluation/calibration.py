"""Fits how a checkpoint's raw answers become scores and "no target"."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ssp_sam.evaluation.answers import Answer
from ssp_sam.postprocess import Calibration

FloatArray = npt.NDArray[np.float64]
Knots = tuple[tuple[float, float], ...]

KNOTS_MAX = 16
ECE_BINS = 10
# What is tried for the thresholds below which an answer means "no target".
AREAS_PX512 = (50.0, 100.0, 150.0, 200.0, 300.0, 400.0, 600.0, 800.0, 1200.0)
SCORES = tuple(round(0.02 * step, 2) for step in range(31))
SIMILARITIES = 81
AS_GOOD_GIOU = 0.005
KEPT_TARGETS = 0.975

_SAME_ESTIMATE = 1e-4


class _Merit(NamedTuple):
    """Figures of a calibration, as in `ssp_sam.evaluation.metrics.Metrics`."""

    giou: float
    n_acc: float
    t_acc: float


def fit(answers: Sequence[Answer]) -> Calibration:
    """Return the calibration that suits these answers best: thresholds with a high gIoU, scores that mean IoU.

    Of the thresholds whose gIoU is at most `AS_GOOD_GIOU` below the highest (what is absent may cost as much), those
    that tell most of what is absent and leave `KEPT_TARGETS` of the targets; if none leaves so many, those that leave
    most. Scores are those of answers that pass the thresholds of area and similarity: of others nobody sees a mask.
    Raises ValueError if no answer has a mask.
    """
    knots = score_knots(*raw_and_true(answers))
    thresholds = list(product(AREAS_PX512, SCORES, (None, *_similarities_to_try(answers))))
    chosen = _chosen([Calibration(knots, *each) for each in thresholds], answers)
    without_score = replace(chosen, no_target_score=0.0)
    passing = [answer for answer in answers if not answer.is_no_target(without_score)]
    if not passing:  # of a model that is better off saying nothing
        return chosen
    knots = score_knots(*raw_and_true(passing))
    # All of them again: a threshold of the score means something else now, and what it took away similarity has to.
    return _chosen([Calibration(knots, *each) for each in thresholds], answers)


def _chosen(candidates: Sequence[Calibration], answers: Sequence[Answer]) -> Calibration:
    """Choose as `fit` says among calibrations with the same scores."""
    merit = _merit(answers, candidates[0].score_knots)
    merits = [merit(candidate) for candidate in candidates]
    highest = max(each.giou for each in merits)
    good = [pair for pair in zip(merits, candidates, strict=True) if pair[0].giou >= highest - AS_GOOD_GIOU]
    if mild := [pair for pair in good if pair[0].t_acc >= KEPT_TARGETS]:
        return max(mild, key=lambda pair: (pair[0].n_acc, pair[0].giou))[1]
    return max(good, key=lambda pair: (pair[0].t_acc, pair[0].giou))[1]


def _similarities_to_try(answers: Iterable[Answer]) -> list[float]:
    """Return thresholds below which up to two fifths of the answers lie that have a mask."""
    peaks = [answer.similarity_peak for answer in answers if answer.overlap.predicted_px]
    return sorted({round(float(value), 5) for value in np.quantile(peaks, np.linspace(0, 0.4, SIMILARITIES))})


def raw_and_true(answers: Iterable[Answer]) -> tuple[FloatArray, FloatArray]:
    """Return raw estimate and true IoU of the answers that have a mask; of an empty one there is nothing to score."""
    pairs = [(answer.raw_iou, answer.overlap.iou) for answer in answers if answer.overlap.predicted_px]
    table = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def score_knots(raw: FloatArray, true: FloatArray, knots_max: int = KNOTS_MAX) -> Knots:
    """Return at most `knots_max` pairs of raw estimate and score, the raw rising and the score never falling.

    Estimates are put in bins of equal count; neighbours out of order are pooled (isotonic regression on the bins).
    """
    if not len(raw):
        raise ValueError("there is no answer with a mask to fit scores to")
    order = np.argsort(raw, kind="stable")
    pools: list[tuple[float, float, int]] = []  # mean raw estimate, mean IoU, count
    for part in np.array_split(order, min(knots_max, len(order))):
        pool = (float(raw[part].mean()), float(true[part].mean()), len(part))
        while pools and (pools[-1][1] >= pool[1] or pools[-1][0] >= pool[0] - _SAME_ESTIMATE):
            pool = _pooled(pools.pop(), pool)
        pools.append(pool)
    return tuple((round(x, 5), round(y, 5)) for x, y, _ in pools)


def expected_calibration_error(score: FloatArray, true: FloatArray, bins: int = ECE_BINS) -> float:
    """Return the mean, over answers, of how far the mean score of an answer's bin is from the bin's mean true IoU.

    NaN where there is no answer.
    """
    if not len(score):
        return float("nan")
    clipped = score.clip(0, 1)
    index = np.minimum((clipped * bins).astype(int), bins - 1)
    gaps = [abs(clipped[index == b].sum() - true[index == b].sum()) for b in range(bins)]
    return float(sum(gaps) / len(score))


def _pooled(a: tuple[float, float, int], b: tuple[float, float, int]) -> tuple[float, float, int]:
    count = a[2] + b[2]
    return (a[0] * a[2] + b[0] * b[2]) / count, (a[1] * a[2] + b[1] * b[2]) / count, count


def _merit(answers: Sequence[Answer], knots: Knots) -> Callable[[Calibration], _Merit]:
    """Return what tells the merit of a calibration with these scores; an accuracy of no phrase is 1.

    The same as `summarize` of `Answer.judged`, but for thousands of calibrations a second.
    """
    area_px512, peak = (np.array([getattr(a, name) for a in answers]) for name in ("area_px512", "similarity_peak"))
    score = np.array([Calibration(knots).score(answer.raw_iou) for answer in answers])
    absent = np.array([answer.overlap.truth_px == 0 for answer in answers])
    iou = np.array([0.0 if answer.overlap.truth_px == 0 else answer.overlap.iou for answer in answers])

    def share(right: npt.NDArray[np.bool_]) -> float:
        return float(right.mean()) if len(right) else 1.0

    def merit(calibration: Calibration) -> _Merit:
        nothing = calibration.is_no_target(area_px512, score, peak)
        giou = float(np.where(nothing, absent, iou).mean())
        return _Merit(giou, n_acc=share(nothing[absent]), t_acc=share(~nothing[~absent]))

    return merit
