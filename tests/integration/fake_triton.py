"""A fake of `triton_python_backend_utils`: as much of it as the models use, and as unforgiving as the real one.

What the real one does and the fake therefore does too:

- inputs are gone once `execute` has returned: `execute` here overwrites their arrays;
- a response sender takes exactly one final response;
- an error of a call from one model to another keeps only its message (release 24.10 loses the status);
- a tensor must be contiguous and of a type that Triton has;
- a metric is gone when its family is.
"""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2 as pb

TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1

_TYPES: dict[str, Any] = {
    "TYPE_BOOL": np.bool_,
    "TYPE_UINT8": np.uint8,
    "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
    "TYPE_STRING": np.object_,
}


def triton_string_to_numpy(name: str) -> Any:
    return _TYPES[name]


class TritonError(Exception):
    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE, UNSUPPORTED, ALREADY_EXISTS, CANCELLED = range(8)

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        super().__init__(message)
        self._message, self._code = message, code

    def message(self) -> str:
        return self._message

    def code(self) -> int:
        return self._code


class TritonModelException(Exception):  # noqa: N818  # Triton's name
    """What the real module raises when the server refuses something."""


class Tensor:
    def __init__(self, name: str, array: np.ndarray) -> None:
        assert array.dtype in [np.dtype(kind) for kind in _TYPES.values()], f"{name}: Triton has no {array.dtype}"
        assert array.flags.c_contiguous, f"{name} is not contiguous"
        if array.dtype == np.object_:
            assert all(isinstance(value, bytes) for value in array.ravel()), f"{name} holds more than bytes"
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> np.ndarray:
        return self._array


TRITONSERVER_MEMORY_CPU, TRITONSERVER_MEMORY_GPU = range(2)


class PreferredMemory:
    def __init__(self, memory_type: int, device_id: int = 0) -> None:
        self.memory_type, self.device_id = memory_type, device_id


class InferenceResponse:
    def __init__(self, output_tensors: Sequence[Tensor] = (), error: TritonError | None = None) -> None:
        self._outputs, self._error = list(output_tensors), error

    def has_error(self) -> bool:
        return self._error is not None

    def error(self) -> TritonError | None:
        return self._error

    def output_tensors(self) -> list[Tensor]:
        return self._outputs

    def arrays(self) -> dict[str, np.ndarray]:
        """For tests: the outputs by name; fails on an error."""
        assert self._error is None, self._error.message()
        return {tensor.name(): tensor.as_numpy() for tensor in self._outputs}


class ResponseSender:
    def __init__(self) -> None:
        self.responses: list[InferenceResponse] = []
        self.done = threading.Event()
        self.cancelled = False

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        assert not self.done.is_set(), "a response was sent after the final one"
        if response is not None:
            self.responses.append(response)
        if flags == TRITONSERVER_RESPONSE_COMPLETE_FINAL:
            self.done.set()

    def is_cancelled(self) -> bool:
        return self.cancelled

    def answer(self, timeout_s: float = 30) -> InferenceResponse:
        """For tests: wait for the answer."""
        assert self.done.wait(timeout_s), "no answer came"
        (response,) = self.responses
        return response


Model = Callable[["InferenceRequest"], InferenceResponse]
models: dict[str, Model] = {}


class InferenceRequest:
    """One that a model received, or one that it sends to another model."""

    def __init__(
        self,
        inputs: Iterable[Tensor],
        requested_output_names: Sequence[str],
        model_name: str = "",
        timeout: int = 0,
        preferred_memory: PreferredMemory | None = None,
    ) -> None:
        self._inputs = {tensor.name(): tensor for tensor in inputs}
        self._outputs, self._model, self._timeout_us = list(requested_output_names), model_name, timeout
        self._preferred_memory = preferred_memory
        self.sender = ResponseSender()

    def inputs(self) -> list[Tensor]:
        return list(self._inputs.values())

    def requested_output_names(self) -> list[str]:
        return self._outputs

    def timeout(self) -> int:
        return self._timeout_us

    def get_response_sender(self) -> ResponseSender:
        return self.sender

    def exec(self) -> InferenceResponse:
        memory = self._preferred_memory
        # Else a backend that computes on a GPU leaves its answer there.
        assert memory is not None and memory.memory_type == TRITONSERVER_MEMORY_CPU
        response = models[self._model](self)
        if response.has_error():
            return InferenceResponse(error=TritonError(response.error().message(), TritonError.INTERNAL))
        assert {tensor.name() for tensor in response.output_tensors()} == set(self._outputs)
        return response


