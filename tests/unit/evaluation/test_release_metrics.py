import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ssp_sam.evaluation.metrics import Overlap, summarize
from ssp_sam.evaluation.release import place_prediction, place_truth, release_overlap, summarize_as_release
from ssp_sam.results import BoolMask

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
AREAS = st.integers(0, 200)


@st.composite
def overlaps(draw: st.DrawFn) -> Overlap:
    predicted, truth = draw(AREAS), draw(st.just(0) | AREAS)
    return Overlap(predicted, truth, draw(st.integers(0, min(predicted, truth))))


def mask_of(hw: tuple[int, int], rows: slice, cols: slice) -> BoolMask:
    mask = np.zeros(hw, dtype=np.bool_)
    mask[rows, cols] = True
    return mask


# --- figures ------------------------------------------------------------------------------------------------------


def slow_release(samples: list[Overlap]) -> dict[str, float]:
    """The rules of the release's evaluator, one sample at a time as it goes."""
    ious, shared_sum, union_sum = [], 0, 0
    empty_truths = perfect = targets = middling = 0
    for sample in samples:
        if sample.truth_px == 0:
            empty_truths += 1
            iou, shared = (1.0, 0) if sample.predicted_px < 50 else (0.0, 0)
            union = 0 if sample.predicted_px < 50 else sample.predicted_px
        else:
            targets += 1
            shared = sample.shared_px
            union = sample.predicted_px + sample.truth_px - shared
            iou = shared / union
        ious.append(iou)
        shared_sum, union_sum = shared_sum + shared, union_sum + union
        perfect += iou == 1
        middling += 0 < iou < 1
    figures = {"gIoU": sum(ious) / len(ious), "cIoU": shared_sum / union_sum if union_sum else math.nan}
    figures |= {f"Pr@{t}": sum(iou >= t for iou in ious) / len(ious) for t in THRESHOLDS}
    figures["N-acc"] = perfect / empty_truths if empty_truths else math.nan
    figures["T-acc"] = middling / targets if targets else math.nan
    return figures


def slow_field(samples: list[Overlap], *, strict: bool) -> dict[str, float]:
    """The field's rules, one sample at a time."""
    ious, target_ious, union_sum = [], [], 0
    rightly_empty, found = [], []
    for sample in samples:
        if sample.truth_px == 0:
            rightly_empty.append(sample.predicted_px == 0)
            ious.append(float(rightly_empty[-1]))
            union_sum += sample.predicted_px
        else:
            union = sample.predicted_px + sample.truth_px - sample.shared_px
            ious.append(sample.shared_px / union)
            target_ious.append(ious[-1])
            union_sum += union
            found.append(sample.predicted_px > 0)
    shared_sum = sum(sample.shared_px for sample in samples)
    passing = {t: [iou > t if strict else iou >= t for iou in target_ious] for t in THRESHOLDS}
    figures = {"gIoU": mean(ious), "mIoU": mean(target_ious), "cIoU": shared_sum / union_sum if union_sum else math.nan}
    figures |= {f"Pr@{t}": mean(passed) for t, passed in passing.items()}
    return figures | {"N-acc": mean(rightly_empty), "T-acc": mean(found)}


def mean(values: list[float] | list[bool]) -> float:
    return sum(values) / len(values) if values else math.nan


def assert_equal(found: dict[str, float | int | None], expected: dict[str, float]) -> None:
    for name, value in expected.items():
        if math.isnan(value):
            assert found[name] is None, name
        else:
            assert found[name] == pytest.approx(value, abs=5.1e-5), name


