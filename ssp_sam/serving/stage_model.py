"""The Triton side of a stage: requests in, `Stage.run`, responses out. Imported by the stages' `model.py`."""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from ssp_sam.errors import InvalidArgumentError, SegmentationError
from ssp_sam.runtime import keep_freed_memory
from ssp_sam.serving.repository import weights_path
from ssp_sam.serving.stages import Answer, Array, Row, Stage, load_stage


class StageModel:
    """A Triton Python model that answers with the stage which its configuration names."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the stage on the device that Triton gives this instance."""
        keep_freed_memory()
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
        self.name = args["model_name"]
        self.input_dims = dims_of(config["input"])
        self.output_dtypes = {
            tensor["name"]: pb_utils.triton_string_to_numpy(tensor["data_type"]) for tensor in config["output"]
        }
        is_gpu = args["model_instance_kind"] == "GPU"
        device = f"cuda:{args['model_instance_device_id']}" if is_gpu else "cpu"
        weights = weights_path(Path(args["model_repository"]).parent, Path(args["model_repository"]).name)
        self.stage: Stage = load_stage(parameters["stage"], parameters, weights, device)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer every request; an error is the answer of its own request only."""
        read = [self._rows(request) for request in requests]
        rows = [row for of_request in read if not isinstance(of_request, SegmentationError) for row in of_request]
        answers = iter(self._run(rows) if rows else [])
        return [
            self._response(
                request,
                [of_request] if isinstance(of_request, SegmentationError) else [next(answers) for _ in of_request],
            )
            for request, of_request in zip(requests, read, strict=True)
        ]

    def _rows(self, request: Any) -> list[Row] | SegmentationError:
        """Split a request along its batch dimension."""
        try:
            arrays = inputs_of(request, self.input_dims)
        except SegmentationError as error:
            return error
        batch = len(next(iter(arrays.values())))
        return [{name: array[row] for name, array in arrays.items()} for row in range(batch)]

    def _run(self, rows: Sequence[Row]) -> Sequence[Answer]:
        try:
            answers = self.stage.run(rows)
        except Exception as error:  # the boundary: raising here would leave the requests of the batch without answers
            pb_utils.Logger.log_error(f"{self.name}: {traceback.format_exc()}")
            failure = SegmentationError(
                f"{self.name} failed on a batch of {len(rows)}: {type(error).__name__}; see the log"
            )
            return [failure] * len(rows)
        for answer in answers:
            if type(answer) is SegmentationError:  # what nobody expected; the others say what the caller did
                pb_utils.Logger.log_error(f"{self.name}: {''.join(traceback.format_exception(answer))}")
        return answers

    def _response(self, request: Any, answers: Sequence[Answer]) -> Any:
        rows: list[dict[str, Array]] = []
        for answer in answers:
            if isinstance(answer, SegmentationError):
                return pb_utils.InferenceResponse(error=triton_error(answer))
            rows.append(answer)
        outputs = [
            to_tensor(name, np.stack([row[name] for row in rows]).astype(self.output_dtypes[name], copy=False))
            for name in request.requested_output_names()
            if name in rows[0]  # by default all are asked for, also what would follow from an input left out
        ]
        return pb_utils.InferenceResponse(output_tensors=outputs)


def dims_of(tensors: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many dimensions each tensor of a model configuration has, that of the batch not counted."""
    return {tensor["name"]: len(tensor["dims"]) for tensor in tensors}


def inputs_of(request: Any, dims: Mapping[str, int]) -> dict[str, Array]:
    """Return the inputs that came with a request, at least one row in each.

    Raises InvalidArgumentError for a batch of 0: Triton lets it pass, without its batch dimension.
    """
    tensors = {name: pb_utils.get_input_tensor_by_name(request, name) for name in dims}
    arrays = {name: tensor.as_numpy() for name, tensor in tensors.items() if tensor is not None}
    for name, array in arrays.items():
        if array.ndim != dims[name] + 1 or not len(array):
            raise InvalidArgumentError(
                f"{name} has no row: its shape must begin with the size of the batch, at least 1; got {array.shape}"
            )
    return arrays


def to_tensor(name: str, values: Array) -> Any:
    """Return a Triton tensor of an array."""
    return pb_utils.Tensor(name, np.ascontiguousarray(values))


def triton_error(error: SegmentationError) -> Any:
    """Return Triton's form of an error: its nearest status, and the exact one in front of the message."""
    codes = {
        "INVALID_ARGUMENT": pb_utils.TritonError.INVALID_ARG,
        "NOT_FOUND": pb_utils.TritonError.NOT_FOUND,
        "UNAVAILABLE": pb_utils.TritonError.UNAVAILABLE,
        "CANCELLED": pb_utils.TritonError.CANCELLED,
        # Triton has no status of its own for this; its queues say UNAVAILABLE when a time-out expires.
        "DEADLINE_EXCEEDED": pb_utils.TritonError.UNAVAILABLE,
    }
    return pb_utils.TritonError(error.tagged(), codes.get(error.code, pb_utils.TritonError.INTERNAL))
