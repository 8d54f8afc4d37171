"""Gives a checkpoint's CLIP towers the width that its preset has had since.

New channels of what runs through a tower's blocks are never written to begin with, and new heads and hidden units
count for nothing: what the checkpoint has learned stays. A LayerNorm over more channels divides by another deviation,
which its gains make good, and subtracts another mean, so whatever writes to the channels is first made to have none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum, auto

import torch
from torch import Tensor

from ssp_sam.modeling.ssp_sam import SspSam


class _Role(Enum):
    """What a parameter does with a tower's channels."""

    WRITES = auto()  # the channels are its rows; its columns, if any, are pixels, heads or hidden units
    HOLDS = auto()  # one row of channels for each of its rows
    GAIN = auto()
    SHIFT = auto()
    READS = auto()
    READS_THRICE = auto()  # queries, keys and values, one below the other
    ANSWERS = auto()  # its rows are what leaves the tower: nothing new does, whatever new columns are
    TAKES = auto()  # its columns are what left the tower


_ROLES = {
    r"clip_image_encoder\.conv1\.weight": _Role.WRITES,
    r"clip_image_encoder\.class_embedding": _Role.WRITES,
    r"clip_image_encoder\.positional_embedding": _Role.HOLDS,
    r"clip_image_encoder\.(blocks\.\d+\.)?ln_\w+\.weight": _Role.GAIN,
    r"clip_image_encoder\.(blocks\.\d+\.)?ln_\w+\.bias": _Role.SHIFT,
    r"clip_image_encoder\.blocks\.\d+\.attn\.qkv\..+": _Role.READS_THRICE,
    r"clip_image_encoder\.blocks\.\d+\.mlp\.0\..+": _Role.READS,
    r"clip_image_encoder\.blocks\.\d+\.(attn\.proj|mlp\.2)\..+": _Role.WRITES,
    r"clip_image_encoder\.proj": _Role.READS,
    r"text_encoder\.tower\.embeddings\..+": _Role.HOLDS,
    r"text_encoder\.tower\..*norm\d?\.weight": _Role.GAIN,
    r"text_encoder\.tower\..*norm\d?\.bias": _Role.SHIFT,
    r"text_encoder\.tower\..*(q_proj|k_proj|v_proj|fc1)\..+": _Role.READS,
    r"text_encoder\.tower\..*(out_proj|fc2)\..+": _Role.WRITES,
    r"text_encoder\.text_projection\.weight": _Role.ANSWERS,
    r"ssp_prompt_generator\.(linguistic\.project|visual\.project\.layers\.0)\.weight": _Role.TAKES,
}


@torch.no_grad()
def widen(parameters: Mapping[str, Tensor], model: SspSam) -> dict[str, Tensor]:
    """Return the parameters with those of CLIP's towers, and what reads them, as wide as the model's."""
    wide = model.state_dict()
    return {name: _widened(name, value, wide.get(name, value)) for name, value in parameters.items()}


def _widened(name: str, value: Tensor, fresh: Tensor) -> Tensor:
    """Return the parameter `name` in the shape of `fresh`, what the model has there before it learns."""
    role = next((role for pattern, role in _ROLES.items() if re.fullmatch(pattern, name)), None)
    is_smaller = value.ndim == fresh.ndim and all(a <= b for a, b in zip(value.shape, fresh.shape, strict=True))
    if role is None or value.shape == fresh.shape or not is_smaller:
        return value
    if role is _Role.READS_THRICE:
        thirds = zip(value.chunk(3), fresh.chunk(3), strict=True)
        return torch.cat([_in_corner(old, new) for old, new in thirds])
    if role is _Role.READS:
        return _in_corner(value, fresh)
    if role is _Role.GAIN:
        return _in_corner(value, torch.full_like(fresh, float(value.mean()))) * (len(value) / len(fresh)) ** 0.5
    if role in {_Role.WRITES, _Role.HOLDS}:
        value = value - value.mean(dim=0 if role is _Role.WRITES else 1, keepdim=True)
    return _in_corner(value, torch.zeros_like(fresh))


def _in_corner(value: Tensor, around: Tensor) -> Tensor:
    """Return `around` with `value` where its rows and columns begin."""
    out = around.clone()
    out[tuple(slice(length) for length in value.shape)] = value
    return out
