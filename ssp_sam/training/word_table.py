"""The rows of the token table that a run can change, without the tens of thousands that it cannot."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_sam.data.wording import LAST_MARKS, words
from ssp_sam.modeling.ssp_sam import SspSam
from ssp_sam.tokenizer import tokenize

IN_EVERY_PHRASE = (0, 269, 49406, 49407)
"""Padding, the full stop that ends every phrase, start and end: they tell nothing."""


class WordsInUse(nn.Embedding):
    """A token table of which some rows alone are parameters, so that gradient, optimizer and average have no others.

    Saved and loaded it is the whole table. The other rows stay as they are.

    Args:
        table: (V, T).
        token_ids: int64 (K,), the rows that are trained, each once.
    """

    def __init__(self, table: Tensor, token_ids: Tensor) -> None:
        super().__init__(len(token_ids), table.shape[1], _weight=table[token_ids].clone())
        self.token_ids: Tensor
        self.table: Tensor
        self.row: Tensor
        self.register_buffer("token_ids", token_ids, persistent=False)
        self.register_buffer("table", table.clone(), persistent=False)
        row = torch.full((len(table),), -1)
        row[token_ids] = torch.arange(len(token_ids))
        self.register_buffer("row", row, persistent=False)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Map int (...) to (..., T)."""
        row = self.row[token_ids]
        trained = F.embedding(row.clamp(min=0), self.weight)
        return torch.where(row[..., None] >= 0, trained, self.table[token_ids])

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        whole = self.table.clone()
        whole[self.token_ids] = self.weight.detach()
        destination[prefix + "weight"] = whole

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        whole = state_dict.get(prefix + "weight")
        if whole is not None:
            self.table.copy_(whole)
            state_dict = {**state_dict, prefix + "weight": whole[self.token_ids]}
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def tokens_of_scenes() -> list[int]:
    """Return every token that a phrase about a scene can have, in rising order, padding, start and end included."""
    # Between others: at the end a comma would become one with the full stop that every phrase gets. These do.
    texts = [f"the {word} the" for word in words()] + [f"the{mark}" for mark in LAST_MARKS]
    return sorted({int(token) for text in texts for token in tokenize([text])[0]})


def train_only_words_of_scenes(model: SspSam) -> None:
    """Make parameters of those rows of the token table alone that phrases about scenes use.

    Rows of zeros among them are of words that no run has read so far; they are drawn, so that these words differ. Those
    of what is in every phrase may begin as zeros (see `draw_weights`).

    What a run on scenes learns is the same, for no other row ever has a gradient. But filling gradients of the table's
    49,408 rows with zeros took 63 of the 450 ms in which `tiny`'s two encoders went forward and back through 12 images
    (PyTorch's profiler, one thread).
    """
    embeddings = model.text_encoder.tower.embeddings
    table = embeddings.token_embedding.weight.detach()
    token_ids = torch.tensor(tokens_of_scenes())
    tells_something = ~torch.isin(token_ids, torch.tensor(IN_EVERY_PHRASE))
    unread = token_ids[(table[token_ids] == 0).all(dim=1) & tells_something]
    table[unread] = torch.randn(len(unread), table.shape[1], device=table.device)
    embeddings.token_embedding = WordsInUse(table, token_ids)
