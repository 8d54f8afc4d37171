"""A published checkpoint with CLIP from a file of its own, in every layout in which CLIP is published.

==============  ==============================================================================
OpenAI          a TorchScript archive or a state dict, keys like `visual.ln_pre.weight`
Hugging Face    a folder with `config.json` and `model.safetensors` or `pytorch_model.bin`
==============  ==============================================================================

Each becomes the keys that CLIP has in a published checkpoint: OpenAI's, under `encoder.`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPConfig

from ssp_sam.checkpoint import CLIP_PREFIX, StateDict, load_published, split_published
from ssp_sam.config import ClipConfig, Preset
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.torchscript import is_torchscript, load_torchscript_tensors

_HUGGING_FACE_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first that is there is read
_HUGGING_FACE_CONFIG = "config.json"

# Sizes that OpenAI's archives keep as buffers, and masks that follow from the context length.
_OPENAI_UNUSED = re.compile(
    r"input_resolution|context_length|vocab_size|(?:visual\.)?transformer\.resblocks\.\d+\.attn_mask"
)

# Hugging Face's key -> OpenAI's, where a block of either tower is already called as OpenAI calls it. The first pattern
# that matches the whole key counts; None: not needed.
_BLOCK = r"((?:visual\.)?transformer\.resblocks\.\d+)\."
_HUGGING_FACE_RULES: tuple[tuple[str, str | None], ...] = (
    (r"(?:text|vision)_model\.embeddings\.position_ids", None),
    (r"logit_scale", r"logit_scale"),
    (r"text_model\.embeddings\.token_embedding\.weight", r"token_embedding.weight"),
    (r"text_model\.embeddings\.position_embedding\.weight", r"positional_embedding"),
    (r"text_model\.final_layer_norm\.(.+)", r"ln_final.\1"),
    (r"text_projection\.weight", r"text_projection"),
    (r"vision_model\.embeddings\.class_embedding", r"visual.class_embedding"),
    (r"vision_model\.embeddings\.patch_embedding\.weight", r"visual.conv1.weight"),
    (r"vision_model\.embeddings\.position_embedding\.weight", r"visual.positional_embedding"),
    (r"vision_model\.pre_layrnorm\.(.+)", r"visual.ln_pre.\1"),
    (r"vision_model\.post_layernorm\.(.+)", r"visual.ln_post.\1"),
    (r"visual_projection\.weight", r"visual.proj"),
    (_BLOCK + r"self_attn\.out_proj\.(.+)", r"\1.attn.out_proj.\2"),
    (_BLOCK + r"mlp\.fc1\.(.+)", r"\1.mlp.c_fc.\2"),
    (_BLOCK + r"mlp\.fc2\.(.+)", r"\1.mlp.c_proj.\2"),
    (_BLOCK + r"layer_norm([12])\.(.+)", r"\1.ln_\2.\3"),
)
_HUGGING_FACE_COMPILED = tuple((re.compile(pattern), template) for pattern, template in _HUGGING_FACE_RULES)
_SEPARATE_QKV = re.compile(_BLOCK + r"self_attn\.([qkv])_proj\.(weight|bias)")
_TRANSPOSED = ("text_projection", "visual.proj")  # Linear layers there, bare matrices here


def load_published_stages(checkpoint: Path, preset: Preset, clip: Path | None = None) -> dict[str, StateDict]:
    """Return {stage: parameters} of a published `.pth`, with CLIP from `clip` instead of its own if that is given.

    Raises InvalidArgumentError that names the file and what in it is missing, unexpected or of another shape.
    """
    state = load_published(checkpoint)
    if clip is None:
        if not any(key.startswith(CLIP_PREFIX) for key in state):
            raise InvalidArgumentError(
                f"{checkpoint} holds no CLIP (no key starts with {CLIP_PREFIX!r}): give CLIP's own file (--clip)"
            )
        return split_published(state, preset, str(checkpoint))
    without = {key: value for key, value in state.items() if not key.startswith(CLIP_PREFIX)}
    return split_published({**without, **load_clip(clip, preset.clip)}, preset, f"{checkpoint} with CLIP from {clip}")


def load_clip(path: Path, config: ClipConfig) -> StateDict:
    """Return CLIP's parameters from its own file or folder by the keys of a published checkpoint.

    `config` is what a Hugging Face folder has to say of itself; shapes and missing keys are left to `split_published`.
    Nothing that the file holds is run. Raises InvalidArgumentError if it cannot be read or is no CLIP of that kind.
    """
    path = clip_weights_path(path)
    state = _read(path)
    if any(key.startswith(("text_model.", "vision_model.")) for key in state):
        _check_hugging_face_config(path.parent / _HUGGING_FACE_CONFIG, config)
        state = _from_hugging_face(state, path)
    else:
        state = {key: value for key, value in state.items() if not _OPENAI_UNUSED.fullmatch(key)}
    return {CLIP_PREFIX + key: value for key, value in state.items()}


def clip_weights_path(path: Path) -> Path:
    """Return the file that holds the weights: `path` itself, or the one in the Hugging Face folder `path`."""
    if not path.is_dir():
        return path
    for name in _HUGGING_FACE_WEIGHTS:
        if (path / name).is_file():
            return path / name
    raise InvalidArgumentError(f"{path} holds no CLIP: expected {' or '.join(_HUGGING_FACE_WEIGHTS)} in it")


def _read(path: Path) -> StateDict:
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except SafetensorError as error:
            raise InvalidArgumentError(f"{path} is no safetensors file that can be read: {error}") from error
    return load_torchscript_tensors(path) if is_torchscript(path) else load_published(path)


def _check_hugging_face_config(path: Path, config: ClipConfig) -> None:
    """Compare what shapes do not tell: with another activation or number of heads, the weights load and mislead."""
    if not path.is_file():
        raise InvalidArgumentError(f"{path} is missing: it says whether the weights beside it are those of this CLIP")
    try:
        theirs = CLIPConfig.from_json_file(str(path))
    except (ValueError, TypeError) as error:
        raise InvalidArgumentError(f"{path} is no configuration of a CLIP: {error}") from error
    text, vision = theirs.text_config, theirs.vision_config
    wrong = [
        f"{name} is {actual!r} instead of {wanted!r}"
        for name, actual, wanted in (
            ("hidden_act of the text tower", text.hidden_act, "quick_gelu"),
            ("hidden_act of the image tower", vision.hidden_act, "quick_gelu"),
            ("num_attention_heads of the text tower", text.num_attention_heads, config.text_heads),
            ("num_attention_heads of the image tower", vision.num_attention_heads, config.heads),
            ("image_size", vision.image_size, config.image_side_px),
            ("patch_size", vision.patch_size, config.patch_px),
        )
        if actual != wanted
    ]
    if wrong:
        raise InvalidArgumentError(f"{path} is of another CLIP: {'; '.join(wrong)}")


def _from_hugging_face(state: Mapping[str, Tensor], source: Path) -> StateDict:
    """Return the parameters by OpenAI's names: query, key and value packed, projections transposed."""
    converted: StateDict = {}
    separate: dict[str, dict[str, Tensor]] = {}
    problems = []
    for key, value in state.items():
        name = re.sub(r"^text_model\.encoder\.layers\.", "transformer.resblocks.", key)
        name = re.sub(r"^vision_model\.encoder\.layers\.", "visual.transformer.resblocks.", name)
        if match := _SEPARATE_QKV.fullmatch(name):
            separate.setdefault(f"{match[1]}.attn.in_proj_{match[3]}", {})[match[2]] = value
            continue
        for pattern, template in _HUGGING_FACE_COMPILED:
            if match := pattern.fullmatch(name):
                if template is not None:
                    new = match.expand(template)
                    converted[new] = value.T if new in _TRANSPOSED else value
                break
        else:
            problems.append(f"unexpected {key}")
    for name, parts in separate.items():
        shapes = {tuple(part.shape) for part in parts.values()}
        if len(parts) < 3 or len(shapes) > 1:
            problems.append(f"query, key and value for {name}: {sorted(parts)} of shapes {sorted(shapes)}")
        else:
            converted[name] = torch.cat([parts[letter] for letter in "qkv"])
    if problems:
        shown = "; ".join(problems[:5]) + ("; ..." if len(problems) > 5 else "")
        raise InvalidArgumentError(f"{source} does not fit CLIP in Hugging Face's layout: {shown}")
    return converted
