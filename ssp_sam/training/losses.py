"""Losses. Each is a mean over samples; everything is computed in float32, whatever precision the network ran in."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ssp_sam.data.standing import NO, NOT_THERE, YES

# Keeps logarithms of probabilities finite.
_EPSILON = 1e-4


def cross_entropy(logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Return the mean over samples of weight (P,) times the sample's mean binary cross entropy.

    logits: (P, ...); truth: the same shape, 0..1.
    """
    each = F.binary_cross_entropy_with_logits(logits.float(), truth, reduction="none")
    return (each.flatten(1).mean(dim=1) * weight).mean()


def cross_entropy_of_probabilities(probabilities: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Return the same as `cross_entropy` for probabilities, which are clamped to (0, 1)."""
    clamped = probabilities.float().clamp(_EPSILON, 1 - _EPSILON)
    each = F.binary_cross_entropy(clamped, truth, reduction="none")
    return (each.flatten(1).mean(dim=1) * weight).mean()


def dice(probabilities: Tensor, truth: Tensor) -> Tensor:
    """Return the mean over samples of 1 - (2 sum(p t) + 1) / (sum p + sum t + 1). Both (P, ...), 0..1."""
    p, t = probabilities.float().flatten(1), truth.flatten(1)
    return (1 - (2 * (p * t).sum(dim=1) + 1) / (p.sum(dim=1) + t.sum(dim=1) + 1)).mean()


def focal(logits: Tensor, truth: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Return the mean focal loss over all positions. Both (P, ...); truth 0..1."""
    each = F.binary_cross_entropy_with_logits(logits.float(), truth, reduction="none")
    p = logits.float().sigmoid()
    missed = p * (1 - truth) + (1 - p) * truth  # 1 - the probability of what is true
    balance = alpha * truth + (1 - alpha) * (1 - truth)
    return (balance * missed**gamma * each).mean()


def presence(logits: Tensor, absent: Tensor) -> Tensor:
    """Return the binary cross entropy of what the patch that is most like a phrase says of whether it means anything.

    That patch is all that the threshold of similarity sees. Phrases with and without a target count the same, however
    many they are. logits: (P, N); absent: bool (P,).
    """
    peak = logits.float().amax(dim=1)
    each = F.binary_cross_entropy_with_logits(peak, (~absent).float(), reduction="none")
    return torch.stack([each[part].mean() for part in (absent, ~absent) if part.any()]).mean()


def inventory(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the binary cross entropy of what images' patches that are most like names say of whether those are there.

    As `presence`, but of many names in every image. logits: (B, N, J) of N patches; truth: int8 (B, J), below 0 where
    people would not agree.
    """
    peak = logits.float().amax(dim=1)
    each = F.binary_cross_entropy_with_logits(peak, (truth == YES).float(), reduction="none")
    parts = [truth == said for said in (YES, NO)]
    return torch.stack([each[part].mean() for part in parts if part.any()]).mean()


def traits(logits: Tensor, truth: Tensor, thing: Tensor) -> Tensor:
    """Return the mean binary cross entropy of what patches of things say of them; a thing's patches count as one.

    logits: (M, A) of M patches; truth: int8 (T, A), 1 or 0, below where it is not known; thing: int (M,).
    """
    own = truth[thing]
    share = 1 / torch.bincount(thing, minlength=len(truth))[thing].float()
    weight = torch.where(own >= 0, share[:, None], 0.0)
    each = F.binary_cross_entropy_with_logits(logits.float(), own.clamp(min=0).float(), reduction="none")
    return (each * weight).sum() / weight.sum().clamp(min=1)


def relations(logits: Tensor, truth: Tensor, thing: Tensor) -> Tensor:
    """Return the mean binary cross entropy of what patches of things say of their relations; a thing counts as one.

    What holds, what does not, and what cannot as the other thing is not there count the same, however many they are.
    logits: (M, R, K) of M patches; truth: int8 (T, R, K), see `ShownThings`; thing: int (M,).
    """
    own = truth[thing]
    share = (1 / torch.bincount(thing, minlength=len(truth))[thing].float())[:, None, None]
    each = share * F.binary_cross_entropy_with_logits(logits.float(), (own == YES).float(), reduction="none")
    parts = [own == said for said in (YES, NO, NOT_THERE)]
    return torch.stack([(each * part).sum() / (share * part).sum().clamp(min=1) for part in parts]).mean()


def corners(box_cxcywh: Tensor) -> Tensor:
    """Return boxes (P, 4) as x0, y0, x1, y1 of boxes as centre and size."""
    centre, half = box_cxcywh[:, :2], box_cxcywh[:, 2:] / 2
    return torch.cat([centre - half, centre + half], dim=1)


def box_overlap(a_cxcywh: Tensor, b_cxcywh: Tensor) -> tuple[Tensor, Tensor]:
    """Return IoU and generalised IoU, each (P,), of boxes (P, 4)."""
    a, b = corners(a_cxcywh.float()), corners(b_cxcywh.float())
    shared = _area(torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:]))
    union = _area(a[:, :2], a[:, 2:]) + _area(b[:, :2], b[:, 2:]) - shared
    hull = _area(torch.minimum(a[:, :2], b[:, :2]), torch.maximum(a[:, 2:], b[:, 2:]))
    iou = shared / union.clamp(min=1e-8)
    return iou, iou - (hull - union) / hull.clamp(min=1e-8)


def _area(top_left: Tensor, bottom_right: Tensor) -> Tensor:
    return (bottom_right - top_left).clamp(min=0).prod(dim=1)


def mask_iou(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return the IoU (P,) of bool masks (P, ...); 0 where both are empty."""
    p, t = predicted.flatten(1), truth.flatten(1)
    union = (p | t).sum(dim=1)
    return (p & t).sum(dim=1) / union.clamp(min=1)
