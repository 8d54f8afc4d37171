"""The forward pass of `segment_anything`'s mask decoder for phrases of many images. The weights are the package's own.

The package takes many prompts of one image and treats every prompt's copy of it apart from the start. Here

- what the first layer makes of the image alone is computed once an image, not once a phrase;
- positions, which are the same for all phrases, are projected once instead of being added to every copy;
- attention is one fused operation, or where pixels ask few tokens, two matrix products that leave the pixels in one
  piece;
- the transposed convolutions, which have no overlap, are matrix products with the channels last, and only the mask
  itself is brought into the order of pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from segment_anything.modeling import MaskDecoder, TwoWayTransformer
from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F


class SeenImage(NamedTuple):
    """What the first layer makes of B images before it knows of a phrase.

    keys: (B, N, d), which tokens are compared with; asking: (B, N, d), what is compared with tokens; values: (B, N, d);
    pixels: (B, N, D).
    """

    keys: Tensor
    asking: Tensor
    values: Tensor
    pixels: Tensor


def see(decoder: MaskDecoder, image: Tensor, position: Tensor) -> SeenImage:
    """Return what `decode` needs of images.

    image: (B, D, G, G), the dense prompt added; position: (1, D, G, G).
    """
    pixels = _tokens_of(image)
    return SeenImage(*_project(decoder.transformer.layers[0], pixels, _tokens_of(position)), pixels)


def decode(
    decoder: MaskDecoder, seen: SeenImage, position: Tensor, prompt_tokens: Tensor, image_index: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the logits of the single mask (P, 4G, 4G) and the estimate of its IoU (P,).

    seen: what `see` says of B images; position: (1, D, G, G); prompt_tokens: (P, Q, D); image_index: int (P,), the
    image of each phrase.
    """
    grid = position.shape[-1]
    own_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])  # (1 + 4, D)
    tokens = torch.cat([own_tokens.expand(prompt_tokens.shape[0], -1, -1), prompt_tokens], dim=1)  # (P, 5 + Q, D)
    of_phrases = SeenImage(*(each[image_index] for each in seen))
    hidden, pixels = _transform(decoder.transformer, of_phrases, _tokens_of(position), tokens)
    # Token 0 answers IoU estimates, token 1 is the single mask; the other three are SAM's ambiguity outputs.
    kernel = decoder.output_hypernetworks_mlps[0](hidden[:, 1])  # (P, D / 8)
    logits = _logits(decoder.output_upscaling, pixels, kernel, grid)
    return logits, decoder.iou_prediction_head(hidden[:, 0])[:, 0]


def _tokens_of(image: Tensor) -> Tensor:
    return image.flatten(2).transpose(1, 2)  # (B, D, G, G) -> (B, N, D)


