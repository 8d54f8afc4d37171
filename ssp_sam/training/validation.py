"""Held-out figures of an objective: each process measures its batches, then all are summed up together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssp_sam.evaluation.metrics import Overlap, summarize
from ssp_sam.postprocess import full_size_mask
from ssp_sam.preprocess import Geometry
from ssp_sam.training import losses
from ssp_sam.training.batches import Batch
from ssp_sam.training.close_ups import CloseUps
from ssp_sam.training.objectives import (
    boxed_masks,
    named_patches,
    patches_and_phrases,
    prompted_masks,
    prompts_of,
    similarity_of,
)
from ssp_sam.training.trainee import Trainee

Figures = dict[str, float]
Measured = dict[str, list[float]]
"""A value of each sample, by name; names that begin with OVERLAP are the areas of an `Overlap`."""

OVERLAP = "overlap."


@torch.no_grad()
def measure(trainee: Trainee, objective: str, batches: Iterable[Any], device: torch.device) -> Measured:
    """Return what the objective's figures are made of, for the samples of some batches."""
    measured: Measured = defaultdict(list)
    for batch in batches:
        for name, values in _MEASURES[objective](trainee, batch.to(device)).items():
            measured[name] += values
    return dict(measured)


def sum_up(parts: Sequence[Measured]) -> Figures:
    """Return figures by name: of masks the field's metrics, of everything else the mean."""
    measured: Measured = defaultdict(list)
    for part in parts:
        for name, values in part.items():
            measured[name] += values
    areas = {name: measured.pop(name) for name in list(measured) if name.startswith(OVERLAP)}
    figures = _metrics(areas) if areas else {}
    return figures | {name: float(np.mean(values)) if values else float("nan") for name, values in measured.items()}


def _metrics(areas: Measured) -> Figures:
    columns = (areas[f"{OVERLAP}{name}"] for name in ("predicted_px", "truth_px", "shared_px"))
    metrics = summarize(Overlap(int(p), int(t), int(s)) for p, t, s in zip(*columns, strict=True))
    return {
        "giou": metrics.giou,
        "ciou": metrics.ciou,
        "miou": metrics.miou,
        "oiou": metrics.oiou,
        "pr_0.5": metrics.precision[0.5],
        "pr_0.8": metrics.precision[0.8],
        "n_acc": metrics.n_acc,
        "t_acc": metrics.t_acc,
    }


def _close_ups(trainee: Trainee, batch: CloseUps) -> Measured:
    of_patches, of_things = named_patches(trainee, batch)
    shows = batch.covered >= 0.5
    nouns = batch.noun[:, None].expand(shows.shape)
    return {
        "thing_acc": (of_things.argmax(dim=1) == batch.noun).float().tolist(),
        "patch_acc": (of_patches.argmax(dim=2) == nouns)[shows].float().tolist(),
    }


def _grounding(trainee: Trainee, batch: Batch) -> Measured:
    logits = trainee.similarity_head(similarity_of(*patches_and_phrases(trainee, batch)))
    return {"grid_iou": losses.mask_iou(logits > 0, batch.truth_grid > 0.5)[~batch.absent].tolist()}


def _boxed(trainee: Trainee, batch: Batch) -> Measured:
    logits, iou = boxed_masks(trainee, batch)
    true_iou = losses.mask_iou(logits > 0, batch.truth_mask > 127)
    return {"iou": true_iou.tolist(), "iou_head_error": (iou.float() - true_iou).abs().tolist()}


def _boxes(trainee: Trainee, batch: Batch) -> Measured:
    found = _box_iou(batch, prompts_of(trainee, batch).box_cxcywh_norm)
    return {"box_iou": found, "box_acc_0.5": [float(iou >= 0.5) for iou in found]}


def _masks(trainee: Trainee, batch: Batch) -> Measured:
    prompts = prompts_of(trainee, batch)
    logits, iou = prompted_masks(trainee, batch, prompts)
    overlaps = list(_overlaps(logits, batch, trainee.preset.sam.image_side_px))
    true_iou = [overlap.shared_px / max(1, overlap.union_px) for overlap in overlaps]
    return {
        f"{OVERLAP}predicted_px": [overlap.predicted_px for overlap in overlaps],
        f"{OVERLAP}truth_px": [overlap.truth_px for overlap in overlaps],
        f"{OVERLAP}shared_px": [overlap.shared_px for overlap in overlaps],
        "box_iou": _box_iou(batch, prompts.box_cxcywh_norm),
        "iou_head_error": [abs(a - b) for a, b in zip(iou.float().tolist(), true_iou, strict=True)],
    }


def _overlaps(logits: Tensor, batch: Batch, sam_side: int) -> Iterable[Overlap]:
    """Compare masks at the images' own sizes where the batch has those truths, else on the logits' cells."""
    if not batch.own_masks:
        pairs = zip((logits > 0).cpu().numpy(), (batch.truth_mask > 127).cpu().numpy(), strict=True)
        return (Overlap.of(predicted, truth) for predicted, truth in pairs)
    geometries = [Geometry.from_array(array) for array in batch.geometry.cpu().numpy()]
    whose = (geometries[index] for index in batch.image_index.tolist())
    triples = zip(logits.float().cpu().numpy(), whose, batch.own_masks, strict=True)
    return (Overlap.of(full_size_mask(own, geometry, sam_side, 0.0), truth) for own, geometry, truth in triples)


def _box_iou(batch: Batch, boxes: Tensor) -> list[float]:
    values: list[float] = losses.box_overlap(boxes, batch.truth_box)[0][~batch.absent].tolist()
    return values


_MEASURES: dict[str, Callable[[Trainee, Any], Measured]] = {
    "close-ups": _close_ups,
    "grounding": _grounding,
    "boxed-masks": _boxed,
    "boxes": _boxes,
    "masks": _masks,
}
