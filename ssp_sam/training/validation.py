"""Held-out figures of an objective, on scenes of the split `val`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ssp_sam.evaluation.metrics import Overlap, summarize
from ssp_sam.training import losses
from ssp_sam.training.batches import Batch
from ssp_sam.training.objectives import boxed_masks, patches_and_phrases, prompted_masks, prompts_of, similarity_of
from ssp_sam.training.trainee import Trainee

Figures = dict[str, float]


@torch.no_grad()
def validate(trainee: Trainee, objective: str, batches: Sequence[Batch]) -> Figures:
    """Return figures by name; what they are depends on the objective."""
    return _FIGURES[objective](trainee, batches)


def _grounding(trainee: Trainee, batches: Sequence[Batch]) -> Figures:
    found = []
    for batch in batches:
        logits = trainee.similarity_head(similarity_of(*patches_and_phrases(trainee, batch)))
        found.append(losses.mask_iou(logits > 0, batch.truth_grid > 0.5)[~batch.absent])
    return {"grid_iou": _mean(found)}


def _boxed(trainee: Trainee, batches: Sequence[Batch]) -> Figures:
    found, error = [], []
    for batch in batches:
        logits, iou = boxed_masks(trainee, batch)
        true_iou = losses.mask_iou(logits > 0, batch.truth_mask > 127)
        found.append(true_iou)
        error.append((iou.float() - true_iou).abs())
    return {"iou": _mean(found), "iou_head_error": _mean(error)}


def _boxes(trainee: Trainee, batches: Sequence[Batch]) -> Figures:
    found = []
    for batch in batches:
        prompts = prompts_of(trainee, batch)
        found.append(losses.box_overlap(prompts.box_cxcywh_norm, batch.truth_box)[0][~batch.absent])
    return {"box_iou": _mean(found), "box_acc_0.5": _mean([iou >= 0.5 for iou in found])}


def _masks(trainee: Trainee, batches: Sequence[Batch]) -> Figures:
    overlaps, found, error = [], [], []
    for batch in batches:
        prompts = prompts_of(trainee, batch)
        logits, iou = prompted_masks(trainee, batch, prompts)
        predicted, truth = logits > 0, batch.truth_mask > 127
        overlaps += [Overlap.of(p, t) for p, t in zip(predicted.numpy(), truth.numpy(), strict=True)]
        found.append(losses.box_overlap(prompts.box_cxcywh_norm, batch.truth_box)[0][~batch.absent])
        error.append((iou.float() - losses.mask_iou(predicted, truth)).abs())
    metrics = summarize(overlaps)
    return {
        "giou": metrics.giou,
        "ciou": metrics.ciou,
        "miou": metrics.miou,
        "pr_0.5": metrics.precision[0.5],
        "pr_0.8": metrics.precision[0.8],
        "n_acc": metrics.n_acc,
        "t_acc": metrics.t_acc,
        "box_iou": _mean(found),
        "iou_head_error": _mean(error),
    }


def _mean(parts: Sequence[Tensor]) -> float:
    return float(np.mean(torch.cat(list(parts)).float().numpy()))


_FIGURES: dict[str, Callable[[Trainee, Sequence[Batch]], Figures]] = {
    "grounding": _grounding,
    "boxed-masks": _boxed,
    "boxes": _boxes,
    "masks": _masks,
}