def _transform(
    transformer: TwoWayTransformer, seen: SeenImage, position: Tensor, tokens: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what becomes of the tokens (P, T, D) and of each phrase's image (P, N, D); position: (1, N, D)."""
    first, *others = transformer.layers
    hidden, pixels = _layer(first, tokens, tokens, seen)
    for layer in others:
        hidden, pixels = _layer(layer, hidden, tokens, SeenImage(*_project(layer, pixels, position), pixels))
    final = transformer.final_attn_token_to_image
    keys = _placed(final.k_proj, pixels, position)
    hidden = hidden + _attend(final, final.q_proj(hidden + tokens), keys, final.v_proj(pixels))
    return transformer.norm_final_attn(hidden), pixels


def _layer(layer: TwoWayAttentionBlock, hidden: Tensor, tokens: Tensor, seen: SeenImage) -> tuple[Tensor, Tensor]:
    """Advance tokens (P, T, D) and image (P, N, D); tokens: what is added to the former to compare them."""
    to_image, to_tokens, own = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token, layer.self_attn
    if layer.skip_first_layer_pe:
        hidden = layer.norm1(_attend(own, own.q_proj(hidden), own.k_proj(hidden), own.v_proj(hidden)))
    else:
        placed = hidden + tokens
        hidden = layer.norm1(hidden + _attend(own, own.q_proj(placed), own.k_proj(placed), own.v_proj(hidden)))

    hidden = layer.norm2(hidden + _attend(to_image, to_image.q_proj(hidden + tokens), seen.keys, seen.values))
    hidden = layer.norm3(hidden + layer.mlp(hidden))
    told = _attend_to_few if _are_few(to_tokens, hidden.shape[1]) else _attend
    said = told(to_tokens, seen.asking, to_tokens.k_proj(hidden + tokens), to_tokens.v_proj(hidden))
    return hidden, layer.norm4(seen.pixels + said)


def _project(layer: TwoWayAttentionBlock, pixels: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a layer's keys, askings and values of pixels (P, N, D)."""
    to_image, to_tokens = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
    keys, asking = (_placed(each, pixels, position) for each in (to_image.k_proj, to_tokens.q_proj))
    return keys, asking, to_image.v_proj(pixels)


def _placed(projection: nn.Linear, pixels: Tensor, position: Tensor) -> Tensor:
    """Project pixels (P, N, D) with their positions (1, N, D) added."""
    placed: Tensor = F.linear(pixels, projection.weight) + projection(position)
    return placed


def _attend(attention: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend with projected queries (P, T, d), keys and values (P, S, d), and project the answer."""
    q, k, v = (x.view(*x.shape[:2], attention.num_heads, -1).transpose(1, 2) for x in (q, k, v))
    attended = F.scaled_dot_product_attention(q, k, v)
    out: Tensor = attention.out_proj(attended.transpose(1, 2).flatten(2))
    return out


def _are_few(attention: Attention, keys: int) -> bool:
    """Say whether `_attend_to_few` is the faster: it multiplies as often as if the keys were those of all heads."""
    heads, width = int(attention.num_heads), int(attention.internal_dim)
    return heads * keys <= 2 * width


def _attend_to_few(attention: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Do the same as `_attend` for many queries and few keys.

    Instead of cutting queries and answers into heads, each head gets keys with zeros in the other heads' channels, and
    the last projection is applied to its values.
    """
    heads, width = attention.num_heads, q.shape[-1]
    own = torch.eye(heads, dtype=q.dtype, device=q.device).repeat_interleave(width // heads, dim=1)  # (H, d)
    keys = (k[:, None] * (own * (width // heads) ** -0.5)[:, None]).flatten(1, 2)  # (P, H S, d)
    scores = (keys @ q.transpose(1, 2)).unflatten(1, (heads, -1))  # (P, H, S, T)
    answers = F.linear((v[:, None] * own[:, None]).flatten(1, 2), attention.out_proj.weight)  # (P, H S, D)
    out: Tensor = scores.softmax(dim=2).flatten(1, 2).transpose(1, 2) @ answers + attention.out_proj.bias
    return out


def _logits(upscaling: Iterable[Any], pixels: Tensor, kernel: Tensor, grid: int) -> Tensor:
    """Return (P, 4G, 4G): the kernel's product with each of the 16 places into which a pixel (P, N, D) is cut."""
    first, norm, activation, second, last_activation = upscaling
    phrases, count, width = pixels.shape
    x = _cut(first, pixels).view(phrases, count, 4, width // 4)
    x = activation(F.layer_norm(x, norm.weight.shape, norm.weight, norm.bias, norm.eps))
    x = last_activation(_cut(second, x))  # (P, N, 4, D / 2)
    places = torch.eye(16, dtype=x.dtype, device=x.device)
    kernels = (places[:, None] * kernel[:, None, :, None]).flatten(1, 2)  # (P, 16 * D / 8, 16), one a place
    cells: Tensor = x.view(phrases, count, 2 * width) @ kernels
    # Rows are counted by pixel, then by the first cut, then by the second; columns as well.
    cells = cells.view(-1, grid, grid, 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4, 6)
    return cells.reshape(-1, 4 * grid, 4 * grid)


def _cut(layer: Any, x: Tensor) -> Tensor:
    """Apply a transposed convolution of 2 x 2 with stride 2 to places (..., C): (..., 4 C'), row by row."""
    weight = layer.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (C, C', 2, 2) -> (4 C', C)
    return F.linear(x, weight, layer.bias.repeat(4))
