"""What tests of all kinds share: scripts, published-format checkpoints, a repository of random weights, images."""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

    from ssp_sam.predictor import Predictor
    from ssp_sam.serving.stages import Stage

MakePng = Callable[..., bytes]

ROOT = Path(__file__).parents[1]
GOLDENS = ROOT / "tests" / "goldens"

# Networks of the tests' own weights have no place among the user's. Servers and other processes inherit it.
os.environ.setdefault("SSP_SAM_CACHE", str(ROOT / "build" / "networks"))


@cache
def load_script(path: Path) -> ModuleType:
    """Import a file that lies in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # where dataclasses look for the names in their annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def trace_model() -> ModuleType:
    return load_script(ROOT / "scripts" / "trace_model.py")


@pytest.fixture(scope="session")
def build_repository() -> ModuleType:
    return load_script(ROOT / "scripts" / "build_repository.py")


@pytest.fixture(scope="session")
def compare_runtimes() -> ModuleType:
    return load_script(ROOT / "scripts" / "compare_runtimes.py")


@pytest.fixture(scope="session")
def serve() -> ModuleType:
    return load_script(ROOT / "scripts" / "serve.py")


@pytest.fixture(scope="session")
def demo() -> ModuleType:
    return load_script(ROOT / "scripts" / "demo.py")


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


@pytest.fixture(scope="session")
def make_png() -> MakePng:
    """Make the PNG file of a picture with some structure; the same arguments give the same bytes."""

    def make(height: int = 90, width: int = 140, seed: int = 0) -> bytes:
        coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST).save(file, "PNG")
        return file.getvalue()

    return make


@pytest.fixture(scope="session")
def tiny_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository of the tiny preset with random weights, as the product would write it."""
    import torch

    from ssp_sam.config import get_preset
    from ssp_sam.modeling.ssp_sam import STAGES
    from ssp_sam.postprocess import Calibration
    from ssp_sam.serving.repository import write_repository

    preset = get_preset("tiny")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stages = {name: build(preset).state_dict() for name, build in STAGES.items()}
    # Random masks are noise of any size: none of them counts as "no target" by its score.
    calibration = Calibration(score_knots=((-10.0, 0.1), (10.0, 0.9)))
    path = tmp_path_factory.mktemp("tiny") / "model_repository"
    write_repository(path, preset, stages, dtype="auto", calibration=calibration, source={"random_seed": "0"})
    return path


@pytest.fixture(scope="session")
def predictor(tiny_repository: Path) -> Predictor:
    """The in-process reference on the weights of `tiny_repository`."""
    from ssp_sam.predictor import Predictor

    return Predictor.from_repository(tiny_repository, device="cpu", threads=1)


@pytest.fixture(scope="session")
def stages(tiny_repository: Path) -> dict[str, Stage]:
    """Every stage of `tiny_repository` by its name, loaded as the served models load them, but for their warm-up."""
    from ssp_sam.config import get_preset
    from ssp_sam.serving import contract, network_stages
    from ssp_sam.serving.repository import Manifest, model_parameters, weights_path
    from ssp_sam.serving.stages import load_stage

    manifest = Manifest.read(tiny_repository)
    preset = get_preset(manifest.preset)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network_stages, "MEETING_SIZES_S", 0)
        return {
            model.name: load_stage(
                model.name,
                {**model_parameters(model, preset, manifest), "threads": "1"},
                weights_path(tiny_repository, model.name),
                "cpu",
            )
            for model in contract.stage_models(preset, manifest.embedding_dtype)
        }
