"""Weights in 8 bits against the same in float32."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ssp_sam.networks import Array
from ssp_sam.networks._private_openvino import CORE, openvino
from ssp_sam.networks.int8_weights import quantise, with_int8_weights

WEIGHTS = arrays.arrays(np.float32, (5, 7), elements=st.floats(-100, 100, width=32))


@given(WEIGHTS, st.sampled_from([0, 1]))
def test_no_weight_is_off_by_more_than_half_a_step_of_its_output(weights: Array, axis: int) -> None:
    quantised, scale = quantise(weights, axis)
    assert quantised.dtype == np.int8 and scale.dtype == np.float32 and scale.shape[axis] == 1
    step = np.abs(weights).max(axis, keepdims=True) / 127
    assert (np.abs(quantised * scale - weights) <= 0.501 * step + 1e-30).all()


@pytest.mark.parametrize("transposed", [False, True])
def test_only_matrices_of_weights_become_int8(transposed: bool) -> None:
    ops, rng = openvino.opset13, np.random.default_rng(0)
    weights = rng.standard_normal((6, 4) if transposed else (4, 6)).astype(np.float32)
    given_ = ops.parameter([-1, 4], np.float32)
    product = ops.matmul(given_, ops.constant(weights), False, transposed)
    model = openvino.Model([ops.matmul(product, product, False, True)], [given_])  # two activations: left as they are
    x = rng.standard_normal((3, 4)).astype(np.float32)

    smaller = with_int8_weights(model)
    kinds = [str(node.get_element_type()) for node in smaller.get_ops() if node.get_type_name() == "Constant"]
    assert sum("int8" in kind for kind in kinds) == 1
    assert not any("int8" in str(node.get_element_type()) for node in model.get_ops()), "the first is untouched"
    whole, small = (CORE.compile_model(each, "CPU")([x])[0] for each in (model, smaller))
    # Two products, each off by at most half a step (1/254 of the largest weight) of every term.
    np.testing.assert_allclose(small, whole, atol=0.02 * float(np.abs(whole).max()))
    assert not np.array_equal(small, whole)
