"""The Triton adapters on a fake of Triton's Python module, with the tiny preset's real stages behind them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import fake_triton
import numpy as np
import pytest

# Triton puts its module in place before it imports a model, and so must this.
sys.modules["triton_python_backend_utils"] = fake_triton


@pytest.fixture(scope="session")
def stage_models(tiny_repository: Path) -> Mapping[str, Any]:
    """Every stage of the tiny repository as Triton would have started it."""
    from ssp_sam.config import get_preset
    from ssp_sam.serving import contract
    from ssp_sam.serving.stage_model import StageModel

    models = {}
    for model in contract.stage_models(get_preset("tiny"), "FP16"):
        models[model.name] = StageModel()
        models[model.name].initialize(fake_triton.model_arguments(tiny_repository, model.name))
    return models


@pytest.fixture(autouse=True)
def running_models(stage_models: Mapping[str, Any], tiny_repository: Path) -> Iterator[dict[str, fake_triton.Model]]:
    """Route calls between models to the stages, one at a time each; a test may put others in their places."""

    from ssp_sam.serving import contract

    def serve(model: Any) -> fake_triton.Model:
        lock = threading.Lock()

        def answer(request: fake_triton.InferenceRequest) -> fake_triton.InferenceResponse:
            with lock:
                (response,) = model.execute([request])
            return response

        return answer

    fake_triton.models.update({name: serve(model) for name, model in stage_models.items()})
    fake_triton.models[contract.SEGMENT_PHRASES] = fake_triton.ensemble(contract.SEGMENT_PHRASES, tiny_repository)
    fake_triton.Logger.errors.clear()
    fake_triton.Logger.warnings.clear()
    yield fake_triton.models
    fake_triton.models.clear()


MakeRequest = Callable[..., fake_triton.InferenceRequest]


@pytest.fixture
def make_request() -> MakeRequest:
    """Make a request of arrays by input name; strings and lists of strings become BYTES with a batch of one row."""

    def make(outputs: list[str], timeout_us: int = 0, **inputs: Any) -> fake_triton.InferenceRequest:
        tensors = []
        for name, given in inputs.items():
            value = given
            if isinstance(value, (str, bytes)):
                value = [value]
            if isinstance(value, list):
                encoded = [v.encode() if isinstance(v, str) else v for v in value]
                value = np.empty((1, len(encoded)), dtype=np.object_)
                value[0] = encoded
            tensors.append(fake_triton.Tensor(name, np.ascontiguousarray(value)))
        return fake_triton.InferenceRequest(tensors, outputs, timeout=timeout_us)

    return make
