"""What a phase can learn: from a batch to named losses. A phase weighs those it wants; the others do not count."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ssp_sam.modeling.ssp import Prompts
from ssp_sam.training import losses
from ssp_sam.training.targets import CELLS, HALF_SQUARE, NOTHING, SQUARE
from ssp_sam.training.trainee import Trainee

if TYPE_CHECKING:
    from ssp_sam.modeling.clip_image import ClipImageEncoder
    from ssp_sam.training.batches import Batch, ShownThings
    from ssp_sam.training.close_ups import CloseUps

Losses = dict[str, Tensor]

NAMING_TEMPERATURE = 0.07

BESIDE_ATTENTION = 0.35
"""The spatial attention that a patch should have which shows what a phrase names beside its target.

The prompt generator sees patches times that: at 0 "the dog left of the cat" would not let it know where a cat is.
"""

NAMING, INVENTORY, TRAITS, RELATED = "naming", "inventory", "traits", "relations"
PATCH_LOSSES = (NAMING, INVENTORY, TRAITS, RELATED)
"""The losses that need to know what a batch's patches show, as only scenes do."""


class Weighing(Protocol):
    """What an objective reads in a `PhaseConfig`."""

    @property
    def absent_weight(self) -> float:
        """How much more a phrase without target counts in the cross entropies."""

    @property
    def learned_per_image(self) -> int:
        """How many phrases of an image are learned, in the mean; 0 is all."""

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """The losses that count; what takes long and counts nothing is not computed."""


@dataclass(frozen=True)
class Objective:
    """A way to learn.

    compute: (trainee, batch, phase) -> losses by name.
    losses: their names; targets: what a sample is, "phrases", "things" or (then a batch is a `CloseUps`) "close-ups";
    uses_sam: whether SAM's image encoder is asked. chooses: whether it minds `PhaseConfig.learned_per_image`.
    """

    compute: Callable[[Trainee, Any, Weighing], Losses]
    losses: tuple[str, ...]
    targets: str = "phrases"
    uses_sam: bool = True
    chooses: bool = False


