"""The served model repository on disk: who writes it, and what stands in it.

::

    manifest.json                   preset, dtype, calibration, where the weights came from
    <model>/config.pbtxt            generated from the contract
    <model>/1/model.py              the same few lines for every Python model
    <model>/1/model.safetensors     parameters of that stage
    <model>/1/model.onnx            instead of both, where ONNX Runtime computes it
    <model>/warmup/<input>          warm-up inputs
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ssp_sam.config import Preset, get_preset
from ssp_sam.digest import digest_of, sha256_of
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.limits import MAX_PHRASES
from ssp_sam.networks import prepare_networks
from ssp_sam.postprocess import Calibration
from ssp_sam.runtime import Runtime, stage_runtime
from ssp_sam.serving import contract
from ssp_sam.serving.model_config import config_text, tensorrt, warmup_files

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "manifest.json"
FORMAT_VERSION = 1

# Defaults of the entry `segment`; change them in its config.pbtxt parameters.
FEATURE_CACHE_MIB = 512
MAX_IN_FLIGHT = 256
CALL_THREADS = 64
PHRASE_CALLS = 3

_MODEL_PY = '''"""Triton model `{name}`: {summary}."""

from ssp_sam.serving.{module} import {adapter} as TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


@dataclass(frozen=True)
class Manifest:
    """What a repository serves.

    dtype: precision of the stored weights and of computation ("fp32", "bf16" or "fp16"; "auto" stores fp16 and computes
    in what suits the device). source: where the weights came from, for people. weights_sha256: by stage. versions: of
    the packages that wrote the weights. backend: one of `contract.BACKENDS`, computes the networks. tensorrt: whether
    ONNX Runtime leaves that to TensorRT on a GPU.
    """

    preset: str
    dtype: str
    calibration: Calibration = field(default_factory=Calibration)
    source: Mapping[str, str] = field(default_factory=dict)
    weights_sha256: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    backend: str = contract.PYTHON
    tensorrt: bool = False
    format_version: int = FORMAT_VERSION

    @property
    def embedding_dtype(self) -> str:
        """Type in which image embeddings travel between processes."""
        return "FP32" if self.dtype == "fp32" else "FP16"

    @classmethod
    def read(cls, repository: str | Path) -> Manifest:
        """Read the manifest of a repository; raises InvalidArgumentError if there is none, or of another format."""
        path = Path(repository) / MANIFEST
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if values.get("format_version") != FORMAT_VERSION:
                raise InvalidArgumentError(
                    f"{path} has format version {values.get('format_version')!r}; this release reads {FORMAT_VERSION}"
                )
            return cls(**{**values, "calibration": Calibration.from_json(values["calibration"])})
        except FileNotFoundError:
            raise InvalidArgumentError(
                f"{repository} is no model repository of SSP-SAM: it has no {MANIFEST}"
            ) from None
        except InvalidArgumentError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidArgumentError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def prepare_repository(repository: str | Path, manifest: Manifest, device: str) -> dict[str, Runtime]:
    """Return the runtime of every network on a device, by stage, after what must be done once to load them there.

    manifest: that of the repository, whose backend is Python. Raises InvalidArgumentError if its weights do not fit its
    preset.
    """
    preset = get_preset(manifest.preset)
    runtimes = {stage: stage_runtime(stage, preset, device, manifest.dtype) for stage in contract.NETWORK_STAGES}
    prepare_networks(preset, {stage: weights_path(repository, stage) for stage in runtimes}, runtimes)
    return runtimes


def weights_path(repository: str | Path, stage: str) -> Path:
    """Return where the parameters of `stage` lie."""
    return Path(repository) / stage / "1" / "model.safetensors"


def onnx_path(repository: str | Path, model: str) -> Path:
    """Return where the ONNX file of `model` lies, where there is one."""
    return Path(repository) / model / "1" / "model.onnx"


def write_repository(
    out: str | Path,
    preset: Preset,
    stages: Mapping[str, Mapping[str, Tensor]],
    *,
    dtype: str,
    calibration: Calibration,
    source: Mapping[str, str],
    backend: str = contract.PYTHON,
    tensorrt: bool = False,
) -> None:
    """Write a whole repository: networks of all stages, manifest, configurations.

    Stages are taken from the mapping one by one, so that one that makes them on demand is never held whole. The other
    arguments are those of `Manifest`. What an earlier repository had in the same place is replaced; until the new one
    is whole it has no manifest, so that nobody takes the one for the other. Raises InvalidArgumentError for a
    `tensorrt` without ONNX Runtime.
    """
    if tensorrt and backend != contract.ONNXRUNTIME:
        raise InvalidArgumentError(f"TensorRT goes with the backend {contract.ONNXRUNTIME}; the backend is {backend}")
    packages = ["ssp-sam", "torch", "safetensors"]
    if backend == contract.ONNXRUNTIME:
        packages += ["onnx", "onnxscript"]
    manifest = Manifest(
        preset.name, dtype, calibration, source, {}, {name: _version(name) for name in packages}, backend, tensorrt
    )
    write = _write_onnx if backend == contract.ONNXRUNTIME else _write_weights
    (Path(out) / MANIFEST).unlink(missing_ok=True)
    _remove_models(Path(out), preset)
    digests = {stage: write(Path(out), manifest, stage, stages[stage]) for stage in stages}
    manifest = replace(manifest, weights_sha256=digests)
    _write_around_weights(Path(out), manifest)


def _remove_models(out: Path, preset: Preset) -> None:
    """Remove what an earlier repository of any backend would leave beside the models of this one."""
    for backend in contract.BACKENDS:
        for model in contract.all_models(preset, "FP32", backend):
            for folder in ("1", "warmup"):
                if (out / model.name / folder).is_dir():
                    shutil.rmtree(out / model.name / folder)
            (out / model.name / "config.pbtxt").unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # there is none, or it holds what is somebody else's
                (out / model.name).rmdir()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        extra = "onnx" if package.startswith("onnx") else "server"
        raise InvalidArgumentError(f"{package} is not installed; `pip install ssp-sam[{extra}]` brings it") from None


def _write_onnx(out: Path, manifest: Manifest, stage: str, parameters: Mapping[str, Tensor]) -> str:
    """Write the ONNX file of one stage's network, in float32; return its SHA-256."""
    from ssp_sam.modeling.ssp_sam import STAGES
    from ssp_sam.onnx_export import onnx_graph

    preset = get_preset(manifest.preset)
    network = STAGES[stage](preset)
    network.load_state_dict(parameters)
    graph = onnx_graph(stage, network, preset, manifest.embedding_dtype)
    path = onnx_path(out, graph.model.name)
    graph.export(path, preset)
    files = sorted(path.parent.glob(f"{path.name}*"))  # the parameters of large ones lie in a file beside it
    return sha256_of(path) if len(files) == 1 else digest_of(map(sha256_of, files))


