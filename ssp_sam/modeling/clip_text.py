"""CLIP's text tower, as OpenAI's: pre-norm blocks in which a word reads the words before it.

The parameters have the names that `transformers` gives them. Its own module answers the same, but to import that takes
four seconds or more, nearly as long as to convert all networks of `tiny` for OpenVINO.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_sam.config import CONTEXT_LENGTH, VOCABULARY_SIZE, ClipConfig
from ssp_sam.modeling.layers import QuickGelu


class _Embeddings(nn.Module):
    """Vectors of tokens and of their positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(VOCABULARY_SIZE, width)
        self.position_embedding = nn.Embedding(CONTEXT_LENGTH, width)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Return (P, L, width) of token ids (P, L)."""
        out: Tensor = self.token_embedding(token_ids) + self.position_embedding.weight[: token_ids.shape[1]]
        return out


class _CausalAttention(nn.Module):
    """Self-attention of each position to itself and those before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Map (P, L, width) to the same shape."""
        q, k, v = (
            project(x).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (P, heads, L, d)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return out


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.activation, self.fc2 = nn.Linear(width, 4 * width), QuickGelu(), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to the same shape."""
        out: Tensor = self.fc2(self.activation(self.fc1(x)))
        return out


class _Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attn = _CausalAttention(width, heads)
        self.layer_norm1 = nn.LayerNorm(width)
        self.mlp = _Mlp(width)
        self.layer_norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (P, L, width) to the same shape."""
        x = x + self.self_attn(self.layer_norm1(x))
        out: Tensor = x + self.mlp(self.layer_norm2(x))
        return out


class _Blocks(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Block(config.text_width, config.text_heads) for _ in range(config.text_layers))

    def forward(self, x: Tensor) -> Tensor:
        """Map (P, L, width) to the same shape."""
        for layer in self.layers:
            x = layer(x)
        return x


class _Tower(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.embeddings = _Embeddings(config.text_width)
        self.encoder = _Blocks(config)
        self.final_layer_norm = nn.LayerNorm(config.text_width)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Return (P, L, width) of token ids (P, L)."""
        out: Tensor = self.final_layer_norm(self.encoder(self.embeddings(token_ids)))
        return out


class TextEncoder(nn.Module):
    """The network of Triton stage `text_encoder` (the tokenizer is `ssp_sam.tokenizer`)."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.tower = _Tower(config)
        self.text_projection = nn.Linear(config.text_width, config.out_width, bias=False)
        self._draw(config)

    def forward(self, token_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return text_embedding (P, C) and word_embeddings (P, L, T) of token_ids, an integer (P, L)."""
        token_ids = token_ids.long()
        words = self.tower(token_ids)  # (P, L, T), after the final LayerNorm
        # The end token has the largest id: its position sums up the phrase.
        end = words[torch.arange(words.shape[0], device=words.device), token_ids.argmax(dim=1)]
        return self.text_projection(end), words

    @torch.no_grad()
    def _draw(self, config: ClipConfig) -> None:
        """Draw random parameters as CLIP's authors do: what adds to the residual stream is the smaller the deeper."""
        std = config.text_width**-0.5
        std_onto_stream = std * (2 * config.text_layers) ** -0.5
        for name, parameter in self.named_parameters():
            if name.endswith("token_embedding.weight"):
                parameter.normal_(0.0, 0.02)
            elif name.endswith("position_embedding.weight"):
                parameter.normal_(0.0, 0.01)
            elif name.endswith(("self_attn.out_proj.weight", "mlp.fc2.weight")):
                parameter.normal_(0.0, std_onto_stream)
            elif name.endswith("mlp.fc1.weight"):
                parameter.normal_(0.0, 2**-0.5 * std)
            elif name.endswith(("_proj.weight", "text_projection.weight")):
                parameter.normal_(0.0, std)
            elif name.endswith("bias"):
                parameter.zero_()
