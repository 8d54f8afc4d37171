"""Published checkpoints -> the parameters of each stage, strictly: every key is used, or named here as unused.

A published `.pth` is `torch.save` of {"model", "optimizer", "lr_scheduler", "epoch", "args"}. Its `encoder.*` keys
are CLIP in OpenAI's layout; the release's trainer saves the blocks with the second stream under other names
(`attn.qkv`, `attn.proj`) and leaves a stray copy of the last one under `encoder.visual.attn`. Both layouts load, and
`ssp_sam.clip_checkpoint` brings every other one into OpenAI's.
"""

from __future__ import annotations

import argparse
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ssp_sam.config import Preset
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.modeling.ssp_sam import STAGES

StateDict = dict[str, Tensor]

CLIP_PREFIX = "encoder."  # of CLIP's keys in a published checkpoint
_DDP_PREFIX = "module."  # of every key when the state is that of a DistributedDataParallel

_IMAGE_BLOCK = r"encoder\.visual\.transformer\.resblocks\.(\d+)\."
_TEXT_BLOCK = r"encoder\.transformer\.resblocks\.(\d+)\."
_TEXT_LAYER = r"tower.encoder.layers.\1."
# Published key -> (stage, our key). The first pattern that matches the whole key counts; None: the forward pass never
# uses it.
_RULES: tuple[tuple[str, tuple[str, str] | None], ...] = (
    (r"sam\.image_encoder\.(.+)", ("sam_image_encoder", r"vit.\1")),
    (r"sam\.mask_decoder\.(.+)", ("mask_decoder", r"decoder.\1")),
    (r"sam\.prompt_encoder\.((?:pe_layer|no_mask_embed)\..+)", ("mask_decoder", r"\1")),
    (r"sam\.prompt_encoder\.(?:point_embeddings|not_a_point_embed|mask_downscaling)\..+", None),
    (r"tf_(scale|sigma)", ("ssp_prompt_generator", r"visual.\1")),
    (r"clip_img_proj\.(.+)", ("ssp_prompt_generator", r"visual.project.\1")),
    (r"img2text_attn\.(.+)", ("ssp_prompt_generator", r"visual.cross_attention.\1")),
    (r"imgtext_proj\.layers\.0\.(.+)", ("ssp_prompt_generator", r"visual.text_side.\1")),
    (r"img_proj\.layers\.0\.(.+)", ("ssp_prompt_generator", r"visual.image_side.\1")),
    (r"norm_img\.(.+)", ("ssp_prompt_generator", r"visual.norm.\1")),
    (r"clip_proj\.(.+)", ("ssp_prompt_generator", r"linguistic.project.\1")),
    (r"text_proj\.(.+)", ("ssp_prompt_generator", r"linguistic.gru.\1")),
    (r"phrase_attn\.fc\.(.+)", ("ssp_prompt_generator", r"linguistic.score.\1")),
    (r"mlp\.(.+)", ("ssp_prompt_generator", r"fuse.\1")),
    (r"vl_transformer\.encoder\.layers\.(.+)", ("ssp_prompt_generator", r"generator.layers.\1")),
    (r"vl_pos_embed\.(.+)", ("ssp_prompt_generator", r"generator.position.\1")),
    (r"((?:reg_token|prompt_token|norm|bbox_embed)\..+)", ("ssp_prompt_generator", r"generator.\1")),
    (r"img2img_attn\..+|norm_text_cond_img\..+", None),
    (r"encoder\.logit_scale", None),
    (r"encoder\.visual\.attn\..+", None),
    (_IMAGE_BLOCK + r"attn\.(?:in_proj_|qkv\.)(.+)", ("clip_image_encoder", r"blocks.\1.attn.qkv.\2")),
    (_IMAGE_BLOCK + r"attn\.(?:out_)?proj\.(.+)", ("clip_image_encoder", r"blocks.\1.attn.proj.\2")),
    (_IMAGE_BLOCK + r"mlp\.c_fc\.(.+)", ("clip_image_encoder", r"blocks.\1.mlp.0.\2")),
    (_IMAGE_BLOCK + r"mlp\.c_proj\.(.+)", ("clip_image_encoder", r"blocks.\1.mlp.2.\2")),
    (r"encoder\.visual\.transformer\.resblocks\.(.+)", ("clip_image_encoder", r"blocks.\1")),
    (r"encoder\.visual\.(.+)", ("clip_image_encoder", r"\1")),
    (r"encoder\.positional_embedding", ("text_encoder", r"tower.embeddings.position_embedding.weight")),
    (r"encoder\.token_embedding\.weight", ("text_encoder", r"tower.embeddings.token_embedding.weight")),
    (r"encoder\.text_projection", ("text_encoder", r"text_projection.weight")),
    (r"encoder\.ln_final\.(.+)", ("text_encoder", r"tower.final_layer_norm.\1")),
    (_TEXT_BLOCK + r"attn\.in_proj_(.+)", ("text_encoder", _TEXT_LAYER + r"self_attn.{}_proj.\2")),
    (_TEXT_BLOCK + r"attn\.out_proj\.(.+)", ("text_encoder", _TEXT_LAYER + r"self_attn.out_proj.\2")),
    (_TEXT_BLOCK + r"mlp\.c_fc\.(.+)", ("text_encoder", _TEXT_LAYER + r"mlp.fc1.\2")),
    (_TEXT_BLOCK + r"mlp\.c_proj\.(.+)", ("text_encoder", _TEXT_LAYER + r"mlp.fc2.\2")),
    (_TEXT_BLOCK + r"ln_([12])\.(.+)", ("text_encoder", _TEXT_LAYER + r"layer_norm\2.\3")),
)
_COMPILED = tuple((re.compile(pattern), target) for pattern, target in _RULES)


