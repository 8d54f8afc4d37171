"""SAM's image encoder with fused attention, against the package's own forward pass of the same weights."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from ssp_sam.config import SamConfig, get_preset
from ssp_sam.modeling import sam_vit
from ssp_sam.modeling.sam import SamImageEncoder

TINY = get_preset("tiny").sam
# 5 x 5 patches in windows of 3 x 3: padding below and on the right.
PADDED = replace(TINY, image_side_px=40, window=3)
WITHOUT_WINDOWS = replace(TINY, image_side_px=64, global_blocks=(0, 1, 2, 3))


def encoder(config: SamConfig) -> SamImageEncoder:
    """Return an encoder in which nothing that could be wrong is zero."""
    torch.manual_seed(0)
    made = SamImageEncoder(config).eval().requires_grad_(False)
    for name, parameter in made.named_parameters():
        if "pos" in name or name.endswith("bias"):
            nn.init.normal_(parameter, std=0.3)
    return made


@pytest.mark.parametrize("config", [TINY, PADDED, WITHOUT_WINDOWS], ids=["tiny", "padded windows", "no windows"])
def test_it_computes_what_the_package_computes(config: SamConfig) -> None:
    vit = encoder(config).vit
    pixels = torch.randn(2, 3, config.image_side_px, config.image_side_px)
    torch.testing.assert_close(sam_vit.encode(vit, pixels), vit(pixels), rtol=1e-4, atol=1e-4)


def test_heads_one_after_the_other_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    vit = encoder(TINY).vit
    pixels = torch.randn(1, 3, 256, 256)
    at_once = sam_vit.encode(vit, pixels)
    monkeypatch.setattr(sam_vit, "BIAS_ENTRIES_MAX", 1)
    torch.testing.assert_close(sam_vit.encode(vit, pixels), at_once, rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_the_package() -> None:
    vit = encoder(PADDED).vit.requires_grad_(True)
    pixels = torch.randn(1, 3, 40, 40)
    gradients = []
    for answer in (vit(pixels), sam_vit.encode(vit, pixels)):
        vit.zero_grad()
        answer.square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in vit.parameters()])
    for theirs, ours in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-2 * theirs.abs().max().item())


def test_bfloat16_stays_close() -> None:
    vit = encoder(TINY).vit
    pixels = torch.randn(1, 3, 256, 256)
    with torch.autocast("cpu", torch.bfloat16):
        rough = sam_vit.encode(vit, pixels).float()
    assert nn.functional.cosine_similarity(rough.flatten(), vit(pixels).flatten(), dim=0) > 0.999


def test_no_more_of_the_package_is_imported_than_the_model_is_made_of() -> None:
    """In a process of its own; afterwards all of the package can still be imported, with the same classes."""
    script = """if True:
        import sys
        import ssp_sam.modeling.sam as ours
        assert "torchvision" not in sys.modules
        import segment_anything
        from segment_anything.modeling import ImageEncoderViT
        assert segment_anything.SamPredictor and ours.ImageEncoderViT is ImageEncoderViT
    """
    subprocess.run([sys.executable, "-c", script], check=True)
