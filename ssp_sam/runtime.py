"""Where and in which precision a stage of the model computes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from ssp_sam.config import Preset
from ssp_sam.errors import InvalidArgumentError

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
DTYPES = ("auto", *_DTYPES)
# Any of these, and the CPU has instructions for products of such numbers.
_CPU_FLAGS = {"bf16": ("avx512_bf16", "amx_bf16"), "fp16": ("avx512_fp16", "amx_fp16")}
# Layers whose weights autocast would convert at every call.
_PRODUCTS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)

Module = TypeVar("Module", bound=nn.Module)

_MEBIBYTE = 1 << 20
_GLIBC_PARAMETERS = {
    -3: 32 * _MEBIBYTE,  # M_MMAP_THRESHOLD, at its largest: blocks below it come from the heap
    -1: 256 * _MEBIBYTE,  # M_TRIM_THRESHOLD: what the heap may keep free at its end
    -2: 32 * _MEBIBYTE,  # M_TOP_PAD: how much more than needed it grows
}


@dataclass(frozen=True)
class Runtime:
    """A device and the precision of the matrix products that are computed there."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def choose(cls, device: str, dtype: str, *, cpu_dtype: str = "fp32") -> Runtime:
        """Return the runtime for a device name and one of DTYPES.

        "auto" is float16 on a GPU: inference needs no more range than it has, and bfloat16's 8 bits move the edges of
        masks more than its 11. On a CPU "auto" is `cpu_dtype`, or float32 where the CPU cannot multiply it natively.
        """
        if dtype not in DTYPES:
            raise InvalidArgumentError(f"unknown dtype {dtype!r}; allowed: {', '.join(DTYPES)}")
        place = torch.device(device)
        if dtype == "auto":
            dtype = "fp16" if place.type == "cuda" else cpu_dtype if _is_native_on_cpu(cpu_dtype) else "fp32"
        return cls(place, _DTYPES[dtype])

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Compute without gradients, matrix products in this precision."""
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32),
        ):
            yield

    def place(self, module: Module) -> Module:
        """Return a network for inference on the device.

        The weights of matrix products are kept in the precision in which they are used: no call has to convert them,
        and they take half the memory. All other parameters stay in float32.
        """
        module = module.eval().requires_grad_(False).to(self.device)
        for layer in module.modules():
            if isinstance(layer, _PRODUCTS):
                layer.to(self.dtype)
        return module


def stage_runtime(stage: str, preset: Preset, device: str, dtype: str) -> Runtime:
    """Return the runtime in which a stage of a preset computes; dtype: that of the whole repository, one of DTYPES."""
    # The SSP encoder stays in float32: it divides by small norms over tokens, and costs little.
    dtype = "fp32" if stage == "ssp_prompt_generator" else dtype
    return Runtime.choose(device, dtype, cpu_dtype=preset.cpu_dtypes.get(stage, "fp32"))


def _is_native_on_cpu(dtype: str) -> bool:
    """Say whether this CPU multiplies matrices of a type faster than float32 ones."""
    if dtype == "fp32":
        return True
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(flag, False) for flag in _CPU_FLAGS[dtype])


def default_device() -> str:
    """Return "cuda" where there is a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def keep_freed_memory() -> None:
    """Let the C library keep what is freed for what comes next, where it is glibc.

    By default it returns large blocks to the kernel, which has to map and clear every page again when the next
    operation makes its result: that takes several times as long as many of torch's elementwise operations themselves.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    for parameter, value_bytes in _GLIBC_PARAMETERS.items():
        if library.mallopt(parameter, value_bytes) != 1:
            raise OSError(f"mallopt({parameter}, {value_bytes}) failed")


def set_cpu_threads(threads: str) -> None:
    """Let torch use this many threads; "auto" is half of the cores that this process may run on.

    The stages of a server compute side by side, each in a process of its own. With a thread for every core in each of
    them they would wait for one another inside every operation.
    """
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // 2) if threads == "auto" else int(threads))
