"""Where and in which precision a stage of the model computes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ssp_sam.errors import InvalidArgumentError

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
DTYPES = ("auto", *_DTYPES)


@dataclass(frozen=True)
class Runtime:
    """A device and the precision of its matrix products."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def choose(cls, device: str, dtype: str = "auto") -> Runtime:
        """Return the runtime for a device name and one of DTYPES.

        "auto" is bfloat16 on a GPU that has it, float16 on an older one, float32 on a CPU.
        """
        if dtype not in DTYPES:
            raise InvalidArgumentError(f"unknown dtype {dtype!r}; allowed: {', '.join(DTYPES)}")
        place = torch.device(device)
        if dtype != "auto":
            return cls(place, _DTYPES[dtype])
        if place.type != "cuda":
            return cls(place, torch.float32)
        return cls(place, torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16)

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


def set_cpu_threads(threads: str) -> None:
    """Let torch use this many threads; "auto" is half of the cores that this process may run on.

    The stages of a server compute side by side, each in a process of its own. With a thread for every core in each of
    them they would wait for one another inside every operation.
    """
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // 2) if threads == "auto" else int(threads))
