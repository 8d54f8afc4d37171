from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from ssp_sam import runtime
from ssp_sam.config import get_preset
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.networks.torch_network import TorchNetwork, place
from ssp_sam.runtime import Runtime, cpu_threads, stage_runtime

TINY = get_preset("tiny")
WITH_BF16 = frozenset({"AuthenticAMD", "avx2", "avx512_bf16"})


def test_a_cpu_computes_in_float32_unless_told_otherwise() -> None:
    assert Runtime.choose("cpu", "auto").name == "torch fp32"
    assert Runtime.choose("cpu", "bf16").name == "torch bf16"


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (WITH_BF16, "openvino bf16"),
        (frozenset({"GenuineIntel", "avx512_bf16", "amx_bf16"}), "openvino bf16"),
        (frozenset({"AuthenticAMD", "avx512_bf16", "avx512_vnni"}), "openvino bf16"),
        (frozenset({"GenuineIntel", "avx512_bf16", "avx512_fp16"}), "openvino fp32"),
        (frozenset({"AuthenticAMD", "avx2"}), "openvino fp32"),
        (frozenset(), "openvino fp32"),
    ],
)
def test_a_stage_computes_in_16_bits_only_where_the_cpu_is_faster_so(
    words: frozenset[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "_cpu_words", lambda: words)
    assert stage_runtime("sam_image_encoder", TINY, "cpu", "auto").name == name
    assert stage_runtime("mask_decoder", TINY, "cpu", "auto").name == name
    assert stage_runtime("sam_image_encoder", TINY, "cpu", "fp32").name == "torch fp32"
    assert stage_runtime("mask_decoder", get_preset("b224"), "cpu", "auto").name == "torch fp32"


def test_where_16_bits_are_no_faster_the_stages_whose_masks_bear_it_multiply_integers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runtime, "_cpu_words", lambda: frozenset({"GenuineIntel", "avx512_bf16", "avx512_vnni"}))
    for stage in ("sam_image_encoder", "clip_image_encoder", "ssp_prompt_generator"):
        assert stage_runtime(stage, TINY, "cpu", "auto").name == "openvino int8"
    for stage in ("text_encoder", "mask_decoder"):
        assert stage_runtime(stage, TINY, "cpu", "auto").name == "openvino fp32"
    assert stage_runtime("sam_image_encoder", get_preset("l336"), "cpu", "auto").name == "openvino int8"


def test_only_a_cpu_computes_in_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_cpu_words", lambda: WITH_BF16)
    for stage in ("sam_image_encoder", "ssp_prompt_generator", "mask_decoder"):
        assert stage_runtime(stage, TINY, "xpu", "auto") == Runtime("torch", "fp32", "xpu")


def test_what_is_not_installed_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(runtime, "_cpu_words", lambda: WITH_BF16)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name))
    assert stage_runtime("sam_image_encoder", TINY, "cpu", "auto").name == "torch bf16"
    assert stage_runtime("ssp_prompt_generator", TINY, "cpu", "auto").name == "torch fp32"


def test_pytorch_computes_the_ssp_encoder_in_float32_always() -> None:
    for device in ("cpu", "cuda"):
        assert stage_runtime("ssp_prompt_generator", TINY, device, "bf16").name == "torch fp32"
    assert stage_runtime("ssp_prompt_generator", TINY, "cuda", "auto").name == "torch fp32"


def test_an_unknown_dtype_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InvalidArgumentError, match="unknown dtype 'int8'; allowed: auto, fp32, bf16, fp16"):
        Runtime.choose("cpu", "int8")


def test_linux_tells_what_the_cpu_can() -> None:
    words = runtime._cpu_words()
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    for flag in ("avx2", "avx512_bf16", "amx_bf16"):
        if flag in capabilities:
            assert (flag in words) == capabilities[flag]


def test_weights_of_products_are_kept_in_the_precision_of_the_products_and_all_else_is_not() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Embedding(3, 4))
    placed = place(network, torch.device("cpu"), torch.bfloat16)
    assert [parameter.dtype for parameter in placed[0].parameters()] == [torch.bfloat16] * 2
    assert {parameter.dtype for layer in placed[1:] for parameter in layer.parameters()} == {torch.float32}
    assert not placed.training and not any(parameter.requires_grad for parameter in placed.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_products_have_the_chosen_precision(precision: str) -> None:
    seen = []

    class Square(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            product = x @ x
            seen.append((product.dtype, product.requires_grad))
            return product

    (answer,) = TorchNetwork(Square(), Runtime("torch", precision))(np.eye(3, dtype=np.float32))
    np.testing.assert_array_equal(answer, np.eye(3))
    assert answer.dtype == np.float32
    assert seen == [(torch.float32 if precision == "fp32" else torch.bfloat16, False)]


def test_a_gpu_computes_in_float16_unless_told_otherwise() -> None:
    assert Runtime.choose("cuda:0", "auto") == Runtime("torch", "fp16", "cuda:0")
    assert Runtime.choose("cuda", "bf16").name == "torch bf16"
    assert stage_runtime("sam_image_encoder", TINY, "cuda", "auto").name == "torch fp16"


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


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = len(os.sched_getaffinity(0))
    assert (cpu_threads("3"), cpu_threads("all"), cpu_threads("auto")) == (3, cores, max(1, cores // 2))
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert (cpu_threads("3"), cpu_threads("all"), cpu_threads("auto")) == (3, 4, 4)  # not halved once more
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    assert cpu_threads("auto") == 4


@pytest.mark.parametrize("told", ["0", "-1", "half", "0,2", "1.5"])
def test_what_is_no_number_of_threads_is_named(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidArgumentError, match=f"threads is '{told}'; allowed:"):
        cpu_threads(told)
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    with pytest.raises(InvalidArgumentError, match=f"OMP_NUM_THREADS is '{told}'"):
        cpu_threads("auto")
