"""Fits how a checkpoint's raw answers become scores and "no target"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
SIMILARITIES = 401  # thresholds, so that one takes a thousandth of the answers more than the next one below
AS_GOOD_GIOU = 0.005
KEPT_TARGETS = 0.975

_SAME_ESTIMATE = 1e-4
_DECIMALS = 12  # of a mean: beyond them, the order of summing decides


class _Merits(NamedTuple):
    """Figures as in `ssp_sam.evaluation.metrics.Metrics` by thresholds: (areas, scores, similarities) each."""

    giou: FloatArray
    n_acc: FloatArray
    t_acc: FloatArray


def fit(answers: Sequence[Answer]) -> Calibration:
    """Return the calibration that suits these answers best: thresholds with a high gIoU, scores that mean IoU.

    Of the thresholds whose gIoU is at most `AS_GOOD_GIOU` below the highest (what is absent may cost as much), those
    that tell most of what is absent and leave `KEPT_TARGETS` of the targets; if none leaves so many, those that leave
    most. Scores are those of answers that pass the thresholds of area and similarity: of others nobody sees a mask.
    Raises ValueError if no answer has a mask.
    """
    chosen = _chosen(score_knots(*raw_and_true(answers)), answers)
    without_score = replace(chosen, no_target_score=0.0)
    passing = [answer for answer in answers if not answer.is_no_target(without_score)]
    if not passing:  # of a model that is better off saying nothing
        return chosen
    # All of them again: a threshold of the score means something else now, and what it took away similarity has to.
    return _chosen(score_knots(*raw_and_true(passing)), answers)


def _chosen(knots: Knots, answers: Sequence[Answer]) -> Calibration:
    """Choose thresholds as `fit` says beside these scores; of equal ones the lowest."""
    similarities = (None, *_similarities_to_try(answers))
    merits = _merits(answers, knots, similarities)
    allowed = merits.giou >= merits.giou.max() - AS_GOOD_GIOU
    mild = allowed & (merits.t_acc >= KEPT_TARGETS)
    allowed, most = (mild, merits.n_acc) if mild.any() else (allowed, merits.t_acc)
    allowed &= most == most[allowed].max()
    best = np.argmax(np.where(allowed, merits.giou.round(_DECIMALS), -np.inf))
    area, score, similarity = np.unravel_index(best, merits.giou.shape)
    return Calibration(knots, AREAS_PX512[area], SCORES[score], similarities[similarity])


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


def _merits(answers: Sequence[Answer], knots: Knots, similarities: Sequence[float | None]) -> _Merits:
    """Return the merits of every threshold of area and score with each of these; an accuracy of no phrase is 1.

    The same as `summarize` of `Answer.judged`, but for a hundred thousand calibrations a second: answers in the order
    of their similarity are summed once, and each threshold leaves those from some place on.
    """
    answers = sorted(answers, key=lambda answer: answer.similarity_peak)
    peak = np.array([answer.similarity_peak for answer in answers])
    area_px512 = np.array([answer.area_px512 for answer in answers])
    score = np.array([Calibration(knots).score(answer.raw_iou) for answer in answers])
    absent = np.array([answer.overlap.truth_px == 0 for answer in answers])
    iou = np.array([0.0 if answer.overlap.truth_px == 0 else answer.overlap.iou for answer in answers])
    left_from = np.searchsorted(peak, [-np.inf if each is None else each for each in similarities], side="left")

    def left(values: FloatArray) -> FloatArray:
        """Return the sum of the answers' values from each threshold of similarity on."""
        return np.append(np.cumsum(values[::-1])[::-1], 0.0)[left_from]

    absent_count, target_count = int(absent.sum()), int((~absent).sum())
    merits = []
    for area, least in product(AREAS_PX512, SCORES):
        given = ~Calibration(knots, area, least).is_no_target(area_px512, score, peak)
        told = absent_count - left((given & absent).astype(np.float64))
        kept = left((given & ~absent).astype(np.float64))
        giou = (told + left(np.where(given, iou, 0.0))) / len(answers)
        ones = np.ones(len(similarities))
        merits.append(
            (giou, told / absent_count if absent_count else ones, kept / target_count if target_count else ones)
        )
    shape = len(AREAS_PX512), len(SCORES), len(similarities)
    return _Merits(*(np.array(figure).reshape(shape) for figure in zip(*merits, strict=True)))
