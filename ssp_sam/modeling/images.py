"""From uint8 pixels on a padded square to normalised network input, on the device of the network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PixelNormalizer(nn.Module):
    """Normalises pixels and zeroes the padding *after* that, as both published encoders expect.

    mean_255, std_255: per channel, in units of 0..255.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean_255: tuple[float, float, float], std_255: tuple[float, float, float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean_255).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std_255).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor, size_hw: Tensor, offset_tl: Tensor) -> Tensor:
        """Return float32 (B, 3, H, W).

        pixels: uint8 (B, 3, H, W); size_hw, offset_tl: (B, 2), the part of the square that holds the image.
        """
        _, _, height, width = pixels.shape
        rows = torch.arange(height, device=pixels.device)
        cols = torch.arange(width, device=pixels.device)
        top, left = offset_tl[:, :1], offset_tl[:, 1:]
        inside_rows = (rows >= top) & (rows < top + size_hw[:, :1])  # (B, H)
        inside_cols = (cols >= left) & (cols < left + size_hw[:, 1:])  # (B, W)
        inside = inside_rows[:, None, :, None] & inside_cols[:, None, None, :]  # (B, 1, H, W)
        return (pixels.float() - self.mean) / self.std * inside
