"""A Triton that honours the contract of `segment` and `segment_ensemble`, without models behind it."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import InferenceServerException, InferResult, service_pb2, service_pb2_grpc
from tritonclient.grpc._utils import _get_inference_request
from tritonclient.utils import deserialize_bytes_tensor, np_to_triton_dtype, serialize_byte_tensor

from ssp_sam.config import PRESETS
from ssp_sam.errors import InvalidArgumentError, NotFoundError
from ssp_sam.results import encode_rle
from ssp_sam.serving import contract

PRESET = PRESETS["tiny"]
MODELS = {model.name: model for model in (contract.segment_model(PRESET), contract.ensemble_model(PRESET))}
MakeClient = Callable[..., Any]
HEIGHT, WIDTH = 30, 40
DTYPES = {"FP32": np.float32, "BYTES": np.object_}


def triton_error(message: str, status: str = "INTERNAL") -> InferenceServerException:
    return InferenceServerException(message, status=f"StatusCode.{status}")


def expected_mask(phrase: str) -> np.ndarray:
    """The mask that the fake gives: as many columns as the phrase has letters; none if it starts with "no "."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    if not phrase.startswith("no "):
        mask[:, : len(phrase)] = True
    return mask


@dataclass
class Request:
    """One request as it arrived."""

    model: str
    inputs: dict[str, np.ndarray]
    outputs: list[str]
    timeout_us: int | None
    client_timeout_s: float | None = None