def test_hand_computed() -> None:
    metrics = summarize_as_release(
        [
            Overlap(predicted_px=100, truth_px=100, shared_px=100),  # IoU 1: counts as "predicted empty"
            Overlap(predicted_px=80, truth_px=100, shared_px=60),  # 60 / 120
            Overlap(predicted_px=0, truth_px=40, shared_px=0),  # missed
            Overlap(predicted_px=0, truth_px=0, shared_px=0),  # rightly empty
            Overlap(predicted_px=49, truth_px=0, shared_px=0),  # passes as empty, and its area is forgotten
            Overlap(predicted_px=50, truth_px=0, shared_px=0),  # does not
        ]
    )
    assert (metrics.samples, metrics.targets) == (6, 3)
    assert metrics.giou == metrics.miou == pytest.approx((1 + 0.5 + 0 + 1 + 1 + 0) / 6)
    assert metrics.ciou == metrics.oiou == pytest.approx(160 / (100 + 120 + 40 + 50))
    assert metrics.precision[0.5] == pytest.approx(4 / 6)
    assert metrics.precision[0.6] == pytest.approx(3 / 6)
    assert metrics.n_acc == pytest.approx(3 / 3)
    assert metrics.t_acc == pytest.approx(1 / 3)


def test_n_acc_of_the_release_may_exceed_one() -> None:
    assert summarize_as_release([Overlap(9, 9, 9), Overlap(9, 9, 9), Overlap(0, 0, 0)]).n_acc == 3


@given(st.lists(overlaps(), min_size=1, max_size=20))
@settings(max_examples=200, deadline=None)
def test_release_agrees_with_a_slow_version(samples: list[Overlap]) -> None:
    assert_equal(summarize_as_release(samples).to_json(), slow_release(samples))


@given(st.lists(overlaps(), min_size=1, max_size=20), st.booleans())
@settings(max_examples=200, deadline=None)
def test_field_agrees_with_a_slow_version(samples: list[Overlap], strict: bool) -> None:
    assert_equal(summarize(samples, strict=strict).to_json(), slow_field(samples, strict=strict))


@given(st.lists(overlaps(), min_size=1, max_size=20))
@settings(max_examples=100, deadline=None)
def test_figures_are_shares(samples: list[Overlap]) -> None:
    for metrics in (summarize(samples), summarize_as_release(samples)):
        figures = {name: value for name, value in metrics.to_json().items() if name not in ("samples", "targets")}
        assert all(value is None or 0 <= value <= 1 for name, value in figures.items() if name != "N-acc")
        precisions = list(metrics.precision.values())
        assert all(math.isnan(value) for value in precisions) or precisions == sorted(precisions, reverse=True)


def test_strict_precision_is_phrasecuts() -> None:
    half = [Overlap(predicted_px=10, truth_px=5, shared_px=5)]
    assert summarize(half).precision[0.5] == 1
    assert summarize(half, strict=True).precision[0.5] == 0


def test_no_samples() -> None:
    assert all(value in (None, 0) for value in summarize_as_release([]).to_json().values())


# --- the square ---------------------------------------------------------------------------------------------------


def test_an_image_of_1024_is_halved() -> None:
    mask = mask_of((1024, 1024), slice(100, 201), slice(300, 400))
    # The truth: every second row and column. The prediction: squares of four, of which two are enough.
    np.testing.assert_array_equal(place_truth(mask), mask_of((512, 512), slice(50, 101), slice(150, 200)))
    np.testing.assert_array_equal(place_prediction(mask), mask_of((512, 512), slice(50, 101), slice(150, 200)))
    shifted = mask_of((1024, 1024), slice(101, 203), slice(300, 400))
    np.testing.assert_array_equal(place_truth(shifted), mask_of((512, 512), slice(51, 102), slice(150, 200)))
    np.testing.assert_array_equal(place_prediction(shifted), mask_of((512, 512), slice(50, 102), slice(150, 200)))
    one = mask_of((1024, 1024), slice(101, 102), slice(301, 302))
    assert not place_truth(one).any()
    assert not place_prediction(one).any()