def _write_weights(out: Path, manifest: Manifest, stage: str, parameters: Mapping[str, Tensor]) -> str:
    """Write the parameters of one stage; return the file's SHA-256."""
    import torch
    from safetensors.torch import save_file

    types = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "auto": torch.float16}
    storage = types[manifest.dtype]
    tensors = {
        key: (value.to(storage) if value.is_floating_point() else value).contiguous()
        for key, value in parameters.items()
    }
    path = weights_path(out, stage)
    path.parent.mkdir(parents=True, exist_ok=True)
    # One entry: safetensors writes several in any order, and the same weights should have the same digest.
    save_file(tensors, path, metadata={"parameters": f"{manifest.preset} {stage}"})
    return sha256_of(path)


def write_configurations(repository: str | Path, calibration: Calibration | None = None) -> None:
    """(Re)write all but the weights, as the manifest says; with a calibration, the manifest gets that one first."""
    manifest = Manifest.read(repository)
    _write_around_weights(Path(repository), replace(manifest, calibration=calibration or manifest.calibration))


def _write_around_weights(repository: Path, manifest: Manifest) -> None:
    """Write the manifest, after what follows from it: a repository that has one is whole."""
    for path, content in configuration_files(manifest).items():
        _write(repository / path, content)
    partial = repository / f"{MANIFEST}.partial"
    _write(partial, (json.dumps(asdict(manifest), indent=2) + "\n").encode())
    partial.replace(repository / MANIFEST)


def configuration_files(manifest: Manifest) -> dict[str, bytes]:
    """Return {path in the repository: content} of every file that follows from the manifest."""
    preset = get_preset(manifest.preset)
    models = {m.name: m for m in contract.all_models(preset, manifest.embedding_dtype, manifest.backend)}
    files: dict[str, bytes] = {}
    for model in models.values():
        is_onnx = model.backend == contract.ONNXRUNTIME
        files[f"{model.name}/config.pbtxt"] = config_text(
            model,
            [models[name] for name in model.steps],
            model_parameters(model, preset, manifest),
            tensorrt(model, MAX_PHRASES) if is_onnx and manifest.tensorrt else None,
        ).encode()
        if model.backend == contract.ENSEMBLE:
            files[f"{model.name}/1/.gitkeep"] = b""  # Triton wants a version folder; git keeps no empty one
            continue
        is_entry = model.name == contract.SEGMENT
        module, adapter = ("segment_model", "SegmentModel") if is_entry else ("stage_model", "StageModel")
        if model.backend == contract.PYTHON:
            files[f"{model.name}/1/model.py"] = _MODEL_PY.format(
                name=model.name, summary=model.summary, module=module, adapter=adapter
            ).encode()
        if not is_entry:
            for name, content in warmup_files(model, preset, _sample_image()).items():
                files[f"{model.name}/warmup/{name}"] = content
    return files


def model_parameters(model: contract.Model, preset: Preset, manifest: Manifest) -> dict[str, str]:
    """Return what the Python code of a model reads from its configuration."""
    if model.backend != contract.PYTHON:
        return {}
    if model.name == contract.SEGMENT:
        models = contract.all_models(preset, manifest.embedding_dtype, manifest.backend)
        (phrases,) = (other for other in models if other.name == contract.SEGMENT_PHRASES)
        return {
            "preset": preset.name,
            # So that a server says what it serves, whatever computes its networks.
            "weights_sha256": digest_of([manifest.dtype, *sorted(manifest.weights_sha256.values())]),
            "feature_cache_mib": str(FEATURE_CACHE_MIB),
            "max_in_flight": str(MAX_IN_FLIGHT),
            "call_threads": str(CALL_THREADS),
            "phrase_calls": str(PHRASE_CALLS),
            "rows_per_call": str(phrases.max_batch_size),
        }
    parameters = {"stage": model.name, "preset": preset.name}
    if model.name == contract.POSTPROCESS:
        parameters["calibration"] = json.dumps(asdict(manifest.calibration))
    elif model.uses_device:
        parameters["dtype"] = manifest.dtype
        # On a CPU. With all cores, SAM's image encoder, which takes most of a new image's time, leaves none idle.
        parameters["threads"] = "all" if model.name == contract.SAM_IMAGE_ENCODER else "auto"
        # So that a server says what it serves.
        parameters["weights_sha256"] = manifest.weights_sha256.get(model.name, "")
    if model.name == contract.SAM_IMAGE_ENCODER:
        parameters["embedding_dtype"] = manifest.embedding_dtype
    return parameters


def _sample_image() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (128, 128, 128)).save(file, "BMP")  # the same bytes whatever Pillow's version
    return file.getvalue()
