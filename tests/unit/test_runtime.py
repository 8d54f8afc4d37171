from __future__ import annotations

import os

import pytest
import torch

from ssp_sam.errors import InvalidArgumentError
from ssp_sam.runtime import Runtime, set_cpu_threads


def test_a_cpu_computes_in_float32_unless_told_otherwise() -> None:
    assert Runtime.choose("cpu").dtype == torch.float32
    assert Runtime.choose("cpu", "bf16").dtype == torch.bfloat16


def test_an_unknown_dtype_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InvalidArgumentError, match="unknown dtype 'int8'; allowed: auto, fp32, bf16, fp16"):
        Runtime.choose("cpu", "int8")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_have_the_chosen_precision_and_no_gradients(dtype: torch.dtype) -> None:
    a = torch.randn(3, 3, requires_grad=True)
    with Runtime(torch.device("cpu"), dtype)():
        product = a @ a
    assert product.dtype == dtype
    assert not product.requires_grad
    assert (a @ a).requires_grad


def test_threads() -> None:
    before = torch.get_num_threads()
    try:
        set_cpu_threads("1")
        assert torch.get_num_threads() == 1
        set_cpu_threads("auto")
        assert torch.get_num_threads() == max(1, len(os.sched_getaffinity(0)) // 2)
    finally:
        torch.set_num_threads(before)
