import math

import numpy as np
import pytest

from ssp_sam.evaluation.metrics import Overlap, summarize


def test_hand_computed_figures() -> None:
    metrics = summarize(
        [
            Overlap(predicted_px=10, truth_px=10, shared_px=10),  # IoU 1
            Overlap(predicted_px=6, truth_px=8, shared_px=4),  # IoU 4 / 10
            Overlap(predicted_px=0, truth_px=5, shared_px=0),  # a target that was missed
            Overlap(predicted_px=0, truth_px=0, shared_px=0),  # rightly nothing
            Overlap(predicted_px=7, truth_px=0, shared_px=0),  # something where nothing is
        ],
        thresholds=(0.4, 0.5),
    )
    assert (metrics.samples, metrics.targets) == (5, 3)
    assert metrics.giou == pytest.approx((1 + 0.4 + 0 + 1 + 0) / 5)
    assert metrics.miou == pytest.approx((1 + 0.4 + 0) / 3)
    assert metrics.oiou == pytest.approx(14 / 25)
    assert metrics.ciou == pytest.approx(14 / 32)
    assert metrics.precision == {0.4: pytest.approx(2 / 3), 0.5: pytest.approx(1 / 3)}
    assert metrics.n_acc == pytest.approx(1 / 2)
    assert metrics.t_acc == pytest.approx(2 / 3)


def test_agrees_with_a_slow_version_on_masks() -> None:
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(60):
        masks = rng.random((2, 6, 7)) < rng.choice([0.0, 0.3, 0.8], size=(2, 1, 1))
        pairs.append((masks[0], masks[1]))
    metrics = summarize(Overlap.of(predicted, truth) for predicted, truth in pairs)

    ious, target_ious, shared_sum, union_sum = [], [], 0, 0
    for predicted, truth in pairs:
        cells = [(bool(p), bool(t)) for p, t in zip(predicted.ravel(), truth.ravel(), strict=True)]
        shared = sum(p and t for p, t in cells)
        union = sum(p or t for p, t in cells)
        shared_sum, union_sum = shared_sum + shared, union_sum + union
        if any(t for _, t in cells):
            ious.append(shared / union)
            target_ious.append(shared / union)
        else:
            ious.append(0.0 if any(p for p, _ in cells) else 1.0)
    assert metrics.giou == pytest.approx(sum(ious) / len(ious))
    assert metrics.miou == pytest.approx(sum(target_ious) / len(target_ious))
    assert metrics.ciou == pytest.approx(shared_sum / union_sum)
    assert metrics.precision[0.7] == pytest.approx(sum(iou >= 0.7 for iou in target_ious) / len(target_ious))


def test_figures_without_samples_are_nan_and_null_in_json() -> None:
    metrics = summarize([Overlap(3, 3, 3)])
    assert math.isnan(metrics.n_acc)
    assert metrics.to_json()["N-acc"] is None
    assert metrics.to_json()["gIoU"] == 1.0
    assert math.isnan(summarize([]).giou)


def test_masks_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2\).*\(2, 3\)"):
        Overlap.of(np.zeros((2, 2), bool), np.zeros((2, 3), bool))