@pytest.mark.parametrize("hw", [(512, 256), (200, 640), (3000, 2000), (1, 700), (700, 1)])
def test_padding_lies_to_the_right_and_below(hw: tuple[int, int]) -> None:
    full = np.ones(hw, dtype=np.bool_)
    height, width = (max(1, int(side * 1024 / max(hw) + 0.5)) for side in hw)
    for placed in (place_truth(full), place_prediction(full)):
        np.testing.assert_array_equal(placed, mask_of((512, 512), slice((height + 1) // 2), slice((width + 1) // 2)))


def test_a_truth_grows_and_a_prediction_does_not() -> None:
    mask = mask_of((512, 512), slice(100, 200), slice(100, 200))
    np.testing.assert_array_equal(place_prediction(mask), mask)
    np.testing.assert_array_equal(place_truth(mask), mask_of((512, 512), slice(100, 201), slice(100, 201)))


@given(st.tuples(st.integers(1, 90), st.integers(1, 90)), st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_truth_is_placed_as_the_release_places_it(hw: tuple[int, int], seed: int) -> None:
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchvision.transforms.functional")
    mask = np.random.default_rng(seed).random(hw) < 0.3
    scale = 1024 / max(hw)
    size = [max(1, int(side * scale + 0.5)) for side in hw]
    picture = functional.to_pil_image(mask[:, :, None].astype(np.float32), mode="F")
    resized = torch.from_numpy(np.array(functional.resize(picture, size)) > 0).float()
    padded = torch.nn.functional.pad(resized, (0, 1024 - size[1], 0, 1024 - size[0]))
    expected = torch.nn.functional.interpolate(padded[None, None], size=(512, 512), mode="nearest")[0, 0]
    np.testing.assert_array_equal(place_truth(mask), expected.numpy() > 0)


def slow_prediction(mask: BoolMask) -> npt.NDArray[np.float64]:
    """Coverage of each of 512 x 512 pixels, by weights along each axis worked out one by one."""

    def weights(length: int, longest: int) -> npt.NDArray[np.float64]:
        target = max(1, int(length * 1024 / longest + 0.5))
        rows = np.zeros((1024, length))
        for row in range(target):
            centre = (row + 0.5) * length / target
            reach = max(1.0, length / target)
            shares = [max(0.0, 1 - abs((col + 0.5 - centre) / reach)) for col in range(length)]
            rows[row] = np.array(shares) / sum(shares)
        return (rows[0::2] + rows[1::2]) / 2

    result: npt.NDArray[np.float64] = (
        weights(mask.shape[0], max(mask.shape)) @ mask @ weights(mask.shape[1], max(mask.shape)).T
    )
    return result


@pytest.mark.parametrize("hw", [(30, 41), (64, 17), (1, 9), (1100, 40)])
def test_prediction_agrees_with_a_slow_version(hw: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random(hw) < 0.5
    covered = slow_prediction(mask)
    clear = np.abs(covered - 0.5) > 1e-5
    np.testing.assert_array_equal(place_prediction(mask)[clear], (covered >= 0.5)[clear])


@pytest.mark.parametrize("hw", [(480, 640), (640, 427), (200, 1200)])
def test_a_placed_prediction_is_close_to_the_release_own(hw: tuple[int, int]) -> None:
    """The release thresholds logits of 512 x 512; a mask thresholded at the image's own size differs by rounding."""
    torch = pytest.importorskip("torch")
    from ssp_sam.config import get_preset
    from ssp_sam.postprocess import full_size_mask
    from ssp_sam.preprocess import geometry_of

    coarse = np.random.default_rng(1).normal(size=(9, 9)).astype(np.float32)
    logits = np.asarray(Image.fromarray(coarse).resize((256, 256), Image.Resampling.BICUBIC))
    released = torch.from_numpy(logits.copy())[None, None]
    for side in (1024, 512):
        released = torch.nn.functional.interpolate(released, (side, side), mode="bilinear", align_corners=False)
    placed = place_prediction(full_size_mask(logits, geometry_of(hw, get_preset("b224")), 1024, 0.0))
    inside = place_prediction(np.ones(hw, dtype=np.bool_))
    overlap = Overlap.of(placed, (released[0, 0].numpy() >= 0) & inside)
    assert overlap.iou > 0.985


def test_masks_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        release_overlap(np.zeros((2, 3), np.bool_), np.zeros((3, 2), np.bool_))
