import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssp_sam.evaluation.answers import Answer
from ssp_sam.evaluation.comparison import FIGURES, area_under_roc, compared, keeping, right, right_by_kind
from ssp_sam.evaluation.metrics import Overlap
from ssp_sam.postprocess import Calibration


def target(peak: float, *, iou: float = 0.9, kind: str = "noun") -> Answer:
    return Answer(kind, Overlap(1000, 1000, round(2000 * iou / (1 + iou))), 0.8, peak, (512, 512))


def absent(peak: float, *, predicted_px: int = 1000, kind: str = "absent-noun") -> Answer:
    return Answer(kind, Overlap(predicted_px, 0, 0), 0.8, peak, (512, 512))


@given(st.lists(st.integers(0, 20), min_size=1, max_size=60), st.floats(0, 1))
def test_as_much_is_recognised_as_keeping_the_targets_allows(peaks: list[int], share: float) -> None:
    answers = [target(peak / 20) for peak in peaks]
    threshold = keeping(answers, share).no_target_similarity
    lowest = float("-inf") if threshold is None else threshold
    assert np.mean([peak / 20 >= lowest for peak in peaks]) >= share - 1e-9
    higher = [peak / 20 for peak in peaks if peak / 20 > lowest]
    if higher and threshold is not None:  # the next threshold would leave too few
        assert len(higher) / len(peaks) < share


def test_masks_that_are_too_small_are_lost_already() -> None:
    tiny = Answer("noun", Overlap(10, 1000, 10), 0.8, 0.9, (512, 512))
    answers = [tiny, *(target(peak) for peak in (0.5, 0.6, 0.7))]
    assert keeping(answers, 0.5).no_target_similarity == 0.6
    assert keeping(answers, 0.75).no_target_similarity == 0.5
    assert keeping(answers, 0.8) == Calibration()


@pytest.mark.parametrize(("answers", "share", "said"), [([], 0.9, "has a target"), ([target(0.5)], 1.5, "0 to 1")])
def test_what_cannot_be_kept_is_told(answers: list[Answer], share: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        keeping(answers, share)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_the_area_is_that_of_all_pairs(positive: list[int], negative: list[int]) -> None:
    pairs = [(a > b) + (a == b) / 2 for a in positive for b in negative]
    assert area_under_roc(positive, negative) == pytest.approx(np.mean(pairs))
    assert np.isnan(area_under_roc(positive, []))


def test_figures_are_those_of_what_the_threshold_leaves() -> None:
    answers = [target(0.9), target(0.8, iou=0.6), target(0.2), absent(0.5), absent(0.1), absent(0.0, predicted_px=0)]
    figures = compared(answers, Calibration(no_target_similarity=0.3))
    assert set(FIGURES) <= figures.keys()
    assert figures["Pr@0.5"] == pytest.approx(2 / 3, abs=1e-4)
    assert figures["raw Pr@0.5"] == 1
    assert (figures["N-acc"], figures["T-acc"]) == pytest.approx((2 / 3, 2 / 3), abs=1e-4)
    assert figures["AUC"] == pytest.approx(8 / 9, abs=1e-4)
    assert compared([target(0.9)], Calibration())["AUC"] is None


def test_what_is_right_by_kind() -> None:
    answers = [target(0.9), target(0.9, iou=0.4), absent(0.9), absent(0.1), target(0.9, kind="all")]
    calibration = Calibration(no_target_similarity=0.3)
    assert right(answers, calibration).tolist() == [True, False, False, True, True]
    assert right_by_kind(answers, calibration) == {"samples": 5, "absent-noun": 0.5, "all": 1.0, "noun": 0.5}
