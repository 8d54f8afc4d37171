"""Every network as an ONNX file: for any number of images and phrases it answers what PyTorch answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from ssp_sam.config import get_preset
from ssp_sam.modeling.ssp_sam import STAGES
from ssp_sam.onnx_export import example_inputs, onnx_graph

TINY = get_preset("tiny")


@pytest.mark.parametrize("stage", STAGES)
def test_onnx_runtime_answers_what_pytorch_answers(stage: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = STAGES[stage](TINY)
    for name, parameter in network.named_parameters():
        if "rel_pos" in name:  # zeros to begin with
            nn.init.normal_(parameter)
    graph = onnx_graph(stage, network, TINY, "FP16")
    file = tmp_path / "model.onnx"
    graph.export(file, TINY)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    assert [tensor.name for tensor in session.get_inputs()] == [tensor.name for tensor in graph.model.inputs]
    assert [tensor.name for tensor in session.get_outputs()] == [tensor.name for tensor in graph.model.outputs]
    for images, phrases in ((1, 1), (2, 5), (3, 1)):
        inputs = example_inputs(graph.model, TINY, images=images, phrases=phrases)
        with torch.inference_mode():
            expected = graph.module(*inputs.values())
        answers = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        for answer, wanted, tensor in zip(answers, expected, graph.model.outputs, strict=True):
            assert answer.dtype == np.dtype(tensor.numpy_dtype)
            assert answer.shape == (images, *(phrases if dim == -1 else dim for dim in tensor.dims))
            scale = wanted.abs().max().item()
            tolerance = 2e-3 if tensor.dtype == "FP16" else 1e-5
            np.testing.assert_allclose(answer, wanted.numpy(), atol=tolerance * scale, rtol=0)
