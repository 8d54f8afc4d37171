"""The served model repository on disk: who writes it, and what stands in it.

::

    manifest.json                   preset, dtype, calibration, where the weights came from
    <model>/config.pbtxt            generated from the contract
    <model>/1/model.py              the same few lines for every Python model
    <model>/1/model.safetensors     parameters of that stage
    <model>/warmup/<input>          warm-up inputs
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ssp_sam.config import Preset, get_preset
from ssp_sam.digest import sha256_of
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.postprocess import Calibration
from ssp_sam.serving import contract
from ssp_sam.serving.model_config import config_text, warmup_files

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "manifest.json"
FORMAT_VERSION = 1

# Defaults of the entry `segment`; change them in its config.pbtxt parameters.
FEATURE_CACHE_MIB = 512
MAX_IN_FLIGHT = 256
CALL_THREADS = 64

_MODEL_PY = '''"""Triton model `{name}`: {summary}."""

from ssp_sam.serving.{module} import {adapter} as TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


@dataclass(frozen=True)
class Manifest:
    """What a repository serves.

    dtype: precision of the stored weights and of computation ("fp32", "bf16" or "fp16"; "auto" stores fp16 and computes
    in what suits the device). source: where the weights came from, for people. weights_sha256: by stage. versions: of
    the packages that wrote the weights.
    """

    preset: str
    dtype: str
    calibration: Calibration = field(default_factory=Calibration)
    source: Mapping[str, str] = field(default_factory=dict)
    weights_sha256: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
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
        except FileNotFoundError:
            raise InvalidArgumentError(
                f"{repository} is no model repository of SSP-SAM: it has no {MANIFEST}"
            ) from None
        if values.get("format_version") != FORMAT_VERSION:
            raise InvalidArgumentError(
                f"{path} has format version {values.get('format_version')!r}; this release reads {FORMAT_VERSION}"
            )
        return cls(**{**values, "calibration": Calibration.from_json(values["calibration"])})


def weights_path(repository: str | Path, stage: str) -> Path:
    """Return where the parameters of `stage` lie."""
    return Path(repository) / stage / "1" / "model.safetensors"


def write_repository(
    out: str | Path,
    preset: Preset,
    stages: Mapping[str, Mapping[str, Tensor]],
    *,
    dtype: str,
    calibration: Calibration,
    source: Mapping[str, str],
) -> None:
    """Write a whole repository: weights of all stages (floating-point ones in `dtype`), manifest, configurations.

    Stages are taken from the mapping one by one, so that one that makes them on demand is never held whole.
    """
    digests = {stage: _write_weights(weights_path(out, stage), preset, stage, stages[stage], dtype) for stage in stages}
    versions = {package: version(package) for package in ("ssp-sam", "torch", "safetensors")}
    manifest = Manifest(preset.name, dtype, calibration, source, digests, versions)
    (Path(out) / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")
    write_configurations(out)


def _write_weights(path: Path, preset: Preset, stage: str, parameters: Mapping[str, Tensor], dtype: str) -> str:
    """Write the parameters of one stage; return the file's SHA-256."""
    import torch
    from safetensors.torch import save_file

    storage = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "auto": torch.float16}[dtype]
    tensors = {
        key: (value.to(storage) if value.is_floating_point() else value).contiguous()
        for key, value in parameters.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    # One entry: safetensors writes several in any order, and the same weights should have the same digest.
    save_file(tensors, path, metadata={"parameters": f"{preset.name} {stage}"})
    return sha256_of(path)


def write_configurations(repository: str | Path) -> None:
    """(Re)write all but the weights and the manifest, which say what to write."""
    for path, content in configuration_files(Manifest.read(repository)).items():
        target = Path(repository) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def configuration_files(manifest: Manifest) -> dict[str, bytes]:
    """Return {path in the repository: content} of every file that follows from the manifest."""
    preset = get_preset(manifest.preset)
    files: dict[str, bytes] = {}
    for model in contract.all_models(preset, manifest.embedding_dtype):
        parameters = model_parameters(model.name, preset, manifest)
        files[f"{model.name}/config.pbtxt"] = config_text(model, preset, manifest.embedding_dtype, parameters).encode()
        if model.name == contract.SEGMENT_ENSEMBLE:
            files[f"{model.name}/1/.gitkeep"] = b""  # Triton wants a version folder; git keeps no empty one
            continue
        is_entry = model.name == contract.SEGMENT
        module, adapter = ("segment_model", "SegmentModel") if is_entry else ("stage_model", "StageModel")
        files[f"{model.name}/1/model.py"] = _MODEL_PY.format(
            name=model.name, summary=model.summary, module=module, adapter=adapter
        ).encode()
        if not is_entry:
            for name, content in warmup_files(model, preset, _sample_image()).items():
                files[f"{model.name}/warmup/{name}"] = content
    return files


def model_parameters(name: str, preset: Preset, manifest: Manifest) -> dict[str, str]:
    """Return what the Python code of the model `name` reads from its configuration."""
    if name == contract.SEGMENT:
        return {
            "preset": preset.name,
            "feature_cache_mib": str(FEATURE_CACHE_MIB),
            "max_in_flight": str(MAX_IN_FLIGHT),
            "call_threads": str(CALL_THREADS),
        }
    if name == contract.SEGMENT_ENSEMBLE:
        return {}
    parameters = {"stage": name, "preset": preset.name}
    if name == contract.POSTPROCESS:
        parameters["calibration"] = json.dumps(asdict(manifest.calibration))
    elif name != contract.PREPROCESS:
        parameters["dtype"] = manifest.dtype
        parameters["threads"] = "auto"
        parameters["weights_sha256"] = manifest.weights_sha256.get(name, "")  # so that a server says what it serves
    if name == contract.SAM_IMAGE_ENCODER:
        parameters["embedding_dtype"] = manifest.embedding_dtype
    return parameters


def _sample_image() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (128, 128, 128)).save(file, "BMP")  # the same bytes whatever Pillow's version
    return file.getvalue()
