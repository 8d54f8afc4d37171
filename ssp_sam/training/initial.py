"""The weights that a run begins with, and other checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ssp_sam.checkpoint import load_stage_module, load_trained
from ssp_sam.clip_checkpoint import load_published_stages
from ssp_sam.config import Preset
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.modeling.ssp_sam import STAGES, SspSam
from ssp_sam.serving.repository import Manifest, weights_path
from ssp_sam.training.config import RunConfig
from ssp_sam.training.trainee import Trainee, draw_weights


def begin(config: RunConfig, preset: Preset) -> Trainee:
    """Return a trainee with the run's initial weights; what they leave out is drawn.

    Raises InvalidArgumentError if the weights cannot be read or do not fit the preset.
    """
    torch.manual_seed(config.seed)
    trainee = Trainee(preset)
    draw_weights(trainee)
    if config.initial_weights:
        clip = Path(config.initial_clip) if config.initial_clip else None
        for stage, parameters in read_stages(Path(config.initial_weights), clip, preset).items():
            if stage not in config.fresh_stages:
                trainee.model.get_submodule(stage).load_state_dict(parameters)
    return trainee


def read_model(weights: Path, preset: Preset) -> SspSam:
    """Return the model of `preset`, in float32, with the weights of a safetensors file of our own or a repository.

    Raises InvalidArgumentError if they cannot be read or are not exactly those of that preset.
    """
    model = SspSam(preset)
    for stage, parameters in read_stages(weights, None, preset).items():
        model.get_submodule(stage).load_state_dict(parameters)
    return model


def read_stages(weights: Path, clip: Path | None, preset: Preset) -> Mapping[str, Mapping[str, Tensor]]:
    """Return {stage: parameters} of a safetensors file of our own, a published `.pth` or a served repository.

    clip: CLIP's own file or folder, for a `.pth`. Raises InvalidArgumentError.
    """
    try:
        if weights.is_dir():
            return _read_repository(weights, preset)
        if weights.suffix == ".safetensors":
            return load_trained(weights, preset)
        return load_published_stages(weights, preset, clip)
    except OSError as error:
        raise InvalidArgumentError(f"cannot read the weights {weights}: {error}") from error


def _read_repository(path: Path, preset: Preset) -> Mapping[str, Mapping[str, Tensor]]:
    manifest = Manifest.read(path)
    if manifest.preset != preset.name:
        raise InvalidArgumentError(f"{path} is of preset {manifest.preset!r}; asked for is {preset.name!r}")
    return {stage: load_stage_module(stage, preset, weights_path(path, stage)).state_dict() for stage in STAGES}
