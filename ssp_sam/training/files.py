"""Files of a run's folder, each written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from ssp_sam.checkpoint import stage_problems
from ssp_sam.config import Preset
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.modeling.ssp_sam import STAGES, SspSam


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file in one step: a reader, or a crash, meets the old content or the new one."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write what a run needs to continue."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load_state(path: Path) -> dict[str, Any]:
    """Undo `save_state`."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def save_weights(path: Path, model: SspSam) -> None:
    """Write the model's parameters as safetensors, with the name of the preset as metadata."""
    write_whole(path, save({k: v.contiguous() for k, v in model.state_dict().items()}, {"preset": model.preset.name}))


def load_weights(path: Path, preset: Preset) -> SspSam:
    """Return the model of `preset` with the parameters that `save_weights` wrote.

    Raises InvalidArgumentError if the file cannot be read or is not exactly a checkpoint of that preset.
    """
    try:
        parameters = load_file(path)
    except Exception as error:
        raise InvalidArgumentError(f"cannot read the checkpoint {path}: {error}") from error
    problems = []
    for stage in STAGES:
        own = {key.removeprefix(f"{stage}."): v for key, v in parameters.items() if key.startswith(f"{stage}.")}
        problems += stage_problems(stage, own, preset)
    if problems:
        raise InvalidArgumentError(f"{path} does not fit preset {preset.name!r}: {'; '.join(problems)}")
    model = SspSam(preset)
    model.load_state_dict(parameters)
    return model.eval()


def append_json(path: Path, record: dict[str, Any]) -> None:
    """Append one line of JSON."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
