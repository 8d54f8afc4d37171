from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from ssp_sam.config import get_preset
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.runtime import Runtime, set_cpu_threads, stage_runtime

CPU_WITHOUT: dict[str, bool] = {"avx2": True}
CPU_WITH_BF16 = {"avx2": True, "avx512_bf16": True}


def test_a_cpu_computes_in_float32_unless_told_otherwise() -> None:
    assert Runtime.choose("cpu", "auto").dtype == torch.float32
    assert Runtime.choose("cpu", "bf16").dtype == torch.bfloat16


@pytest.mark.parametrize(("capabilities", "dtype"), [(CPU_WITH_BF16, torch.bfloat16), (CPU_WITHOUT, torch.float32)])
def test_a_cpu_computes_in_the_type_of_its_stage_only_where_it_has_instructions_for_it(
    capabilities: dict[str, bool], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    tiny = get_preset("tiny")
    assert stage_runtime("sam_image_encoder", tiny, "cpu", "auto").dtype == dtype
    assert stage_runtime("sam_image_encoder", tiny, "cpu", "fp32").dtype == torch.float32
    assert stage_runtime("mask_decoder", tiny, "cpu", "auto").dtype == torch.float32


def test_the_ssp_encoder_computes_in_float32_always() -> None:
    for device in ("cpu", "cuda"):
        assert stage_runtime("ssp_prompt_generator", get_preset("tiny"), device, "bf16").dtype == torch.float32


def test_an_unknown_dtype_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InvalidArgumentError, match="unknown dtype 'int8'; allowed: auto, fp32, bf16, fp16"):
        Runtime.choose("cpu", "int8")


def test_weights_of_products_are_kept_in_the_precision_of_the_products_and_all_else_is_not() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Embedding(3, 4))
    placed = Runtime(torch.device("cpu"), torch.bfloat16).place(network)
    assert [parameter.dtype for parameter in placed[0].parameters()] == [torch.bfloat16] * 2
    assert {parameter.dtype for layer in placed[1:] for parameter in layer.parameters()} == {torch.float32}
    assert not placed.training and not any(parameter.requires_grad for parameter in placed.parameters())
    with Runtime(torch.device("cpu"), torch.bfloat16)():
        assert placed[0](torch.randn(2, 4)).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_have_the_chosen_precision_and_no_gradients(dtype: torch.dtype) -> None:
    a = torch.randn(3, 3, requires_grad=True)
    with Runtime(torch.device("cpu"), dtype)():
        product = a @ a
    assert product.dtype == dtype
    assert not product.requires_grad
    assert (a @ a).requires_grad


def test_a_gpu_computes_in_float16_unless_told_otherwise() -> None:
    assert Runtime.choose("cuda", "auto").dtype == torch.float16
    assert Runtime.choose("cuda", "bf16").dtype == torch.bfloat16


def test_freed_memory_is_used_again() -> None:
    """Counts the pages that the kernel has to map anew; in a process of its own, as the setting cannot be undone."""
    script = """if True:
        import resource, torch
        from ssp_sam.config import get_preset
        from ssp_sam.modeling.sam import MaskDecoder
        from ssp_sam.runtime import keep_freed_memory

        keep_freed_memory()
        torch.set_num_threads(1)
        decoder = MaskDecoder(get_preset("tiny").sam)
        embedding, prompts, index = torch.randn(1, 128, 32, 32), torch.randn(16, 16, 128), torch.zeros(16).long()

        def call(times):
            for _ in range(times):
                decoder(embedding, prompts, index)
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

        with torch.inference_mode():
            print(-(call(4) - call(8)) // 8)
    """
    faults_per_call = int(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout)
    assert faults_per_call < 3000  # without it, between 7000 and 24000 were seen


def test_threads() -> None:
    before = torch.get_num_threads()
    try:
        set_cpu_threads("1")
        assert torch.get_num_threads() == 1
        set_cpu_threads("auto")
        assert torch.get_num_threads() == max(1, len(os.sched_getaffinity(0)) // 2)
    finally:
        torch.set_num_threads(before)