def get_input_tensor_by_name(request: InferenceRequest, name: str) -> Tensor | None:
    return request._inputs.get(name)


def get_output_tensor_by_name(response: InferenceResponse, name: str) -> Tensor | None:
    return next((tensor for tensor in response.output_tensors() if tensor.name() == name), None)


def _config(repository: Path, name: str) -> pb.ModelConfig:
    return text_format.Parse((repository / name / "config.pbtxt").read_text(), pb.ModelConfig())


def ensemble(name: str, repository: Path) -> Model:
    """For tests: return an ensemble of a repository, which calls its steps one after the other."""
    steps = _config(repository, name).ensemble_scheduling.step

    def answer(request: InferenceRequest) -> InferenceResponse:
        known = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        for step in steps:
            inputs = [Tensor(inner, known[outer]) for inner, outer in step.input_map.items() if outer in known]
            response = models[step.model_name](InferenceRequest(inputs, list(step.output_map), step.model_name))
            if response.has_error():
                message = f"in ensemble '{name}', {response.error().message()}"
                return InferenceResponse(error=TritonError(message, response.error().code()))
            known |= {step.output_map[each.name()]: each.as_numpy() for each in response.output_tensors()}
        return InferenceResponse([Tensor(output, known[output]) for output in request.requested_output_names()])

    return answer


def model_arguments(repository: Path, name: str) -> dict[str, str]:
    """For tests: return what Triton hands to `initialize` of a model in a repository."""
    config = _config(repository, name)
    for parameter in config.parameters:
        if parameter == "threads":
            config.parameters[parameter].string_value = "1"
    return {
        "model_config": json.dumps(json_format.MessageToDict(config, preserving_proto_field_name=True)),
        "model_name": name,
        "model_repository": str(repository / name),
        "model_instance_kind": "CPU",
        "model_instance_device_id": "0",
        "model_version": "1",
    }


def execute(model: Any, requests: Sequence[InferenceRequest]) -> Any:
    """For tests: call a model's `execute` as Triton does, and take the inputs away afterwards."""
    answer = model.execute(requests)
    for request in requests:
        for tensor in request.inputs():
            tensor.as_numpy().fill(b"freed" if tensor.as_numpy().dtype == np.object_ else 77)
    return answer


class Logger:
    errors: list[str] = []  # noqa: RUF012  # of the whole process, as the real one
    warnings: list[str] = []  # noqa: RUF012

    @classmethod
    def log_error(cls, message: str) -> None:
        cls.errors.append(message)

    @classmethod
    def log_warn(cls, message: str) -> None:
        cls.warnings.append(message)


class Metric:
    def __init__(self, family: MetricFamily) -> None:
        self._family, self._kind, self._value = weakref.ref(family), family.kind, 0.0

    def _check(self) -> None:
        if self._family() is None:
            raise TritonModelException("the metric went with its family")

    def increment(self, by: float) -> None:
        self._check()
        assert self._kind == MetricFamily.GAUGE or by >= 0, "a counter only rises"
        self._value += by

    def set(self, value: float) -> None:
        self._check()
        assert self._kind == MetricFamily.GAUGE, "a counter cannot be set"
        self._value = value

    def value(self) -> float:
        self._check()
        return self._value


class MetricFamily:
    COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
    metrics: dict[str, Metric] = {}  # noqa: RUF012  # of the whole process, as the real one

    def __init__(self, name: str, description: str, kind: str) -> None:
        assert description
        self.name, self.kind = name, kind

    def Metric(self, labels: dict[str, str]) -> Metric:  # noqa: N802
        metric = Metric(self)
        self.metrics[self.name] = metric
        return metric
