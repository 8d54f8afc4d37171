"""The processes of a distributed run, started by `torchrun`; a process that was started alone is the only one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

from ssp_sam.errors import InvalidArgumentError
from ssp_sam.runtime import default_device

Value = TypeVar("Value")

# A matrix of so many rows is a table of embeddings: a batch uses few of its rows.
_TABLE_ROWS_MIN = 10_000

# Processes wait for the one that has most images left to encode.
_PATIENCE = timedelta(hours=12)


@dataclass(frozen=True)
class Ranks:
    """rank: this process's number of `count`. Each works on its own images, all hold the same weights.

    device: on which this process computes.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def join(cls, device: str = "cpu") -> Ranks:
        """Meet the other processes, if `torchrun` says that there are any.

        device: "cpu", "cuda" (each process of a machine takes the GPU of its number) or "auto", a GPU if there is one.
        Raises InvalidArgumentError if there is no GPU for this process.
        """
        place = torch.device(default_device() if device == "auto" else device)
        if place.type == "cuda":
            place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            if place.index >= torch.cuda.device_count():
                raise InvalidArgumentError(
                    f"there is no GPU {place.index}: this machine shows {torch.cuda.device_count()}; start as many "
                    'processes as it has GPUs, or say device = "cpu"'
                )
            torch.cuda.set_device(place)
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls(device=place)
        distributed.init_process_group("cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo", timeout=_PATIENCE)
        return cls(distributed.get_rank(), distributed.get_world_size(), place)

    def leave(self) -> None:
        """Part from the other processes."""
        if self.count > 1:
            distributed.destroy_process_group()

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace each gradient with its mean over the processes."""
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        rows = self._rows_in_use([gradient for gradient in gradients if _is_table(gradient)])
        used = [next(rows) if _is_table(gradient) else ... for gradient in gradients]
        parts = [gradient[own] for gradient, own in zip(gradients, used, strict=True)]
        flat = torch.cat([part.flatten() for part in parts])
        distributed.all_reduce(flat)
        flat /= self.count
        means = torch.split(flat, [part.numel() for part in parts])
        for gradient, own, part, mean in zip(gradients, used, parts, means, strict=True):
            gradient[own] = mean.view_as(part)

    def _rows_in_use(self, gradients: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield for each gradient of a table its rows that are not zero in some process: no other needs to travel."""
        if not gradients:
            return
        # Many times faster than `any`; a row with something that is no number counts as well.
        ends = [(gradient.amin(dim=1), gradient.amax(dim=1)) for gradient in gradients]
        used = torch.cat([(low != 0) | (high != 0) for low, high in ends]).to(torch.uint8)
        distributed.all_reduce(used, op=distributed.ReduceOp.MAX)
        for of_table in torch.split(used, [len(gradient) for gradient in gradients]):
            yield of_table.nonzero()[:, 0]

    def any(self, flag: bool) -> bool:
        """Return whether the flag is up in any of the processes."""
        if self.count == 1:
            return flag
        up = torch.tensor(float(flag))
        distributed.all_reduce(up, op=distributed.ReduceOp.MAX)
        return bool(up)

    def gather(self, value: Value) -> list[Value]:
        """Return what each process brings, in the order of their numbers; values are pickled."""
        if self.count == 1:
            return [value]
        values: list[Value | None] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values  # type: ignore[return-value]


def _is_table(gradient: Tensor) -> bool:
    return gradient.ndim == 2 and len(gradient) >= _TABLE_ROWS_MIN
