"""The generated configurations, read back through Triton's own protobuf."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from ssp_sam.config import PRESETS, get_preset
from ssp_sam.postprocess import Calibration
from ssp_sam.serving import contract
from ssp_sam.serving.repository import Manifest, configuration_files, model_parameters

CALIBRATION = Calibration(((0.1, 0.0), (0.9, 1.0)), 20.0, 0.25)


def configurations(preset: str = "tiny", dtype: str = "auto", **options: Any) -> dict[str, Any]:
    files = configuration_files(Manifest(preset, dtype, CALIBRATION, **options))
    return {
        path.partition("/")[0]: text_format.Parse(content.decode(), pb.ModelConfig())
        for path, content in files.items()
        if path.endswith("config.pbtxt")
    }


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("dtype", ["auto", "fp32"])
def test_the_configuration_says_what_the_contract_says(name: str, dtype: str) -> None:
    configs = configurations(name, dtype)
    embedding_dtype = "FP32" if dtype == "fp32" else "FP16"
    models = {model.name: model for model in contract.all_models(get_preset(name), embedding_dtype)}
    assert configs.keys() == models.keys()
    for folder, config in configs.items():
        model = models[folder]
        assert config.name == folder
        assert config.max_batch_size == model.max_batch_size >= 1
        for side, tensors in ((config.input, model.inputs), (config.output, model.outputs)):
            written = [(t.name, pb.DataType.Name(t.data_type), tuple(t.dims)) for t in side]
            kinds = {"BYTES": "TYPE_STRING"}
            assert written == [(t.name, kinds.get(t.dtype, f"TYPE_{t.dtype}"), t.dims) for t in tensors]
        for written, tensor in zip(config.input, model.inputs, strict=True):
            assert written.optional == tensor.optional
            # Phrase counts differ between requests; whatever has them must not keep requests apart.
            assert written.allow_ragged_batch == (-1 in tensor.dims)


def test_only_stages_batch_and_only_networks_move_to_a_gpu() -> None:
    configs = configurations()
    for model in contract.stage_models(get_preset("tiny"), "FP16"):
        config = configs[model.name]
        assert config.backend == "python"
        assert config.HasField("dynamic_batching")
        (group,) = config.instance_group
        on_gpu = model.name not in (contract.PREPROCESS, contract.POSTPROCESS)
        assert group.kind == (pb.ModelInstanceGroup.KIND_AUTO if on_gpu else pb.ModelInstanceGroup.KIND_CPU)
        assert group.count >= 1
    entry = configs[contract.SEGMENT]
    assert not entry.HasField("dynamic_batching")
    assert [(group.kind, group.count) for group in entry.instance_group] == [(pb.ModelInstanceGroup.KIND_CPU, 1)]


def test_the_steps_of_the_ensemble_are_connected() -> None:
    configs = configurations()
    ensemble = configs[contract.SEGMENT_ENSEMBLE]
    assert ensemble.platform == "ensemble"
    kinds = {tensor.name: (tensor.data_type, list(tensor.dims)) for tensor in ensemble.input}
    read: set[str] = set()
    waiting = list(ensemble.ensemble_scheduling.step)
    while waiting:
        ready = [step for step in waiting if set(step.input_map.values()) <= kinds.keys()]
        assert ready, f"nothing produces what {[step.model_name for step in waiting]} need"
        for step in ready:
            waiting.remove(step)
            model = configs[step.model_name]
            assert step.model_version == -1
            assert {tensor.name for tensor in model.input if not tensor.optional} <= step.input_map.keys()
            for tensor in model.input:
                source = step.input_map[tensor.name]
                read.add(source)
                assert kinds[source] == (tensor.data_type, list(tensor.dims)), f"{step.model_name}: {tensor.name}"
            for tensor in model.output:
                target = step.output_map[tensor.name]
                assert target not in kinds, f"{target} is written twice"
                kinds[target] = (tensor.data_type, list(tensor.dims))
    for tensor in ensemble.output:
        assert kinds[tensor.name] == (tensor.data_type, list(tensor.dims))
    assert {tensor.name for tensor in ensemble.input} <= read


def test_the_text_encoder_of_the_ensemble_waits_for_the_checks() -> None:
    ensemble = configurations()[contract.SEGMENT_ENSEMBLE]
    maps = {step.model_name: step.input_map for step in ensemble.ensemble_scheduling.step}
    assert maps[contract.TEXT_ENCODER][contract.EXPRESSIONS.name] == contract.CHECKED_EXPRESSIONS.name
    assert contract.EXPRESSIONS.name in maps[contract.PREPROCESS]


def test_parameters_are_what_the_stages_read() -> None:
    for name, config in configurations(dtype="bf16").items():
        parameters = {key: value.string_value for key, value in config.parameters.items()}
        if config.platform == "ensemble":
            assert parameters == {}
            continue
        assert parameters["preset"] == "tiny"
        if name == contract.SEGMENT:
            settings = ("feature_cache_mib", "max_in_flight", "call_threads", "phrase_calls", "rows_per_call")
            assert all(int(parameters[key]) > 0 for key in settings)
        else:
            assert parameters["stage"] == name
        if name == contract.POSTPROCESS:
            assert Calibration.from_json(json.loads(parameters["calibration"])) == CALIBRATION
        elif name not in (contract.SEGMENT, contract.PREPROCESS):
            assert parameters["dtype"] == "bf16"


def test_threads_and_weights_are_those_of_the_preset_and_the_manifest() -> None:
    preset = get_preset("l336")
    manifest = Manifest("l336", "auto", weights_sha256={contract.SAM_IMAGE_ENCODER: "abc"})
    of = {model.name: model_parameters(model, preset, manifest) for model in contract.all_models(preset, "FP16")}
    assert of[contract.SAM_IMAGE_ENCODER]["threads"] == "all"
    assert of[contract.SAM_IMAGE_ENCODER]["weights_sha256"] == "abc"
    assert of[contract.MASK_DECODER]["threads"] == "auto"


@pytest.mark.parametrize("backend", contract.BACKENDS)
def test_the_entry_tells_networks_apart(backend: str) -> None:
    preset, digests = get_preset("tiny"), []
    for other in ("abc", "abd"):
        manifest = Manifest(
            "tiny", "auto", weights_sha256=dict.fromkeys(contract.NETWORK_STAGES, other), backend=backend
        )
        digests.append(model_parameters(contract.segment_model(preset), preset, manifest)["weights_sha256"])
    assert digests[0] != digests[1]


def test_warm_up_inputs_are_complete_and_of_the_right_size() -> None:
    files = configuration_files(Manifest("tiny", "auto"))
    sizes = {"TYPE_INT32": 4}
    for name, config in configurations().items():
        if name == contract.SEGMENT or config.platform == "ensemble":
            assert not config.model_warmup
            continue
        (warmup,) = config.model_warmup
        assert warmup.inputs.keys() == {tensor.name for tensor in config.input}
        for tensor in config.input:
            entry = warmup.inputs[tensor.name]
            assert entry.data_type == tensor.data_type
            assert len(entry.dims) == len(tensor.dims)
            assert all(dim > 0 and want in (dim, -1) for dim, want in zip(entry.dims, tensor.dims, strict=True))
            if not entry.input_data_file:
                assert entry.zero_data
                continue
            content = files[f"{name}/warmup/{entry.input_data_file}"]
            count = 1
            for dim in entry.dims:
                count *= dim
            if tensor.data_type == pb.TYPE_STRING:
                at = strings = 0
                while at < len(content):
                    at += 4 + int.from_bytes(content[at : at + 4], "little")
                    strings += 1
                assert (at, strings) == (len(content), count)
            else:
                assert len(content) == count * sizes[pb.DataType.Name(tensor.data_type)]


# --- ONNX Runtime -----------------------------------------------------------------------------------------------------


def onnx_configurations(**options: Any) -> dict[str, Any]:
    return configurations(backend=contract.ONNXRUNTIME, **options)


def test_with_onnx_runtime_networks_are_its_own_and_callers_notice_nothing() -> None:
    python, onnx = configurations(), onnx_configurations()
    for name, config in python.items():
        assert config.input == onnx[name].input or not onnx[name].input[0].allow_ragged_batch
        tensors = [(tensor.name, tensor.data_type, list(tensor.dims)) for tensor in (*config.input, *config.output)]
        assert tensors == [(t.name, t.data_type, list(t.dims)) for t in (*onnx[name].input, *onnx[name].output)]
    assert onnx.keys() - python.keys() == {contract.TOKENIZER, contract.TEXT_TOWER}
    for model in contract.onnx_stage_models(get_preset("tiny"), "FP16"):
        config = onnx[model.name]
        if model.backend == contract.ENSEMBLE:
            assert config.platform == "ensemble"
            continue
        assert config.backend == model.backend
        if model.backend == contract.ONNXRUNTIME:
            assert not any(tensor.allow_ragged_batch for tensor in config.input)  # ONNX tensors are not ragged
            assert not config.parameters  # that backend reads its own
            assert not config.optimization.execution_accelerators.gpu_execution_accelerator


def test_the_text_encoder_then_is_its_tokenizer_and_its_tower() -> None:
    configs = onnx_configurations()
    steps = configs[contract.TEXT_ENCODER].ensemble_scheduling.step
    assert [step.model_name for step in steps] == [contract.TOKENIZER, contract.TEXT_TOWER]
    made = {name for step in steps for name in step.output_map.values()}
    assert made == {tensor.name for tensor in configs[contract.TEXT_ENCODER].output}
    assert dict(steps[0].input_map) == {contract.EXPRESSIONS.name: contract.EXPRESSIONS.name}


def test_tensorrt_has_one_engine_for_all_sizes_and_keeps_it() -> None:
    configs = onnx_configurations(tensorrt=True)
    for model in contract.onnx_stage_models(get_preset("tiny"), "FP16"):
        accelerators = configs[model.name].optimization.execution_accelerators.gpu_execution_accelerator
        if model.backend != contract.ONNXRUNTIME:
            assert not accelerators
            continue
        (accelerator,) = accelerators
        assert accelerator.name == "tensorrt"
        parameters = dict(accelerator.parameters)
        exact = model.name == contract.SSP_PROMPT_GENERATOR
        assert parameters["precision_mode"] == ("FP32" if exact else "FP16")
        assert parameters["trt_engine_cache_enable"] == "1"
        for when, images, phrases in (("min", 1, 1), ("max", model.max_batch_size, 64)):
            shapes = dict(entry.split(":") for entry in parameters[f"trt_profile_{when}_shapes"].split(","))
            assert shapes == {
                tensor.name: "x".join(str(phrases if dim == -1 else dim) for dim in (images, *tensor.dims))
                for tensor in model.inputs
            }