def patches_and_phrases(trainee: Trainee, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return from CLIP's two towers alone what the SSP encoder compares: patches (P, N, C) and phrases (P, C)."""
    return _patches(trainee, batch)[batch.image_index], _phrases(trainee, batch.token_ids)


def _patches(trainee: Trainee, batch: Batch) -> Tensor:
    """Return the patches of the batch's images (B, N, C), normalised as the SSP encoder does."""
    return _normalized(clip_tokens_of(trainee, batch))


def _normalized(clip_tokens: Tensor) -> Tensor:
    return F.normalize(clip_tokens.float(), dim=1)[:, 1:]


def _phrases(trainee: Trainee, token_ids: Tensor) -> Tensor:
    """Return unit vectors (P, C) of phrases, int (P, L)."""
    # Only the end token's row is needed, and no position sees a later one: padding can go.
    longest = int((token_ids != 0).sum(dim=1).max())
    text_embedding, _ = trainee.model.text_encoder(token_ids[:, :longest])
    return F.normalize(text_embedding.float(), dim=-1)


def similarity_of(patches: Tensor, phrases: Tensor) -> Tensor:
    """Return the SSP encoder's similarity (P, N) of patches (P, N, C) and phrases (P, C)."""
    return torch.einsum("pnc,pc->pn", patches, phrases)


def boxed_masks(trainee: Trainee, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return mask_logits (P, 4G, 4G) and iou (P,) of SAM alone, told the box around each target."""
    model, inside = trainee.model, batch.truth_mask > 127
    prompts = trainee.corner_prompts(model.mask_decoder.pe_layer, _corners(inside) / inside.shape[-1])
    logits, iou = model.mask_decoder(_embedding(trainee, batch), prompts, batch.image_index)
    return logits, iou


def clip_tokens_of(trainee: Trainee, batch: Batch) -> Tensor:
    """Return what CLIP's image tower answers, (B, 1 + N, C)."""
    tokens: Tensor = trainee.model.clip_image_encoder(batch.clip_image, batch.geometry[:, 2], batch.geometry[:, 3])
    return tokens


def prompts_of(trainee: Trainee, batch: Batch, clip_tokens: Tensor | None = None) -> Prompts:
    """Return what the SSP encoder writes; clip_tokens: of `clip_tokens_of`, where they are known."""
    if clip_tokens is None:
        clip_tokens = clip_tokens_of(trainee, batch)
    text_embedding, words = trainee.model.text_encoder(batch.token_ids)
    prompts: Prompts = trainee.model.ssp_prompt_generator(
        clip_tokens, batch.token_ids, text_embedding, words, batch.image_index
    )
    return prompts


def prompted_masks(trainee: Trainee, batch: Batch, prompts: Prompts) -> tuple[Tensor, Tensor]:
    """Return mask_logits (P, 4G, 4G) and iou (P,) of the whole model."""
    logits, iou = trainee.model.mask_decoder(_embedding(trainee, batch), prompts.prompt_tokens, batch.image_index)
    return logits, iou


def _embedding(trainee: Trainee, batch: Batch) -> Tensor:
    """Return what SAM's image encoder makes of the images (B, D, G, G), or made of them earlier."""
    if batch.image_embedding is not None:
        return batch.image_embedding.float()
    embedding: Tensor = trainee.model.sam_image_encoder(batch.sam_image, batch.geometry[:, 1])
    return embedding


def _corners(inside: Tensor) -> Tensor:
    """Return (P, 2, 2), top left and bottom right as x, y in cells, of bool masks (P, cells, cells)."""
    ends = []
    for axis in (1, 2):  # over rows: columns remain
        used = inside.any(dim=axis).int()
        ends.append(torch.stack([used.argmax(dim=1), used.shape[1] - used.flip(1).argmax(dim=1)], dim=1))
    return torch.stack(ends, dim=2).float()


def _weight(batch: Batch, absent_weight: float) -> Tensor:
    return torch.where(batch.absent, absent_weight, 1.0)


def _similarity_losses(trainee: Trainee, batch: Batch, similarity: Tensor, weight: Tensor) -> Losses:
    logits = trainee.similarity_head(similarity)
    return {
        "similarity_bce": losses.cross_entropy(logits, batch.truth_grid, weight),
        "similarity_dice": losses.dice(logits.sigmoid(), batch.truth_grid),
        "presence": losses.presence(logits, batch.absent),
    }


def _mask_losses(trainee: Trainee, batch: Batch, logits: Tensor, iou: Tensor, weight: Tensor) -> Losses:
    truth = batch.truth
    logits = enlarged(logits, batch.masks_on, trainee.preset.sam.image_side_px)
    true_iou = losses.mask_iou(logits.detach() > 0, truth > 0.5)
    return {
        "mask_bce": losses.cross_entropy(logits, truth, weight),
        "mask_dice": losses.dice(logits.float().sigmoid(), truth),
        "mask_focal": losses.focal(logits, truth),
        "iou_mse": F.mse_loss(iou.float(), true_iou),
    }


def enlarged(logits: Tensor, masks_on: str, side: int) -> Tensor:
    """Return logits (P, 4G, 4G) where masks are compared: one of `MASK_GRIDS`, of SAM's square of `side` pixels.

    The release enlarges them to SAM's square and then takes half its side.
    """
    for size in {CELLS: (), SQUARE: (side,), HALF_SQUARE: (side, side // 2)}[masks_on]:
        logits = F.interpolate(logits.float()[:, None], (size, size), mode="bilinear", align_corners=False)[:, 0]
    return logits


def _prompt_losses(trainee: Trainee, batch: Batch, prompts: Prompts, weight: Tensor) -> Losses:
    present, elsewhere = ~batch.absent, 1 - batch.beside_grid
    box, truth_box = prompts.box_cxcywh_norm[present].float(), batch.truth_box[present]
    _, giou = losses.box_overlap(box, truth_box)
    count = present.sum().clamp(min=1)
    return {
        "box_l1": (box - truth_box).abs().sum() / (4 * count),
        "box_giou": (1 - giou).sum() / count,
        "attention_bce": losses.cross_entropy_of_probabilities(
            prompts.spatial_attention, torch.maximum(batch.truth_grid, BESIDE_ATTENTION * batch.beside_grid), weight
        ),
        "attention_dice": losses.dice(prompts.spatial_attention.clamp(0, 1) * elsewhere, batch.truth_grid * elsewhere),
        **_similarity_losses(trainee, batch, prompts.similarity, weight),
    }


def _grounding(trainee: Trainee, batch: Batch, phase: Weighing) -> Losses:
    of_images, phrases = _patches(trainee, batch), _phrases(trainee, batch.token_ids)
    similarity = similarity_of(of_images[batch.image_index], phrases)
    return {
        **_similarity_losses(trainee, batch, similarity, _weight(batch, phase.absent_weight)),
        **_patch_losses(trainee, batch, of_images, phase),
    }


def named_patches(trainee: Trainee, batch: CloseUps) -> tuple[Tensor, Tensor]:
    """Return cosines with the K nouns of what CLIP makes of each patch (B, n, K), and of all of the thing (B, K)."""
    encoder = trainee.model.clip_image_encoder
    _, _, height, width = batch.image.shape
    whole = batch.image.new_tensor([[height, width]], dtype=torch.int32).expand(len(batch.image), -1)
    pixels = encoder.normalize(batch.image, whole, torch.zeros_like(whole))
    tokens = encoder.encode(pixels, _position(encoder, batch))[:, 1:].float()  # (B, n, C)
    nouns = _phrases(trainee, batch.noun_token_ids)
    with torch.autocast(tokens.device.type, enabled=False):
        things = torch.einsum("bn,bnc->bc", batch.covered, tokens)
        of_patches = F.normalize(tokens, dim=-1) @ nouns.T
        return of_patches, F.normalize(things, dim=-1) @ nouns.T


def _position(encoder: ClipImageEncoder, batch: CloseUps) -> Tensor:
    """Return the positional embeddings of the class token and of the part of the grid where the close-ups are."""
    side = batch.image.shape[2] // encoder.config.patch_px
    row, column = batch.place_rc
    grid = encoder.positional_embedding[1:].view(encoder.config.grid, encoder.config.grid, -1)
    part = grid[row : row + side, column : column + side].flatten(0, 1)
    return torch.cat([encoder.positional_embedding[:1], part])


def _close_up(trainee: Trainee, batch: CloseUps, phase: Weighing) -> Losses:
    of_patches, of_things = named_patches(trainee, batch)
    shows = batch.covered >= 0.5  # (B, n)
    nouns = batch.noun[:, None].expand(shows.shape)
    return {
        "thing_noun": F.cross_entropy(of_things / NAMING_TEMPERATURE, batch.noun),
        "patch_noun": F.cross_entropy(of_patches[shows] / NAMING_TEMPERATURE, nouns[shows]),
    }


def _patch_losses(trainee: Trainee, batch: Batch, patches: Tensor, phase: Weighing) -> Losses:
    """Return those of `PATCH_LOSSES` of patches (B, N, C) that count, where the batch knows what they show."""
    shown = batch.shown
    if shown is None:
        return {}
    nouns = _phrases(trainee, shown.noun_token_ids)
    similarity = torch.einsum("bnc,kc->bnk", patches, nouns).flatten(0, 1)
    of_patch = shown.of_patch.flatten()
    things = of_patch >= 0
    of_things, thing = patches.flatten(0, 1)[things], of_patch[things]
    related = trainee.relation_head(of_things, nouns)
    found = {
        NAMING: _naming(trainee, similarity, shown),
        TRAITS: losses.traits(trainee.trait_head(of_things), shown.traits, thing),
        RELATED: losses.relations(related, shown.relations, thing),
    }
    if INVENTORY in phase.loss_weights:  # more phrases than all others of the batch
        names = _phrases(trainee, shown.name_token_ids)
        found[INVENTORY] = losses.inventory(trainee.similarity_head(patches @ names.T), shown.named)
    return found


def _naming(trainee: Trainee, similarity: Tensor, shown: ShownThings) -> Tensor:
    """Tell what every patch shows, among nouns and nothing: one image teaches as much as hundreds of phrases.

    similarity: (B * N, K). Things and background count the same.
    """
    logits = F.pad(trainee.similarity_head(similarity), (0, 1))  # 0 is where a noun is as likely as not
    of_patch = shown.of_patch.flatten()
    of_things, of_nothing = of_patch >= 0, of_patch == NOTHING
    truth = torch.where(of_things, shown.noun[of_patch.clamp(min=0)], similarity.shape[1])
    each = F.cross_entropy(logits, truth, reduction="none")
    return torch.stack([each[where].mean() for where in (of_things, of_nothing) if where.any()]).mean()


def _boxed(trainee: Trainee, batch: Batch, phase: Weighing) -> Losses:
    logits, iou = boxed_masks(trainee, batch)
    return _mask_losses(trainee, batch, logits, iou, _weight(batch, phase.absent_weight))


def _boxes(trainee: Trainee, batch: Batch, phase: Weighing) -> Losses:
    clip_tokens = clip_tokens_of(trainee, batch)
    prompts = prompts_of(trainee, batch, clip_tokens)
    return {
        **_prompt_losses(trainee, batch, prompts, _weight(batch, phase.absent_weight)),
        **_patch_losses(trainee, batch, _normalized(clip_tokens), phase),
    }


@torch.no_grad()
def _to_learn(trainee: Trainee, batch: Batch, clip_tokens: Tensor, per_image: int) -> Tensor:
    """Return the numbers (C,) of targets: half are those answered worst, half are spread evenly over the others.

    An image is encoded once for both, and an answer without a gradient costs less than one with: what is known already
    need not be learned again.
    """
    logits, estimate = prompted_masks(trainee, batch, prompts_of(trainee, batch, clip_tokens))
    truth = F.adaptive_avg_pool2d(batch.truth, trainee.preset.sam.mask_side)
    true_iou = losses.mask_iou(logits > 0, truth > 0.5)
    # Where there is nothing, the worst is to be sure of something.
    missed = torch.where(batch.absent, estimate.float().clamp(0, 1), 1 - true_iou)
    order = missed.argsort(descending=True, stable=True)
    count = min(per_image * len(batch.clip_image), len(order))
    worst, others = order[: count // 2], order[count // 2 :].sort().values
    spread = torch.arange(count - len(worst), device=order.device) * len(others) // (count - len(worst))
    return torch.cat([worst, others[spread]]).sort().values


def _masks(trainee: Trainee, batch: Batch, phase: Weighing) -> Losses:
    clip_tokens = clip_tokens_of(trainee, batch)
    if phase.learned_per_image:
        batch = replace(batch, image_embedding=_embedding(trainee, batch))
        batch = batch.of_targets(_to_learn(trainee, batch, clip_tokens, phase.learned_per_image))
        # What autocast has kept from a pass without gradients would take none in the next (PyTorch before 2.10).
        torch.clear_autocast_cache()
    weight = _weight(batch, phase.absent_weight)
    prompts = prompts_of(trainee, batch, clip_tokens)
    logits, iou = prompted_masks(trainee, batch, prompts)
    return {
        **_mask_losses(trainee, batch, logits, iou, weight),
        **_prompt_losses(trainee, batch, prompts, weight),
        **_patch_losses(trainee, batch, _normalized(clip_tokens), phase),
    }


_SIMILARITY = ("similarity_bce", "similarity_dice", "presence")
_MASK = ("mask_bce", "mask_dice", "mask_focal", "iou_mse")
_PROMPT = ("box_l1", "box_giou", "attention_bce", "attention_dice", *_SIMILARITY)

OBJECTIVES = {
    # CLIP's two towers alone say what a thing is.
    "close-ups": Objective(_close_up, ("thing_noun", "patch_noun"), targets="close-ups", uses_sam=False),
    # CLIP's two towers alone find the patches that a phrase means.
    "grounding": Objective(_grounding, (*_SIMILARITY, *PATCH_LOSSES), uses_sam=False),
    # SAM alone cuts out the thing in a given box.
    "boxed-masks": Objective(_boxed, _MASK, targets="things"),
    # The SSP encoder without SAM: boxes, and where it looks.
    "boxes": Objective(_boxes, (*_PROMPT, *PATCH_LOSSES), uses_sam=False),
    # The whole model.
    "masks": Objective(_masks, (*_MASK, *_PROMPT, *PATCH_LOSSES), chooses=True),
}
