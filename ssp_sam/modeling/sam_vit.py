"""The forward pass of `segment_anything`'s image encoder, with fused attention. The weights are the package's own.

The package writes out every attention matrix, adds the relative positions to it and normalises it, each in a pass over
memory of its own. It also projects the padding that its windows need (4,900 tokens for 4,096). Here attention is one
fused operation, with the relative positions as its bias, and the padding, whose queries, keys and values are the
projection's bias, is not computed.
"""

from __future__ import annotations

import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import Attention, Block, get_rel_pos
from torch import Tensor
from torch.nn import functional as F

# Entries of a square's bias of relative positions that are held at once: with ViT-H, those of two of a global block's
# heads.
BIAS_ENTRIES_MAX = 2**25


def encode(vit: ImageEncoderViT, pixels: Tensor) -> Tensor:
    """Return what `vit(pixels)` returns: (B, D, G, G) of normalised pixels (B, 3, S, S)."""
    x = vit.patch_embed(pixels) + vit.pos_embed  # (B, G, G, width)
    for block in vit.blocks:
        x = _block(block, x)
    out: Tensor = vit.neck(x.permute(0, 3, 1, 2))
    return out


def _block(block: Block, x: Tensor) -> Tensor:
    x = x + _attention(block.attn, block.norm1(x), block.window_size)
    out: Tensor = x + block.mlp(block.norm2(x))
    return out


def _attention(attn: Attention, x: Tensor, window: int) -> Tensor:
    """Map (B, H, W, C) to the same shape; window: side of the squares that attend to themselves, 0 for all at once."""
    batch, height, width, channels = x.shape
    qkv = attn.qkv(x)  # (B, H, W, 3 C)
    if window:
        qkv = _windows(_padded(qkv, attn.qkv.bias, window), window)
    squares, rows, cols, _ = qkv.shape
    qkv = qkv.view(squares, rows * cols, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
    attended = _attend(attn, qkv, rows, cols)  # (squares, heads, rows * cols, d)
    attended = attended.transpose(1, 2).reshape(squares, rows, cols, channels)
    if window:
        attended = _joined(attended, batch, height, width)
    out: Tensor = attn.proj(attended)
    return out


def _attend(attn: Attention, qkv: Tensor, rows: int, cols: int) -> Tensor:
    """Attend within each square; qkv: (3, squares, heads, rows * cols, d)."""
    if not attn.use_rel_pos:
        q, k, v = qkv
        return F.scaled_dot_product_attention(q, k, v)
    of_rows = get_rel_pos(rows, rows, attn.rel_pos_h)  # (rows, rows, d), query by key
    of_cols = get_rel_pos(cols, cols, attn.rel_pos_w)
    heads = max(1, BIAS_ENTRIES_MAX // (rows * cols) ** 2)
    parts = [
        F.scaled_dot_product_attention(q, k, v, attn_mask=_bias(q, of_rows, of_cols))
        for q, k, v in torch.split(qkv, heads, dim=2)
    ]
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


def _bias(q: Tensor, of_rows: Tensor, of_cols: Tensor) -> Tensor:
    """Return what relative positions add to attention's logits: (squares, heads, n, n) of q (squares, heads, n, d).

    It is the query's product with an embedding of how many rows, and one of how many columns, the key is away.
    """
    placed = q.view(*q.shape[:2], len(of_rows), len(of_cols), -1)
    by_row = torch.einsum("shrcd,rkd->shrck", placed, of_rows)
    by_col = torch.einsum("shrcd,ckd->shrck", placed, of_cols)
    return (by_row[..., :, None] + by_col[..., None, :]).flatten(4).flatten(2, 3)


def _padded(qkv: Tensor, bias: Tensor, window: int) -> Tensor:
    """Return (B, H', W', 3 C) of whole windows; what is added is the projection of zeros."""
    batch, height, width, channels = qkv.shape
    below, right = -height % window, -width % window
    if not below and not right:
        return qkv
    out = bias.to(qkv.dtype).expand(batch, height + below, width + right, channels).clone()
    out[:, :height, :width] = qkv
    return out


def _windows(x: Tensor, window: int) -> Tensor:
    """Cut (B, H', W', C) into (B * windows, window, window, C)."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // window, window, width // window, window, channels)
    return x.transpose(2, 3).reshape(-1, window, window, channels)


def _joined(x: Tensor, batch: int, height: int, width: int) -> Tensor:
    """Undo `_windows` and drop the padding."""
    window, channels = x.shape[1], x.shape[3]
    down, across = -(-height // window), -(-width // window)
    x = x.view(batch, down, across, window, window, channels).transpose(2, 3)
    return x.reshape(batch, down * window, across * window, channels)[:, :height, :width]
