import math

import pytest
import torch
from torch import Tensor

from ssp_sam.data.standing import NO, NOT_THERE, UNSAID, YES
from ssp_sam.training import losses


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def truth() -> Tensor:
    return (torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(1)) > 0.6).float()


def _cells(logits: Tensor, truth: Tensor) -> list[list[tuple[float, float]]]:
    """For each sample its pairs of probability and truth."""
    return [
        [(_sigmoid(x), t) for x, t in zip(row.flatten().tolist(), own.flatten().tolist(), strict=True)]
        for row, own in zip(logits, truth, strict=True)
    ]


def test_cross_entropy_weighs_samples(logits: Tensor, truth: Tensor) -> None:
    weight = torch.tensor([1.0, 3.0, 0.5])
    naive = 0.0
    for w, cells in zip(weight.tolist(), _cells(logits, truth), strict=True):
        naive += w * sum(-math.log(p if t else 1 - p) for p, t in cells) / len(cells) / 3
    assert losses.cross_entropy(logits, truth, weight).item() == pytest.approx(naive, rel=1e-5)
    clamped = losses.cross_entropy_of_probabilities(logits.sigmoid(), truth, weight)
    assert clamped.item() == pytest.approx(naive, rel=1e-5)


def test_cross_entropy_of_certain_probabilities_is_finite() -> None:
    wrong = losses.cross_entropy_of_probabilities(torch.tensor([[0.0, 1.3]]), torch.tensor([[1.0, 0.0]]), torch.ones(1))
    assert 5 < wrong.item() < 20


def test_dice(logits: Tensor, truth: Tensor) -> None:
    naive = 0.0
    for cells in _cells(logits, truth):
        shared, p_sum, t_sum = (sum(values) for values in zip(*((p * t, p, t) for p, t in cells), strict=True))
        naive += (1 - (2 * shared + 1) / (p_sum + t_sum + 1)) / 3
    assert losses.dice(logits.sigmoid(), truth).item() == pytest.approx(naive, rel=1e-5)
    assert losses.dice(torch.zeros(1, 9), torch.zeros(1, 9)).item() == 0


def test_focal(logits: Tensor, truth: Tensor) -> None:
    cells = [cell for sample in _cells(logits, truth) for cell in sample]
    naive = sum(
        -(0.25 * (1 - p) ** 2 * math.log(p)) if t else -(0.75 * p**2 * math.log(1 - p)) for p, t in cells
    ) / len(cells)
    assert losses.focal(logits, truth).item() == pytest.approx(naive, rel=1e-4)


def test_box_overlap_by_hand() -> None:
    a = torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.1, 0.1, 0.2, 0.2], [0.3, 0.3, 0.2, 0.2]])
    b = torch.tensor([[0.5, 0.5, 0.4, 0.2], [0.5, 0.1, 0.2, 0.2], [0.3, 0.3, 0.2, 0.2]])
    iou, giou = losses.box_overlap(a, b)
    assert iou.tolist() == pytest.approx([0.5, 0.0, 1.0], abs=1e-6)
    # Of the second pair's hull, 0.6 by 0.2, the boxes cover two thirds.
    assert giou.tolist() == pytest.approx([0.5, -1 / 3, 1.0], abs=1e-6)


def test_mask_iou() -> None:
    predicted = torch.tensor([[[1, 1], [0, 0]], [[0, 0], [0, 0]]]).bool()
    truth = torch.tensor([[[1, 0], [0, 1]], [[0, 0], [0, 0]]]).bool()
    assert losses.mask_iou(predicted, truth).tolist() == pytest.approx([1 / 3, 0.0])


def test_presence_asks_the_patch_that_is_most_like_a_phrase() -> None:
    logits = torch.tensor([[-3.0, 2.0], [0.5, -1.0], [-4.0, -2.0], [1.0, 0.0]])
    absent = torch.tensor([False, True, True, True])
    nothing = -sum(math.log(1 - _sigmoid(peak)) for peak in (0.5, -2.0, 1.0)) / 3
    expected = (nothing - math.log(_sigmoid(2.0))) / 2
    assert losses.presence(logits, absent).item() == pytest.approx(expected, rel=1e-5)
    assert losses.presence(logits[1:], absent[1:]).item() == pytest.approx(nothing, rel=1e-5), "no phrase has a target"


def test_inventory_asks_the_patch_that_is_most_like_a_name() -> None:
    # Two images of two patches, three names.
    logits = torch.tensor([[[-3.0, 2.0, 0.5], [1.0, -1.0, 0.0]], [[0.5, 9.0, -4.0], [-1.0, 1.0, -2.0]]])
    truth = torch.tensor([[YES, NO, NO], [YES, UNSAID, NO]], dtype=torch.int8)
    there = -sum(math.log(_sigmoid(peak)) for peak in (1.0, 0.5)) / 2
    nothing = -sum(math.log(1 - _sigmoid(peak)) for peak in (2.0, 0.5, -2.0)) / 3
    assert losses.inventory(logits, truth).item() == pytest.approx((there + nothing) / 2, rel=1e-5)
    assert losses.inventory(logits, truth.clamp(max=NO)).item() == pytest.approx(
        -sum(math.log(1 - _sigmoid(peak)) for peak in (1.0, 2.0, 0.5, 0.5, -2.0)) / 5, rel=1e-5
    ), "no name is of anything"


def test_relations_weigh_what_holds_what_does_not_and_what_cannot_the_same() -> None:
    # Two things, one relation, three nouns; the first thing has two patches, the third thing none.
    truth = torch.tensor([[[YES, NO, NOT_THERE]], [[UNSAID, YES, NOT_THERE]], [[YES] * 3]], dtype=torch.int8)
    thing = torch.tensor([0, 0, 1])
    logits = torch.tensor([[[1.0, -2.0, 0.5]], [[3.0, 0.0, -1.0]], [[9.0, 2.0, -3.0]]])
    p = torch.sigmoid(logits)[:, 0].tolist()
    holds = -(math.log(p[0][0]) / 2 + math.log(p[1][0]) / 2 + math.log(p[2][1])) / 2
    does_not = -(math.log(1 - p[0][1]) / 2 + math.log(1 - p[1][1]) / 2)
    cannot = -(math.log(1 - p[0][2]) / 2 + math.log(1 - p[1][2]) / 2 + math.log(1 - p[2][2])) / 2
    expected = (holds + does_not + cannot) / 3
    assert losses.relations(logits, truth, thing).item() == pytest.approx(expected, rel=1e-5)
    assert losses.relations(logits[:0], truth, thing[:0]).item() == 0, "no patch shows a thing"


def test_traits_count_each_thing_once_and_leave_out_what_is_not_known() -> None:
    truth = torch.tensor([[1, 0, -1], [-1, 1, 0], [1, 1, 1]], dtype=torch.int8)  # the third has no patch
    thing = torch.tensor([0, 0, 0, 1])
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(2))
    naive, known = 0.0, 0.0
    for row, own in zip(logits.tolist(), thing.tolist(), strict=True):
        for x, t in zip(row, truth[own].tolist(), strict=True):
            if t >= 0:
                share = 1 / thing.tolist().count(own)
                naive -= share * math.log(_sigmoid(x) if t else 1 - _sigmoid(x))
                known += share
    assert losses.traits(logits, truth, thing).item() == pytest.approx(naive / known, rel=1e-5)
    assert losses.traits(logits[:0], truth, thing[:0]).item() == 0, "no patch shows a thing"
