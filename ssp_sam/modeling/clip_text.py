"""CLIP's text tower, from `transformers`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from ssp_sam.config import CONTEXT_LENGTH, VOCABULARY_SIZE, ClipConfig


class TextEncoder(nn.Module):
    """The network of Triton stage `text_encoder` (the tokenizer is `ssp_sam.tokenizer`)."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        tower = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=VOCABULARY_SIZE,
                hidden_size=config.text_width,
                intermediate_size=4 * config.text_width,
                num_hidden_layers=config.text_layers,
                num_attention_heads=config.text_heads,
                max_position_embeddings=CONTEXT_LENGTH,
                hidden_act="quick_gelu",
            )
        )
        # transformers 4 wraps the tower once more than transformers 5; unwrapped, both have the same parameter names.
        self.tower = getattr(tower, "text_model", tower)
        self.text_projection = nn.Linear(config.text_width, config.out_width, bias=False)

    def forward(self, token_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return text_embedding (P, C) and word_embeddings (P, L, T) of token_ids, an integer (P, L)."""
        token_ids = token_ids.long()
        words = self.tower(input_ids=token_ids).last_hidden_state  # (P, L, T), after the final LayerNorm
        # The end token has the largest id: its position sums up the phrase.
        end = words[torch.arange(words.shape[0], device=words.device), token_ids.argmax(dim=1)]
        return self.text_projection(end), words
