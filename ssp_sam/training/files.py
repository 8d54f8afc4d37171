"""Files of a run's folder, each written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import save

from ssp_sam.modeling.ssp_sam import SspSam


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write what a run needs to continue."""
    replace_file(path, lambda file: torch.save(state, file))


def load_state(path: Path) -> dict[str, Any]:
    """Undo `save_state`."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def save_weights(path: Path, model: SspSam) -> None:
    """Write the model's parameters as safetensors, with the name of the preset as metadata."""
    parameters = {name: value.contiguous() for name, value in model.state_dict().items()}
    replace_file(path, lambda file: file.write(save(parameters, {"preset": model.preset.name})))


def replace_file(path: Path, write: Callable[[BinaryIO], object], partial: Path | None = None) -> None:
    """Replace a file in one step: a reader, or a crash, meets the old content or the new one.

    partial: what the file is called until it is whole; a name of its own for each process if several may write it.
    """
    partial = partial or path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)
