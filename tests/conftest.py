"""What unit and integration tests share: a repository of the tiny preset with random weights, and images."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from ssp_sam.predictor import Predictor
    from ssp_sam.serving.stages import Stage

MakePng = Callable[..., bytes]


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

    return Predictor.from_repository(tiny_repository, device="cpu")


@pytest.fixture(scope="session")
def stages(tiny_repository: Path) -> dict[str, Stage]:
    """Every stage of `tiny_repository` by its name, loaded as the served models load them."""
    from ssp_sam.config import get_preset
    from ssp_sam.serving import contract
    from ssp_sam.serving.repository import Manifest, model_parameters, weights_path
    from ssp_sam.serving.stages import load_stage

    manifest = Manifest.read(tiny_repository)
    preset = get_preset(manifest.preset)
    return {
        model.name: load_stage(
            model.name,
            {**model_parameters(model.name, preset, manifest), "threads": "1"},
            weights_path(tiny_repository, model.name),
            "cpu",
        )
        for model in contract.stage_models(preset, manifest.embedding_dtype)
    }
