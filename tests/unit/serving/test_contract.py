from __future__ import annotations

import numpy as np
import pytest

from ssp_sam.config import PRESETS, Preset, get_preset
from ssp_sam.serving import contract
from ssp_sam.serving.contract import Tensor

TINY = get_preset("tiny")


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
@pytest.mark.parametrize("embedding_dtype", ["FP16", "FP32"])
@pytest.mark.parametrize("backend", contract.BACKENDS)
def test_names_are_unique_and_one_name_is_one_tensor(preset: Preset, embedding_dtype: str, backend: str) -> None:
    models = list(contract.all_models(preset, embedding_dtype, backend))
    assert len({model.name for model in models}) == len(models)
    for model in models:
        for side in (model.inputs, model.outputs):
            assert len({tensor.name for tensor in side}) == len(side), model.name
    kinds: dict[str, tuple[str, tuple[int, ...]]] = {}
    for model in models:
        for tensor in (*model.inputs, *model.outputs):
            kind = (tensor.dtype, tensor.dims)
            assert kinds.setdefault(tensor.name, kind) == kind, f"{model.name}: {tensor.name}"


def test_every_input_of_a_stage_comes_from_the_caller_or_an_earlier_stage() -> None:
    known = {tensor.name for tensor in contract.ensemble_model(TINY).inputs}
    for stage in contract.stage_models(TINY, "FP16"):
        assert {tensor.name for tensor in stage.inputs} <= known, stage.name
        assert not known & {tensor.name for tensor in stage.outputs}, stage.name
        known |= {tensor.name for tensor in stage.outputs}
    assert {tensor.name for tensor in contract.ensemble_model(TINY).outputs} <= known


def test_the_stages_are_those_that_the_ensemble_joins() -> None:
    assert tuple(model.name for model in contract.stage_models(TINY, "FP16")) == contract.STAGE_NAMES
    onnx = {model.name for model in contract.onnx_stage_models(TINY, "FP16")}
    assert onnx == {*contract.STAGE_NAMES, contract.TOKENIZER, contract.TEXT_TOWER}


@pytest.mark.parametrize("backend", contract.BACKENDS)
def test_no_ensemble_takes_larger_batches_than_a_step_of_it(backend: str) -> None:
    """Triton refuses to load it otherwise."""
    models = {model.name: model for model in contract.all_models(TINY, "FP16", backend)}
    for model in models.values():
        assert all(model.max_batch_size <= models[step].max_batch_size for step in model.steps)


def test_the_two_entries_answer_alike() -> None:
    segment, ensemble = contract.segment_model(TINY), contract.ensemble_model(TINY)
    assert segment.outputs == (*ensemble.outputs, contract.IMAGE_ID)
    assert {tensor.name for tensor in ensemble.inputs} <= {tensor.name for tensor in segment.inputs}
    assert not any(tensor.optional for tensor in ensemble.inputs)
    assert [tensor.name for tensor in segment.inputs if not tensor.optional] == [contract.EXPRESSIONS.name]


def test_every_tensor_has_a_numpy_type_and_a_meaning() -> None:
    for model in contract.all_models(TINY, "FP16"):
        for tensor in (*model.inputs, *model.outputs):
            assert isinstance(np.dtype(tensor.numpy_dtype), np.dtype)
            assert tensor.meaning


def test_optional_changes_nothing_else() -> None:
    tensor = Tensor("x", "FP32", (-1, 3), "y")
    again = contract.optional(tensor)
    assert again.optional and not tensor.optional
    assert (again.name, again.dtype, again.dims, again.meaning) == ("x", "FP32", (-1, 3), "y")
