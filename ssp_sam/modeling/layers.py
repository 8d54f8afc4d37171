"""Small layers that several stages share."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class QuickGelu(nn.Module):
    """CLIP's activation: a sigmoid approximation of GELU, which its weights were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        """Return an array of the same shape."""
        return x * torch.sigmoid(1.702 * x)


class Mlp(nn.Module):
    """Linear layers with ReLU between them (none after the last)."""

    def __init__(self, in_width: int, hidden_width: int, out_width: int, layers: int) -> None:
        super().__init__()
        widths = [in_width, *[hidden_width] * (layers - 1), out_width]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    @property
    def first(self) -> nn.Linear:
        """The first layer."""
        layer = self.layers[0]
        assert isinstance(layer, nn.Linear)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_width) to (..., out_width)."""
        return self.after_first(self.first(x))

    def after_first(self, x: Tensor) -> Tensor:
        """Map what the first layer answers, which is overwritten, to (..., out_width)."""
        for layer in self.layers[1:]:
            x = layer(F.relu(x, inplace=True))
        return x
