"""Where and in which precision a stage of the model computes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ssp_sam.errors import InvalidArgumentError

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
DTYPES = ("auto", *_DTYPES)

_MEBIBYTE = 1 << 20
_GLIBC_PARAMETERS = {
    -3: 32 * _MEBIBYTE,  # M_MMAP_THRESHOLD, at its largest: blocks below it come from the heap
    -1: 256 * _MEBIBYTE,  # M_TRIM_THRESHOLD: what the heap may keep free at its end
    -2: 32 * _MEBIBYTE,  # M_TOP_PAD: how much more than needed it grows
}


@dataclass(frozen=True)
class Runtime:
    """A device and the precision of its matrix products."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def choose(cls, device: str, dtype: str = "auto") -> Runtime:
        """Return the runtime for a device name and one of DTYPES.

        "auto" is float16 on a GPU, float32 on a CPU. Not bfloat16: its 8 bits move the edges of masks more
        than float16's 11, and inference needs no more range than float16 has.
        """
        if dtype not in DTYPES:
            raise InvalidArgumentError(f"unknown dtype {dtype!r}; allowed: {', '.join(DTYPES)}")
        place = torch.device(device)
        if dtype != "auto":
            return cls(place, _DTYPES[dtype])
        return cls(place, torch.float16 if place.type == "cuda" else torch.float32)

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Compute without gradients, matrix products in this precision."""
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32),
        ):
            yield


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
