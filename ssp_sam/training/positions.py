"""Positions that CLIP's image tower can read.

A patch's content grows while CLIP learns nouns, its positional embedding does not, and what blocks add to it grows
from block to block. Once positions are a twentieth of the content, no block tells left from right any more, and
training does not bring that back in thousands of steps. `add_waves` makes them readable where the tower begins,
`carry_waves` beyond each block.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ssp_sam.modeling.clip_image import ClipBlock, ClipImageEncoder
from ssp_sam.modeling.layers import QuickGelu

# Waves along an axis; the second are those that blocks carry.
WAVES, CARRIED_WAVES = 8, 4

# How far a wave swings in a positional embedding; a channel of what CLIP's first layer makes of the patches of `tiny`'s
# scenes deviates by 5 from its mean.
AMPLITUDE = 4.0

# The same beyond a block, as a share of the deviation of all that the block answers.
CARRIED_SHARE = 0.5

# Where QuickGELU is nearly the identity: a carrier works around it.
_LINEAR_AT = 4.0

_RIDGE = 1e-3


def waves(grid: int, count: int) -> Tensor:
    """Return (grid * grid, 2 * count) cosines, the first half along rows; the mean square of each is about 1."""
    place = (torch.arange(grid) + 0.5) / grid
    own = torch.stack([(torch.pi * (number + 1) * place).cos() for number in range(count)], dim=1)
    by_row, by_col = own[:, None].expand(-1, grid, -1), own[None].expand(grid, -1, -1)
    return 2**0.5 * torch.cat([by_row, by_col], dim=2).flatten(0, 1)


@torch.no_grad()
def add_waves(encoder: ClipImageEncoder, images: Tensor, geometry: Tensor) -> None:
    """Add waves to the positional embeddings, in the directions that the patches of images use least.

    images: uint8 (B, 3, R, R); geometry: int (B, 4, 2), see `Geometry`.
    In those directions nothing hides the waves, and they disturb little of what the tower has learned.
    """
    pixels = encoder.normalize(images, geometry[:, 2], geometry[:, 3])
    contents = encoder.conv1(pixels).flatten(2).mT.flatten(0, 1)  # (B * N, width)
    added = AMPLITUDE * waves(encoder.config.grid, WAVES)
    encoder.positional_embedding[1:] += added @ _least_used(contents, added.shape[1]).T


@torch.no_grad()
def carry_waves(encoder: ClipImageEncoder, images: Tensor, geometry: Tensor) -> None:
    """Let a few hidden units of each block before the two streams read the waves and write them, larger, to its answer.

    images, geometry: as for `add_waves`. The units are those whose answers matter least; their mean answer stays.
    """
    truth = waves(encoder.config.grid, CARRIED_WAVES).repeat(len(images), 1)  # (B * N, W)
    for block in encoder.blocks[: encoder.config.layers - encoder.config.surgery_layers]:
        assert isinstance(block, ClipBlock)
        seen, hidden, answer = _within(encoder, block, images, geometry)
        read, offset = ridge(seen, truth)
        write = CARRIED_SHARE * answer.std() * _least_used(answer, truth.shape[1])  # (width, W)
        first, last = block.mlp[0], block.mlp[2]
        assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
        units = (hidden.std(dim=0) * last.weight.norm(dim=0)).argsort()[: truth.shape[1]]
        last.bias.add_(last.weight[:, units] @ hidden.mean(dim=0)[units] - _LINEAR_AT * write.sum(dim=1))
        first.weight[units], first.bias[units] = read.T, offset + _LINEAR_AT
        last.weight[:, units] = write


def _within(
    encoder: ClipImageEncoder, block: ClipBlock, images: Tensor, geometry: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return of all patches what a block's MLP gets, what its hidden units answer, and the block: (B * N, C)."""
    kept: dict[str, Tensor] = {}

    def keep(name: str, value: Any) -> None:
        kept[name] = value[:, 1:].float().flatten(0, 1)

    gelu = block.mlp[1]
    assert isinstance(gelu, QuickGelu)
    hooks = [
        block.ln_2.register_forward_hook(lambda module, given, answer: keep("seen", answer)),
        gelu.register_forward_hook(lambda module, given, answer: keep("hidden", answer)),
        block.register_forward_hook(lambda module, given, answer: keep("answer", answer[0])),
    ]
    try:
        encoder(images, geometry[:, 2], geometry[:, 3])
    finally:
        for hook in hooks:
            hook.remove()
    return kept["seen"], kept["hidden"], kept["answer"]


def ridge(inputs: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights (C, W) and offsets (W,) with which inputs (M, C) tell truth (M, W) best."""
    centre = inputs.mean(dim=0)
    centred = inputs - centre
    penalty = _RIDGE * len(inputs) * torch.eye(inputs.shape[1])
    weights = torch.linalg.solve(centred.T @ centred + penalty, centred.T @ truth)
    return weights, -centre @ weights


def _least_used(values: Tensor, count: int) -> Tensor:
    """Return `count` unit vectors, as columns, along which values (M, C) vary least."""
    directions: Tensor = torch.linalg.eigh(torch.cov(values.T)).eigenvectors  # eigenvalues rise
    return directions[:, :count]
