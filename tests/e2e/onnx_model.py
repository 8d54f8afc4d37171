"""Stands in for Triton's ONNX Runtime backend, which no package brings here: the same files, the same tensors.

It runs `model.onnx` beside it with ONNX Runtime, one call for all rows of a batch that Triton has put together.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Checks what the real backend checks: that the file has the tensors of the configuration."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        file = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = [tensor["name"] for tensor in config["output"]]
        assert {tensor.name for tensor in self.session.get_inputs()} == set(self.inputs)
        assert {tensor.name for tensor in self.session.get_outputs()} == set(self.outputs)

    def execute(self, requests: list[Any]) -> list[Any]:
        rows = [
            {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
            for request in requests
        ]
        counts = np.cumsum([len(next(iter(row.values()))) for row in rows])
        together = {name: np.concatenate([row[name] for row in rows]) for name in self.inputs}
        answers = self.session.run(self.outputs, together)
        parts = zip(*(np.split(answer, counts[:-1]) for answer in answers), strict=True)
        return [
            pb_utils.InferenceResponse(
                output_tensors=[
                    pb_utils.Tensor(name, np.ascontiguousarray(value))
                    for name, value in zip(self.outputs, part, strict=True)
                    if name in request.requested_output_names()
                ]
            )
            for request, part in zip(requests, parts, strict=True)
        ]
