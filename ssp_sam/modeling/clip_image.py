"""CLIP's image tower with "surgery": patch tokens that still say where a thing is.

The tower is OpenAI's. In its last blocks a second stream runs beside the ordinary one, attends with values alone (a
patch to patches like itself) and has no MLP; the class token is taken from the ordinary stream, the patch tokens from
the second.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_sam.config import ClipConfig
from ssp_sam.modeling.images import PixelNormalizer
from ssp_sam.modeling.layers import QuickGelu

CLIP_MEAN_255 = (0.48145466 * 255, 0.4578275 * 255, 0.40821073 * 255)
CLIP_STD_255 = (0.26862954 * 255, 0.26130258 * 255, 0.27577711 * 255)


class SurgeryAttention(nn.Module):
    """Self-attention whose projections serve both streams."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, with_second_stream: bool) -> tuple[Tensor, Tensor | None]:
        """Map (B, 1+N, width) to the ordinary attention's answer, and the values-only one's if asked for."""
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # each (B, heads, 1+N, d)
        ordinary = self._project(F.scaled_dot_product_attention(q, k, v))
        second = self._project(F.scaled_dot_product_attention(v, v, v)) if with_second_stream else None
        return ordinary, second

    def _project(self, x: Tensor) -> Tensor:
        out: Tensor = self.proj(x.transpose(1, 2).flatten(2))  # (B, 1+N, width)
        return out


class ClipBlock(nn.Module):
    """A pre-norm transformer block of CLIP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = SurgeryAttention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), QuickGelu(), nn.Linear(4 * width, width))

    def forward(self, ordinary: Tensor, second: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Advance the ordinary stream, and the second one if it has begun."""
        attended, values_only = self.attn(self.ln_1(ordinary), with_second_stream=second is not None)
        if second is not None:
            second = second + values_only
        ordinary = ordinary + attended
        return ordinary + self.mlp(self.ln_2(ordinary)), second


class ClipImageEncoder(nn.Module):
    """Triton stage `clip_image_encoder`."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        width, std = config.width, config.width**-0.5
        self.config = config
        self.normalize = PixelNormalizer(CLIP_MEAN_255, CLIP_STD_255)
        self.conv1 = nn.Conv2d(3, width, config.patch_px, stride=config.patch_px, bias=False)
        self.class_embedding = nn.Parameter(torch.normal(0.0, std, (width,)))
        self.positional_embedding = nn.Parameter(torch.normal(0.0, std, (1 + config.patches, width)))
        self.ln_pre = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(ClipBlock(width, config.heads) for _ in range(config.layers))
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.normal(0.0, std, (width, config.out_width)))

    def forward(self, clip_image: Tensor, size_hw: Tensor, offset_tl: Tensor) -> Tensor:
        """Return clip_tokens (B, 1+N, C), the class token first.

        clip_image: uint8 (B, 3, R, R); size_hw, offset_tl: int (B, 2), where on the square the image lies.
        """
        return self.encode(self.normalize(clip_image, size_hw, offset_tl), self.positional_embedding)

    def encode(self, pixels: Tensor, position: Tensor) -> Tensor:
        """Return clip_tokens (B, 1+n, C) of normalised pixels (B, 3, H, W) of n patches.

        position: (1+n, width), the positional embeddings of the class token and of these patches.
        """
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)  # (B, n, width)
        class_token = self.class_embedding.expand(patches.shape[0], 1, -1)  # `len` would be a constant to a tracer
        ordinary = self.ln_pre(torch.cat([class_token, patches], dim=1) + position)
        second: Tensor | None = None
        for index, block in enumerate(self.blocks):
            if index == self.config.layers - self.config.surgery_layers:
                second = ordinary
            ordinary, second = block(ordinary, second)
        assert second is not None
        tokens = torch.cat([ordinary[:, :1], second[:, 1:]], dim=1)
        out: Tensor = self.ln_post(tokens) @ self.proj
        return out
