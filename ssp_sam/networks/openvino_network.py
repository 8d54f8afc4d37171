"""Networks that OpenVINO computes: on a CPU they are faster than PyTorch's."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssp_sam.config import Preset
from ssp_sam.networks import Array, Network
from ssp_sam.networks._private_openvino import CORE, openvino
from ssp_sam.networks.converted import Source, converted_files
from ssp_sam.networks.int8_weights import GROUP, with_int8_weights
from ssp_sam.networks.recent_images import RecentImages
from ssp_sam.serving import contract

_PRECISIONS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}

_Halves = tuple[int, ...]
"""Which inputs come in float16, by their place."""


def load_openvino_network(stage: str, preset: Preset, weights: Path, precision: str, threads: int) -> Network:
    """Return the network of a stage with the parameters of a safetensors file; see `ssp_sam.networks.load_network`."""
    with converted_files(Source(stage, preset, weights)) as files:
        models = {name: CORE.read_model(file) for name, file in files.items()}
    return openvino_network(stage, models, precision, threads)


def openvino_network(stage: str, models: Mapping[str, Any], precision: str, threads: int) -> Network:
    """Return the network of a stage made of its converted parts."""
    if stage == contract.SSP_PROMPT_GENERATOR:
        # Patches and phrase are compared in float32, whatever the rest is computed in.
        return _PromptGenerator(_Part(models["compare"], "fp32", threads), _Part(models["write"], precision, threads))
    if stage == contract.MASK_DECODER:
        return _MaskDecoder(_Part(models["see"], precision, threads), _Part(models["decode"], precision, threads))
    whole = _Part(models["whole"], precision, threads)
    return _ImageByImage(whole) if stage in (contract.SAM_IMAGE_ENCODER, contract.CLIP_IMAGE_ENCODER) else whole


class _Requests(threading.local):
    """Those of the calling thread, by their inputs in float16."""

    def __init__(self) -> None:
        self.requests: dict[_Halves, Any] = {}


class _Part:
    """A model, compiled when the first call says which of its inputs come in float16.

    OpenVINO widens those faster than numpy, which took 0.3 ms for an image embedding of `tiny`.
    """

    def __init__(self, model: Any, precision: str, threads: int) -> None:
        self._settings = {
            "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP if precision == "int8" else 0,
            # Stages are processes that compute side by side: pinned, each would choose the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        self._model = with_int8_weights(model) if precision == "int8" else model
        self._dtypes = [tensor.get_element_type().to_dtype() for tensor in model.inputs]
        self._compiled: dict[_Halves, Any] = {}
        self._compiling = threading.Lock()
        self._of_thread = _Requests()

    def __call__(self, *arrays: Array) -> tuple[Array, ...]:
        """Compute."""
        halves = tuple(index for index, array in enumerate(arrays) if array.dtype == np.float16)
        inputs = [
            np.ascontiguousarray(array, None if index in halves else dtype)
            for index, (array, dtype) in enumerate(zip(arrays, self._dtypes, strict=True))
        ]
        outputs = self._request(halves).infer(inputs, share_inputs=True, share_outputs=True)
        return tuple(np.array(outputs[index]) for index in range(len(outputs)))

    def _request(self, halves: _Halves) -> Any:
        """Return this thread's request: it owns the memory of one call."""
        requests = self._of_thread.requests
        if halves not in requests:
            requests[halves] = self._compile(halves).create_infer_request()
        return requests[halves]

    def _compile(self, halves: _Halves) -> Any:
        with self._compiling:
            if halves not in self._compiled:
                widened = openvino.preprocess.PrePostProcessor(self._model.clone())
                for index in halves:
                    widened.input(index).tensor().set_element_type(openvino.Type.f16)
                self._compiled[halves] = CORE.compile_model(widened.build(), "CPU", self._settings)
            return self._compiled[halves]


class _ImageByImage:
    """An image encoder. Together, images take a CPU as long as one by one, but as much more memory as they are many."""

    def __init__(self, encode: _Part) -> None:
        self._encode = encode

    def __call__(self, *arrays: Array) -> tuple[Array, ...]:
        """Compute."""
        answers = [self._encode(*(array[i : i + 1] for array in arrays)) for i in range(len(arrays[0]))]
        return answers[0] if len(answers) == 1 else tuple(np.concatenate(parts) for parts in zip(*answers, strict=True))


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


class _MaskDecoder:
    """The mask decoder of its two parts; called like `MaskDecoder`. It remembers what it saw of recent images."""

    def __init__(self, see: _Part, decode: _Part) -> None:
        self._see, self._decode = RecentImages(see), decode

    def __call__(self, image_embedding: Array, prompt_tokens: Array, image_index: Array) -> tuple[Array, ...]:
        """Compute."""
        first, *others = (self._see(image) for image in image_embedding)
        seen = [np.concatenate(parts) for parts in zip(first, *others, strict=True)] if others else first
        return self._decode(*seen, prompt_tokens, image_index)
