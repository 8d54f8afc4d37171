"""The mask decoder for phrases of many images, against the package's own forward pass of the same weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ssp_sam.config import SamConfig, get_preset
from ssp_sam.modeling.sam import MaskDecoder

TINY = get_preset("tiny").sam
SMALL = replace(get_preset("mini224").sam, image_side_px=128)  # the published decoder on a small grid


def by_the_package(ours: MaskDecoder, embedding: Tensor, prompts: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Answer each phrase alone, as `segment_anything` does."""
    grid = ours.config.grid
    logits, ious = [], []
    for prompt, image in zip(prompts, index.tolist(), strict=True):
        masks, iou = ours.decoder(
            image_embeddings=embedding[image : image + 1],
            image_pe=ours.pe_layer((grid, grid))[None],
            sparse_prompt_embeddings=prompt[None],
            dense_prompt_embeddings=ours.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(1, -1, grid, grid),
            multimask_output=False,
        )
        logits.append(masks[0, 0])
        ious.append(iou[0, 0])
    return torch.stack(logits), torch.stack(ious)


@pytest.mark.parametrize(
    ("config", "count"), [(TINY, 7), (SMALL, 7), (SMALL, 64)], ids=["tiny", "published, few prompts", "published"]
)
def test_it_computes_what_the_package_computes(config: SamConfig, count: int) -> None:
    torch.manual_seed(0)
    decoder = MaskDecoder(config).eval().requires_grad_(False)
    embedding = torch.randn(3, config.out_channels, config.grid, config.grid)
    prompts, index = torch.randn(5, count, config.out_channels), torch.tensor([2, 0, 0, 1, 2])
    for ours, theirs in zip(
        decoder(embedding, prompts, index), by_the_package(decoder, embedding, prompts, index), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_gradients_are_those_of_the_package() -> None:
    torch.manual_seed(0)
    decoder = MaskDecoder(TINY)
    embedding, prompts = torch.randn(1, 128, 32, 32), torch.randn(2, 4, 128)
    index = torch.zeros(2, dtype=torch.long)
    gradients = []
    for compute in (decoder, lambda *inputs: by_the_package(decoder, *inputs)):
        decoder.zero_grad()
        logits, iou = compute(embedding, prompts, index)
        (logits.square().mean() + iou.sum()).backward()
        gradients.append({name: p.grad.clone() for name, p in decoder.named_parameters() if p.grad is not None})
    ours, theirs = gradients
    for name, gradient in theirs.items():
        wanted = gradient.abs().max().item()
        # The package also computes the three masks that nobody asked for; they get no gradient.
        got = ours.get(name, torch.zeros_like(gradient))
        torch.testing.assert_close(got, gradient, rtol=1e-3, atol=1e-3 * wanted + 1e-6, msg=name)
