"""Heads of CLIP's image tower that look to a side.

"The dog left of the car" asks of a patch what is to the right of it. CLIP's image tower does not know the phrase, so it
has to say that of every patch, and heads drawn at random hardly find it: what they need to read of position and content
has to come together by chance. `look_to_sides` lets the heads of new blocks begin with it: each looks at the things on
one side, whatever they are, and answers what they are called. Their last projection stays zero, so that the tower
answers as before until it learns to use them.
"""

from __future__ import annotations

from itertools import cycle
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ssp_sam.errors import InvalidArgumentError
from ssp_sam.modeling.clip_image import ClipBlock, ClipImageEncoder
from ssp_sam.training.positions import CARRIED_WAVES, ridge, waves
from ssp_sam.training.targets import NOTHING

# What a head's logits rise by from a patch itself to one far on the head's side (and fall by to one far on the other),
# and from a patch that shows nothing to one that shows a thing.
SIDE_LOGITS, THING_LOGITS = 6.0, 6.0

# Patches this share of the image's side apart are as far apart as it matters.
FAR = 0.2


class Side(NamedTuple):
    """Where a head looks: how its logits rise with the rows and with the columns to another patch, by -1, 0 or 1."""

    rows: int
    cols: int


SIDES = (Side(0, 1), Side(0, -1), Side(1, 0), Side(-1, 0), Side(0, 0))
"""Right, left, down, up, and everywhere. Further heads begin with the first again."""


@torch.no_grad()
def look_to_sides(encoder: ClipImageEncoder, images: Tensor, geometry: Tensor, things: Tensor, names: Tensor) -> None:
    """Let the heads of the blocks that add nothing yet look to `SIDES`, one after the other.

    images: uint8 (B, 3, R, R); geometry: int (B, 4, 2), see `Geometry`; things: int (B, N), below 0 where a patch shows
    no thing; names: (T, C), what the things are called. Raises `InvalidArgumentError` if no block is new.
    """
    new = [block for block in encoder.blocks if isinstance(block, ClipBlock) and not block.attn.proj.weight.any()]
    if not new:
        raise InvalidArgumentError("all blocks of clip_image_encoder add something already; grow it by new ones")
    of_token = F.pad(things, (1, 0), value=NOTHING).flatten()
    shown = of_token >= 0
    places = F.pad(waves(encoder.config.grid, CARRIED_WAVES), (0, 0, 1, 0))  # the class token is nowhere
    sides = cycle(SIDES)
    for block in new:
        seen = _seen_by(encoder, block, images, geometry)
        place = ridge(seen, places.repeat(len(images), 1))
        thing = ridge(seen, shown.float()[:, None])
        width = block.attn.qkv.in_features // block.attn.heads
        called, called_offset = _names_in(seen[shown], names[of_token[shown]], width)
        for head in range(block.attn.heads):
            query, key, value = _rows_of(block, head)
            _look(query, key, next(sides), place, thing)
            told = called.shape[1]
            value.weight[:told], value.bias[:told] = called.T, called_offset


class _Rows(NamedTuple):
    """Weights (d, C) and biases (d,) of a head's queries, keys or values, which are written in place."""

    weight: Tensor
    bias: Tensor


def _rows_of(block: ClipBlock, head: int) -> tuple[_Rows, _Rows, _Rows]:
    layer = block.attn.qkv
    weight, bias = (part.view(3, block.attn.heads, -1, *part.shape[1:])[:, head] for part in (layer.weight, layer.bias))
    query, key, value = (_Rows(weight[which], bias[which]) for which in range(3))
    return query, key, value


def _look(query: _Rows, key: _Rows, side: Side, place: tuple[Tensor, Tensor], thing: tuple[Tensor, Tensor]) -> None:
    """Write queries and keys of a head that looks at things on a side.

    place: weights (C, 2 W) and offsets (2 W,) that read `waves`; thing: (C, 1) and (1,), that read whether a thing is
    there. Of what the products of waves make of "further on that side", what the head has room for is taken.
    """
    width, inputs = query.weight.shape
    parts = [(torch.zeros(inputs, 1), torch.ones(1), THING_LOGITS * thing[0], THING_LOGITS * thing[1])]
    for axis, sign in enumerate(side):
        if sign:
            own = slice(axis * CARRIED_WAVES, (axis + 1) * CARRIED_WAVES)
            read = torch.cat([torch.zeros(inputs, 1), place[0][:, own]], dim=1)  # the first is a constant
            offset = torch.cat([torch.ones(1), place[1][own]])
            left, size, right = torch.linalg.svd(_further(CARRIED_WAVES))
            count = min(width - 1, len(size))
            asked, told = sign * SIDE_LOGITS * left[:, :count] * size[:count], right[:count].T
            parts.append((read @ asked, offset @ asked, read @ told, offset @ told))
    for rows in (query, key):
        rows.weight.zero_()
        rows.bias.zero_()
    done = 0
    for asked, asked_offset, told, told_offset in parts:
        into = slice(done, done + asked.shape[1])
        query.weight[into], query.bias[into] = width**0.5 * asked.T, width**0.5 * asked_offset
        key.weight[into], key.bias[into] = told.T, told_offset
        done = into.stop


def _further(count: int, places: int = 64) -> Tensor:
    """Return (1 + W, 1 + W): f(a) @ it @ f(b) is about how much further b is along an axis than a, -1 to 1.

    f: a constant and the waves along that axis.
    """
    place = (torch.arange(places) + 0.5) / places
    distance = ((place[None] - place[:, None]) / FAR).clamp(-1, 1)
    of_axis = waves(places, count)[::places, :count]
    known = torch.linalg.pinv(torch.cat([torch.ones(places, 1), of_axis], dim=1))
    product: Tensor = known @ distance @ known.T
    return product


def _names_in(seen: Tensor, names: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return weights (C, K) and offsets (K,) that read from things (M, C) what differs most of names (M, D).

    K: `count`, or D if that is less.
    """
    called, _ = ridge(seen, names)
    read = seen @ called
    directions = torch.linalg.svd(read - read.mean(dim=0), full_matrices=False).Vh[:count]
    weights = called @ directions.T
    answers = seen @ weights
    scale = answers.std()
    return weights / scale, -answers.mean(dim=0) / scale


def _seen_by(encoder: ClipImageEncoder, block: ClipBlock, images: Tensor, geometry: Tensor) -> Tensor:
    """Return what a block's heads get of all tokens, (B * (1 + N), C)."""
    kept: list[Tensor] = []
    hook = block.ln_1.register_forward_hook(lambda module, given, answer: kept.append(answer.float()))
    try:
        encoder(images, geometry[:, 2], geometry[:, 3])
    finally:
        hook.remove()
    return kept[0].flatten(0, 1)