@dataclass
class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """failures: errors that the next requests get, first to last. delay_s: how long each request takes."""

    failures: list[InferenceServerException] = field(default_factory=list)
    delay_s: float = 0.0
    ready: bool = True
    images: dict[str, bytes] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)
    closed: bool = False

    # --- as the model -------------------------------------------------------------------------------------------------

    def answer(self, message: Any, client_timeout_s: float | None = None) -> Any:
        request = _parse(message)
        request.client_timeout_s = client_timeout_s
        with self.lock:
            self.requests.append(request)
            failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        model = MODELS.get(request.model)
        if model is None:
            raise triton_error(f"Request for unknown model: '{request.model}' is not found", "NOT_FOUND")
        try:
            image_id = self._hold_image(request, model)
        except (InvalidArgumentError, NotFoundError) as error:
            raise triton_error(f"in ensemble 'segment', {error.tagged()}") from None
        phrases = [phrase.decode() for phrase in request.inputs["expressions"][0]]
        return _message(request, _outputs(phrases, image_id))

    def _hold_image(self, request: Request, model: contract.Model) -> str:
        for tensor in model.inputs:
            if tensor.name not in request.inputs:
                if not tensor.optional:
                    raise InvalidArgumentError(f"input {tensor.name} is missing")
                continue
            array = request.inputs[tensor.name]
            assert array.dtype == tensor.numpy_dtype
            assert array.ndim == 1 + len(tensor.dims)
            assert array.shape[0] == 1
            assert all(dim in (-1, side) for dim, side in zip(tensor.dims, array.shape[1:], strict=True))
        assert set(request.inputs) <= {tensor.name for tensor in model.inputs}
        assert set(request.outputs) <= {tensor.name for tensor in model.outputs}
        if "image" in request.inputs:
            assert "image_id" not in request.inputs
            encoded = request.inputs["image"][0, 0]
            image_id = hashlib.sha256(encoded).hexdigest()
            with self.lock:
                self.images[image_id] = encoded
            return image_id
        image_id = request.inputs["image_id"][0, 0].decode()
        if image_id not in self.images:
            raise NotFoundError(f"no image {image_id}")
        return image_id

    # --- as a gRPC service --------------------------------------------------------------------------------------------

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        time.sleep(self.delay_s)
        try:
            return self.answer(request, context.time_remaining())
        except InferenceServerException as error:
            context.abort(grpc.StatusCode[error.status().removeprefix("StatusCode.")], error.message())

    def ServerReady(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return service_pb2.ServerReadyResponse(ready=self.ready)

    def ModelReady(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return service_pb2.ModelReadyResponse(ready=request.name in MODELS)

    @contextmanager
    def listening(self, address: str = "127.0.0.1:0") -> Iterator[str]:
        options = [("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]
        server = grpc.server(futures.ThreadPoolExecutor(4), options=options)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, server)
        port = server.add_insecure_port(address)
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


@dataclass
class FakeTransport:
    """Takes the calls that tritonclient's `InferenceServerClient` takes."""

    server: FakeTriton

    def infer(self, model_name: str, inputs: list[Any], *, outputs: Any, timeout: int, client_timeout: float) -> Any:
        message = _get_inference_request(model_name, inputs, "", "", outputs, 0, False, False, 0, timeout, None)
        return InferResult(self.server.answer(message, client_timeout))

    def is_server_ready(self, *, client_timeout: float) -> bool:
        if self.server.failures:
            raise self.server.failures.pop(0)
        return self.server.ready

    def is_model_ready(self, model_name: str, *, client_timeout: float) -> bool:
        return model_name in MODELS

    def close(self) -> None:
        self.server.closed = True


class AsyncFakeTransport:
    """The same with coroutines."""

    def __init__(self, server: FakeTriton) -> None:
        self._transport = FakeTransport(server)

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **options: Any) -> Any:
            await asyncio.sleep(0)
            return getattr(self._transport, name)(*args, **options)

        return call


def _parse(message: Any) -> Request:
    inputs = {}
    for tensor, content in zip(message.inputs, message.raw_input_contents, strict=True):
        if tensor.datatype == "BYTES":
            flat = deserialize_bytes_tensor(content)
        else:
            flat = np.frombuffer(content, DTYPES[tensor.datatype])
        inputs[tensor.name] = flat.reshape(list(tensor.shape))
    timeout_us = message.parameters["timeout"].int64_param if "timeout" in message.parameters else None
    return Request(message.model_name, inputs, [output.name for output in message.outputs], timeout_us)


def _outputs(phrases: list[str], image_id: str) -> dict[str, np.ndarray]:
    masks = [expected_mask(phrase) for phrase in phrases]
    found = [mask.any() for mask in masks]
    tokens = np.full((len(phrases), PRESET.text_positions), b"", dtype=object)
    attention = np.zeros((len(phrases), PRESET.text_positions), dtype=np.float32)
    for i, phrase in enumerate(phrases):
        words = phrase.split()
        tokens[i, : len(words)] = [word.encode() for word in words]
        attention[i, : len(words)] = 1 / len(words)
    return {
        "masks": np.array([encode_rle(mask) for mask in masks], dtype=object),
        "box_xyxy_px": np.array(
            [[0, 0, len(p), HEIGHT] if f else [0] * 4 for p, f in zip(phrases, found, strict=True)], dtype=np.float32
        ),
        "score": np.linspace(0.9, 0.5, len(phrases), dtype=np.float32),
        "no_target": ~np.array(found),
        "area_px": np.array([mask.sum() for mask in masks], dtype=np.int64),
        "image_size": np.array([HEIGHT, WIDTH], dtype=np.int32),
        "image_id": np.array([image_id.encode()], dtype=object),
        "tokens": tokens,
        "phrase_attention": attention,
        "spatial_attention": np.ones((len(phrases), PRESET.clip.grid, PRESET.clip.grid), dtype=np.float32),
    }


def _message(request: Request, outputs: dict[str, np.ndarray]) -> Any:
    message = service_pb2.ModelInferResponse(model_name=request.model)
    for name in request.outputs:
        array = outputs[name][None]
        message.outputs.add(name=name, datatype=np_to_triton_dtype(array.dtype), shape=array.shape)
        content = serialize_byte_tensor(array).item() if array.dtype == object else array.tobytes()
        message.raw_output_contents.append(content)
    return message