def load_published(path: str | Path) -> StateDict:
    """Return the parameters in a published `.pth` (or a bare state dict) by their published names.

    The tensors are mapped from the file, not read, unless it has torch's format of before 2020. No pickled code runs:
    besides tensors only `argparse.Namespace` is let through. Raises InvalidArgumentError for a file that holds anything
    else, is damaged, or is no checkpoint.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError:
        raise
    except Exception as error:  # whatever torch's reader stumbles over in a damaged file; KeyError was seen
        # Not torch's own words: they advise to load the file unsafely.
        raise InvalidArgumentError(
            f"{path} is not a checkpoint that can be loaded: it is damaged, or holds more than the tensors, plain "
            "values and argparse.Namespace that are allowed"
        ) from error
    state = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InvalidArgumentError(f"{path} holds no state dict: expected tensors by name, at the top or under 'model'")
    if state and all(key.startswith(_DDP_PREFIX) for key in state):
        return {key.removeprefix(_DDP_PREFIX): value for key, value in state.items()}
    return dict(state)


def split_published(state: Mapping[str, Tensor], preset: Preset, source: str) -> dict[str, StateDict]:
    """Return {stage: parameters} of a checkpoint by its published names; `source` is what errors call it.

    Raises InvalidArgumentError that lists keys which are missing, unexpected or of another shape.
    """
    stages: dict[str, StateDict] = {name: {} for name in STAGES}
    unexpected = []
    for key, value in state.items():
        for pattern, target in _COMPILED:
            match = pattern.fullmatch(key)
            if match:
                if target is not None:
                    stage, template = target
                    _put(stages[stage], match.expand(template), value)
                break
        else:
            unexpected.append(key)
    _require_fit(stages, unexpected, preset, source)
    return stages


def _put(parameters: StateDict, key: str, value: Tensor) -> None:
    if "{}" in key:  # OpenAI packs what transformers keeps apart
        for name, part in zip("qkv", value.chunk(3), strict=True):
            parameters[key.format(name)] = part
    elif key == "text_projection.weight":
        parameters[key] = value.T
    else:
        parameters[key] = value


def load_trained(path: str | Path, preset: Preset) -> dict[str, StateDict]:
    """Return {stage: parameters} of a `SspSam.state_dict()` that our own training saved as safetensors.

    Raises InvalidArgumentError that lists keys which are missing, unexpected or of another shape.
    """
    return split_trained(load_safetensors(path), preset, path)


def split_trained(state: Mapping[str, Tensor], preset: Preset, source: str | Path) -> dict[str, StateDict]:
    """Return {stage: parameters} of a `SspSam.state_dict()`; `source` is what errors call it.

    Raises InvalidArgumentError that lists keys which are missing, unexpected or of another shape.
    """
    stages: dict[str, StateDict] = {name: {} for name in STAGES}
    unexpected = []
    for key, value in state.items():
        stage, _, name = key.partition(".")
        if stage in stages:
            stages[stage][name] = value
        else:
            unexpected.append(key)
    _require_fit(stages, unexpected, preset, source)
    return stages


def _require_fit(
    stages: Mapping[str, Mapping[str, Tensor]], unexpected: Iterable[str], preset: Preset, source: str | Path
) -> None:
    problems = _describe("unexpected", unexpected)
    for stage, parameters in stages.items():
        problems += stage_problems(stage, parameters, preset)
    if problems:
        raise InvalidArgumentError(f"{source} does not fit preset {preset.name!r}: {'; '.join(problems)}")


def load_safetensors(path: str | Path) -> StateDict:
    """Return the tensors of a safetensors file by name. Raises InvalidArgumentError if it is none, or damaged."""
    try:
        parameters: StateDict = load_file(path)
    except SafetensorError as error:
        raise InvalidArgumentError(f"{path} is no safetensors file, or a damaged one: {error}") from error
    return parameters


def stage_problems(stage: str, parameters: Mapping[str, Tensor], preset: Preset) -> list[str]:
    """Return what keeps `parameters` from being exactly those of `stage`; empty if they are."""
    with _NothingDrawn():
        wanted = STAGES[stage](preset).state_dict()
    wrong_shape = [
        f"{key} {tuple(parameters[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in sorted(wanted.keys() & parameters.keys())
        if parameters[key].shape != wanted[key].shape
    ]
    return [
        *_describe(f"missing in {stage}", sorted(wanted.keys() - parameters.keys())),
        *_describe(f"unexpected in {stage}", sorted(parameters.keys() - wanted.keys())),
        *_describe(f"wrong shape in {stage}", wrong_shape),
    ]


def _describe(what: str, keys: Iterable[str]) -> list[str]:
    keys = list(keys)
    if not keys:
        return []
    shown = ", ".join(keys[:5]) + (", ..." if len(keys) > 5 else "")
    return [f"{len(keys)} {what}: {shown}"]


def load_stage_module(stage: str, preset: Preset, path: str | Path) -> nn.Module:
    """Return the network of `stage` for inference with the parameters of a safetensors file, in float32.

    Raises InvalidArgumentError if the file does not hold exactly the parameters of that stage and preset.
    """
    parameters = load_safetensors(path)
    _require_fit({stage: parameters}, (), preset, path)
    with _NothingDrawn():
        module = STAGES[stage](preset).eval().requires_grad_(False)
    module.load_state_dict(parameters)
    return module


class _NothingDrawn(TorchFunctionMode):
    """Parameters of modules that are made meanwhile are not drawn at random, since a file has them.

    What is not written to takes time and memory of nobody. (On the device "meta", where none is taken either, drawing
    imports half of PyTorch, for two seconds.)
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call `func`, unless it draws a parameter."""
        if func in (Tensor.normal_, Tensor.uniform_):
            return args[0]
        return func(*args, **(kwargs or {}))
