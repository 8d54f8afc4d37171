"""Calls to models of the server, and how calls that wait become one."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ssp_sam.errors import SegmentationError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ModelCall:
    """Rows for a model of the server: inputs by name, each with its batch dimension, and the outputs wanted."""

    model: str
    inputs: Mapping[str, Array]
    outputs: Sequence[str]
    timeout_s: float | None = None


class CallModel(Protocol):
    """Makes a call and returns its outputs by name, with their batch dimension; raises SegmentationError."""

    async def __call__(self, call: ModelCall) -> dict[str, Array]:
        """See above."""


class _Waiting:
    """A call of one row, who waits for its answer, and until when, on the clock of `time.monotonic`.

    form: calls of the same form can be rows of one call.
    """

    def __init__(self, call: ModelCall) -> None:
        self.call = call
        self.answer: asyncio.Future[dict[str, Array]] = asyncio.get_running_loop().create_future()
        self.until_s = math.inf if call.timeout_s is None else time.monotonic() + call.timeout_s
        shapes = sorted((name, values.shape, values.dtype.char) for name, values in call.inputs.items())
        self.form = call.model, tuple(call.outputs), tuple(shapes)


class JoinedCalls:
    """A `CallModel` for calls of one row each: while `at_once` are under way, those that wait are joined.

    Nobody waits for company: a call that finds room begins at once. Under load each call then carries as many rows as
    have come meanwhile, and what a call costs by itself is paid once for all of them. The first to come is the first to
    go, with those of its form, whoever came in between. A call that nobody waits for any more is not made. Where a
    joined call fails, its rows are tried one by one, so that each gets its own answer or error.

    It belongs to one asyncio event loop.

    Args:
        call: makes the calls.
        at_once: how many calls may be under way.
        rows_max: says how many calls like this one may become one.
    """

    def __init__(self, call: CallModel, *, at_once: int, rows_max: Callable[[ModelCall], int]) -> None:
        self._call, self._at_once, self._rows_max = call, at_once, rows_max
        self._waiting: list[_Waiting] = []
        self._under_way: set[asyncio.Task[None]] = set()

    async def __call__(self, call: ModelCall) -> dict[str, Array]:
        """Make the call, perhaps with others."""
        waiting = _Waiting(call)
        self._waiting.append(waiting)
        self._begin()
        return await waiting.answer

    def _begin(self) -> None:
        while len(self._under_way) < self._at_once and (rows := self._next()):
            task = asyncio.ensure_future(self._answer(rows))
            self._under_way.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._begin()

    def _next(self) -> list[_Waiting]:
        """Take those that go next from those that wait."""
        waiting = [each for each in self._waiting if not each.answer.done()]
        chosen: list[_Waiting] = []
        if waiting:
            form, most = waiting[0].form, self._rows_max(waiting[0].call)
            chosen = [each for each in waiting if each.form == form][:most]
        self._waiting = [each for each in waiting if each not in chosen]
        return chosen

    async def _answer(self, rows: Sequence[_Waiting]) -> None:
        try:
            answers = await self._call(_joined(rows))
        except Exception as error:
            if len(rows) > 1 and isinstance(error, SegmentationError):
                await asyncio.gather(*(self._answer([row]) for row in rows))
                return
            for row in rows:
                if not row.answer.done():
                    row.answer.set_exception(error)
        else:
            for index, row in enumerate(rows):
                if not row.answer.done():
                    row.answer.set_result({name: values[index : index + 1] for name, values in answers.items()})


def _joined(rows: Sequence[_Waiting]) -> ModelCall:
    """Return one call of all rows, which may last until the last of them gives up."""
    first = rows[0].call
    until_s = max(row.until_s for row in rows)
    timeout_s = None if until_s == math.inf else max(0.0, until_s - time.monotonic())
    if len(rows) == 1:
        return replace(first, timeout_s=timeout_s)
    inputs = {name: np.concatenate([row.call.inputs[name] for row in rows]) for name in first.inputs}
    return replace(first, inputs=inputs, timeout_s=timeout_s)
