"""Checkpoints in the published format, filled by the rule of the golden cases."""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from torch import Tensor

ROOT = Path(__file__).parents[2]
GOLDENS = ROOT / "tests" / "goldens"


@cache
def load_script(path: Path) -> ModuleType:
    """Import a file that lies in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def trace_model() -> ModuleType:
    return load_script(ROOT / "scripts" / "trace_model.py")


@pytest.fixture(scope="session")
def build_repository() -> ModuleType:
    return load_script(ROOT / "scripts" / "build_repository.py")


def published_state(variant: str) -> dict[str, Tensor]:
    """Return the whole state of a variant by its published names, filled by the rule."""
    import torch

    fill = load_script(GOLDENS / "rule.py").fill
    keys = json.loads((GOLDENS / f"{variant}_keys.json").read_text())
    state = {}
    for key, (shape, dtype) in keys.items():
        is_float = dtype.startswith("float")
        value = fill(key, tuple(shape)) if is_float else np.zeros(shape, dtype=dtype)
        state[key] = torch.from_numpy(np.asarray(value))
    return state


@pytest.fixture(scope="session", params=["mini224", "mini336"])
def golden_checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A published-format checkpoint `<variant>.pth`; removed afterwards, it has hundreds of megabytes."""
    import torch

    path = tmp_path_factory.mktemp("published") / f"{request.param}.pth"
    torch.save({"model": published_state(request.param), "epoch": 1, "args": argparse.Namespace()}, path)
    yield path
    path.unlink()
