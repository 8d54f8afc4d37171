"""Networks that OpenVINO computes: on a CPU with bfloat16 instructions they are faster than PyTorch's.

Converting a network takes seconds and PyTorch; what comes out is kept on disk, so that the next process needs neither.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ssp_sam.config import Preset
from ssp_sam.digest import sha256_of
from ssp_sam.errors import error_from_message
from ssp_sam.networks import Array, Network
from ssp_sam.networks._private_openvino import CORE
from ssp_sam.serving import contract

CACHE_VARIABLE = "SSP_SAM_CACHE"
"""The environment variable that says where converted networks are kept; they may be deleted at any time."""

_UNUSED_S = 30 * 24 * 3600.0
"""What nobody has read for so long is deleted when something new is kept."""

_PRECISIONS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_PARTS = {contract.SSP_PROMPT_GENERATOR: ("compare", "write")}
_WHOLE = ("whole",)
# What decides how a network is converted, beside its weights.
_PACKAGES = ("openvino", "segment-anything", "torch", "transformers")
_SOURCES = Path(__file__).resolve().parents[1]

_log = logging.getLogger(__name__)


def load_openvino_network(stage: str, preset: Preset, weights: Path, precision: str, threads: int) -> Network:
    """Return the network of a stage with the parameters of a safetensors file; see `ssp_sam.networks.load_network`."""
    folder = cache_folder() / f"{stage}-{_key(stage, preset, weights)}"
    models = _read(stage, folder) or _converted(stage, preset, weights, folder)
    return openvino_network(stage, models, precision, threads)


def _read(stage: str, folder: Path) -> dict[str, Any] | None:
    """Return the parts of a network that was kept, or None if it was not."""
    files = {name: folder / f"{name}.xml" for name in _PARTS.get(stage, _WHOLE)}
    if not all(file.exists() for file in files.values()):
        return None
    models = {name: CORE.read_model(file) for name, file in files.items()}
    with contextlib.suppress(OSError):  # a cache that others may only read
        os.utime(folder)
    return models


def openvino_network(stage: str, models: Mapping[str, Any], precision: str, threads: int) -> Network:
    """Return the network of a stage made of its converted parts."""
    if stage == contract.SSP_PROMPT_GENERATOR:
        # Patches and phrase are compared in float32, whatever the rest is computed in.
        return _PromptGenerator(_Part(models["compare"], "fp32", threads), _Part(models["write"], precision, threads))
    return _Part(models["whole"], precision, threads)


class _Part:
    """A compiled model."""

    def __init__(self, model: Any, precision: str, threads: int) -> None:
        settings = {
            "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            # Stages are processes that compute side by side: pinned, each would choose the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        self._dtypes = [tensor.get_element_type().to_dtype() for tensor in model.inputs]
        self._compiled = CORE.compile_model(model, "CPU", settings)
        self._of_thread = threading.local()

    def __call__(self, *arrays: Array) -> tuple[Array, ...]:
        """Compute."""
        inputs = [np.ascontiguousarray(array, dtype) for array, dtype in zip(arrays, self._dtypes, strict=True)]
        outputs = self._request().infer(inputs, share_inputs=True, share_outputs=True)
        return tuple(np.array(outputs[index]) for index in range(len(outputs)))

    def _request(self) -> Any:
        """Return this thread's request: it owns the memory of one call."""
        if not hasattr(self._of_thread, "request"):
            self._of_thread.request = self._compiled.create_infer_request()
        return self._of_thread.request


class _PromptGenerator:
    """The SSP encoder of its two parts; called like `SspPromptGenerator`."""

    def __init__(self, compare: _Part, write: _Part) -> None:
        self._compare, self._write = compare, write

    def __call__(
        self, clip_tokens: Array, token_ids: Array, text_embedding: Array, word_embeddings: Array, image_index: Array
    ) -> tuple[Array, ...]:
        """Compute."""
        patches, similarity, similarity_map = self._compare(clip_tokens, text_embedding, image_index)
        return *self._write(patches, similarity_map, image_index, token_ids, word_embeddings), similarity


def cache_folder() -> Path:
    """Return where converted networks are kept."""
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ssp-sam"


def _key(stage: str, preset: Preset, weights: Path) -> str:
    """Return a name for all that a converted network depends on."""
    sources = [*sorted((_SOURCES / "modeling").glob("*.py")), _SOURCES / "networks" / "openvino_conversion.py"]
    depends_on = {
        "stage": stage,
        "preset": asdict(preset),
        "weights": sha256_of(weights),
        "packages": {package: version(package) for package in _PACKAGES},
        "sources": [sha256_of(source) for source in sources],
    }
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:20]


def _converted(stage: str, preset: Preset, weights: Path, folder: Path) -> dict[str, Any]:
    """Convert a network and keep it in `folder`; without a place to keep it the next process converts it again."""
    partial = _new_folder(folder.parent)
    try:
        _convert_in_a_process(stage, preset, weights, partial)
        if partial.parent == folder.parent:
            with contextlib.suppress(OSError):  # another process was faster
                partial.rename(folder)
        # Always from the files: what is read from them rounds a few numbers otherwise than what was written to them.
        models = _read(stage, folder) or _read(stage, partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    assert models is not None
    return models


def _new_folder(cache: Path) -> Path:
    """Return an empty folder, in the cache if that can be written."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _forget_unused(cache)
        return Path(tempfile.mkdtemp(dir=cache, prefix=".partial-"))
    except OSError as error:
        _log.warning("converted networks are not kept in %s (%s): each start converts them again", cache, error)
        return Path(tempfile.mkdtemp())


def _convert_in_a_process(stage: str, preset: Preset, weights: Path, folder: Path) -> None:
    """Write the parts of a network to a folder. In a process of its own, since PyTorch would stay in this one.

    Raises what converting raises, as far as it is a SegmentationError.
    """
    command = [sys.executable, "-m", "ssp_sam.networks.openvino_conversion"]
    asked = pickle.dumps((stage, preset, weights.resolve(), folder))
    done = subprocess.run(command, input=asked, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        _log.error("the conversion of %s failed:\n%s", stage, said)
        raise error_from_message(said.rpartition("\n")[2] or f"the conversion of {stage} ended with {done.returncode}")


def _forget_unused(cache: Path) -> None:
    """Delete what belongs to weights, or versions of packages, that are gone by all appearance."""
    for folder in cache.iterdir():
        if folder.is_dir() and time.time() - folder.stat().st_mtime > _UNUSED_S:
            shutil.rmtree(folder, ignore_errors=True)
