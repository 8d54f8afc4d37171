"""Where, by what and in which precision a stage of the model computes."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssp_sam.config import Preset
from ssp_sam.errors import InvalidArgumentError

PRECISIONS = ("fp32", "bf16", "fp16")
INT8 = "int8"  # of products with weights; all else is then computed in float32
DTYPES = ("auto", *PRECISIONS)
TORCH, OPENVINO = "torch", "openvino"
# A CPU that all of one of these are told of multiplies such numbers faster than float32. Instructions alone do not make
# it so. In OpenVINO, bfloat16 was faster in every stage on an AMD CPU with avx512_bf16, and 16 bits were slower in
# every stage on an Intel CPU with avx512_bf16 and avx512_fp16 whose AMX a virtual machine hid. There 8 bits were faster
# than float32 in every stage (docs/performance.md).
_FASTER_THAN_FP32 = {
    "bf16": ({"amx_bf16"}, {"AuthenticAMD", "avx512_bf16"}),
    "fp16": ({"amx_fp16"},),
    INT8: ({"avx512_vnni"},),
}

_MEBIBYTE = 1 << 20
_GLIBC_PARAMETERS = {
    -3: 32 * _MEBIBYTE,  # M_MMAP_THRESHOLD, at its largest: blocks below it come from the heap
    -1: 256 * _MEBIBYTE,  # M_TRIM_THRESHOLD: what the heap may keep free at its end
    -2: 32 * _MEBIBYTE,  # M_TOP_PAD: how much more than needed it grows
}


@dataclass(frozen=True)
class Runtime:
    """What computes a stage, and how.

    engine: TORCH, or OPENVINO on a CPU; precision: of matrix products, one of PRECISIONS, or INT8 in OpenVINO;
    device: as torch names it.
    """

    engine: str
    precision: str
    device: str = "cpu"

    @classmethod
    def choose(cls, device: str, dtype: str, *, on_cpu: Sequence[str] = ()) -> Runtime:
        """Return the runtime for a device and one of DTYPES.

        "auto" is float16 on a GPU: inference needs no more range than it has, and bfloat16's 8 bits move the edges of
        masks more than its 11. On a CPU "auto" is the first of `on_cpu` ("openvino bf16": engine and precision) whose
        engine is installed and whose precision is float32 or one that the CPU multiplies faster. Where there is none,
        and on any other device, it is float32 in PyTorch.
        """
        if dtype not in DTYPES:
            raise InvalidArgumentError(f"unknown dtype {dtype!r}; allowed: {', '.join(DTYPES)}")
        if dtype != "auto":
            return cls(TORCH, dtype, device)
        if device.startswith("cuda"):
            return cls(TORCH, "fp16", device)
        for engine, precision in (runtime.split() for runtime in on_cpu if device == "cpu"):
            if cpu_gains_from(precision) and importlib.util.find_spec(engine):
                return cls(engine, precision, device)
        return cls(TORCH, "fp32", device)

    @property
    def name(self) -> str:
        """As presets name it: engine and precision."""
        return f"{self.engine} {self.precision}"


def stage_runtime(stage: str, preset: Preset, device: str, dtype: str) -> Runtime:
    """Return the runtime in which a stage of a preset computes; dtype: that of the whole repository, one of DTYPES."""
    if stage == "ssp_prompt_generator" and (dtype != "auto" or device != "cpu"):
        dtype = "fp32"  # PyTorch's 16 bits would compare patches and phrases in too few of them
    return Runtime.choose(device, dtype, on_cpu=preset.cpu_runtimes.get(stage, ()))


def cpu_gains_from(precision: str) -> bool:
    """Say whether this CPU multiplies matrices of a type at least as fast as float32 ones."""
    return precision == "fp32" or any(words <= _cpu_words() for words in _FASTER_THAN_FP32[precision])


def _cpu_words() -> frozenset[str]:
    """Return who made this CPU and what instructions it has, in Linux's words; none where it says nothing."""
    words: set[str] = set()
    with contextlib.suppress(FileNotFoundError):
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
        for line in first.splitlines():
            if line.startswith(("vendor_id", "flags")):
                words.update(line.partition(":")[2].split())
    return frozenset(words)


def cpu_threads(threads: str = "all") -> int:
    """Return how many threads a network computes with.

    threads: a number; "all", one for each core that this process may run on; or "auto", half of that; but what
    OMP_NUM_THREADS says goes before both. Stages compute side by side, each in a process of its own: with a thread for
    every core in each they would wait for one another in every operation.

    Raises InvalidArgumentError for anything else.
    """
    if threads not in ("all", "auto"):
        return _positive(threads, f'threads is {threads!r}; allowed: "all", "auto" or a number above 0')
    if told := os.environ.get("OMP_NUM_THREADS"):
        outermost = told.partition(",")[0]  # OpenMP takes a list: one for each level of nested regions
        return _positive(outermost, f"OMP_NUM_THREADS is {told!r}; its first number must be above 0")
    cores = len(os.sched_getaffinity(0))
    return cores if threads == "all" else max(1, cores // 2)


def _positive(number: str, otherwise: str) -> int:
    """Return the number; raises InvalidArgumentError saying `otherwise` if it is none above 0."""
    if not number.strip().isdecimal() or int(number) < 1:
        raise InvalidArgumentError(otherwise)
    return int(number)


def default_device() -> str:
    """Return "cuda" where there is a GPU, else "cpu"."""
    import torch

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
