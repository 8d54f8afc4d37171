"""Weights in 8 bits: products of integers, for CPUs that multiply these faster than floats."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssp_sam.networks import Array
from ssp_sam.networks._private_openvino import openvino

GROUP = 64
"""So many neighbouring activations share a scale. It divides the widths of all presets' networks; with 32, the masks of
`tiny` became worse."""

_LARGEST = 127


def with_int8_weights(model: Any) -> Any:
    """Return a copy of a model of OpenVINO whose matrices of weights are int8, with a scale for each output.

    What multiplies them is quantised by OpenVINO as it computes, GROUP numbers at a time
    (`DYNAMIC_QUANTIZATION_GROUP_SIZE`), so nothing has to be calibrated. Convolutions stay as they are.
    """
    copy = model.clone()
    for node in copy.get_ordered_ops():
        weights = node.input_value(1).get_node() if node.get_type_name() == "MatMul" else None
        if weights is None or weights.get_type_name() != "Constant" or len(weights.shape) != 2:
            continue
        inputs_axis = 1 if node.get_attributes()["transpose_b"] else 0
        quantised, scale = quantise(weights.get_data(), inputs_axis)
        ops = openvino.opset13
        widened = ops.convert(ops.constant(quantised), "f32")
        node.input(1).replace_source_output(ops.multiply(widened, ops.constant(scale)).output(0))
    return copy


def quantise(weights: Array, axis: int) -> tuple[Array, Array]:
    """Return int8 numbers and the float32 scales that they are to be multiplied by, of size 1 along `axis`."""
    scale = np.abs(weights).max(axis, keepdims=True).astype(np.float32) / _LARGEST
    scale[scale == 0] = 1.0
    return np.rint(weights / scale).astype(np.int8), scale
