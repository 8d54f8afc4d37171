"""Calls to models of the server, and how calls that wait become one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ssp_sam.errors import CancelledError, SegmentationError

Array = npt.NDArray[Any]

_log = logging.getLogger(__name__)


def never() -> bool:
    """For calls that nobody can cancel."""
    return False


@dataclass(frozen=True)
class ModelCall:
    """Rows for a model of the server: inputs by name, each with its batch dimension, and the outputs wanted.

    subject: calls of one row with equal subjects, other than None, differ in nothing but the lists that they bring (see
    `JoinedCalls`). is_cancelled: says whether its caller has given up.
    """

    model: str
    inputs: Mapping[str, Array]
    outputs: Sequence[str]
    subject: Hashable = None
    is_cancelled: Callable[[], bool] = never


class CallModel(Protocol):
    """Makes a call and returns its outputs by name, with their batch dimension; raises SegmentationError."""

    async def __call__(self, call: ModelCall) -> dict[str, Array]:
        """See above."""


class _Waiting:
    """A call of one row, and who waits for its answer.

    row_form: calls of the same one can be rows of one call. list_form: calls of the same one can share a row.
    """

    def __init__(self, call: ModelCall) -> None:
        self.call = call
        self.answer: asyncio.Future[dict[str, Array]] = asyncio.get_running_loop().create_future()
        shapes = sorted((name, values.shape, values.dtype.char) for name, values in call.inputs.items())
        self.row_form = call.model, tuple(call.outputs), tuple(shapes)
        alone = id(self) if call.subject is None else None
        self.list_form = call.model, tuple(call.outputs), call.subject, alone


@dataclass(frozen=True)
class _Group:
    """Calls that are made as one.

    lists: None if each is a row of it, else they share a row, in which the inputs and outputs of these names are lists,
    one behind the other.
    """

    members: Sequence[_Waiting]
    lists: Set[str] | None

    @property
    def _axis(self) -> int:
        return 0 if self.lists is None else 1

    def _is_joined(self, name: str) -> bool:
        return self.lists is None or name in self.lists

    def call(self) -> ModelCall:
        """Return the one call."""
        first = self.members[0].call
        if len(self.members) == 1:
            return first
        inputs = {
            name: np.concatenate([member.call.inputs[name] for member in self.members], axis=self._axis)
            if self._is_joined(name)
            else values
            for name, values in first.inputs.items()
        }
        return replace(first, inputs=inputs)

    def parts(self, answer: Mapping[str, Array]) -> Iterator[tuple[_Waiting, dict[str, Array]]]:
        """Yield each member and its part of the answer."""
        lengths = [1 if self.lists is None else _length(member.call, self.lists) for member in self.members]
        for member, length, end in zip(self.members, lengths, np.cumsum(lengths), strict=True):
            own = (slice(None),) * self._axis + (slice(end - length, end),)
            yield member, {name: values[own] if self._is_joined(name) else values for name, values in answer.items()}


class JoinedCalls:
    """A `CallModel` for calls of one row each: while `at_once` are under way, those that wait are joined.

    Nobody waits for company: a call that finds room begins at once. Under load each call then carries as much as has
    come meanwhile, and what a call costs by itself is paid once for all of it. The first to come is the first to go,
    with those of its form, whoever came in between: as rows of one call, or, where calls are about the same subject,
    with their lists in one row, so that what they share is sent and computed once; whichever takes more along. A call
    that nobody waits for any more, or whose caller has given up by the time it would begin, is not made. Where a joined
    call fails, its members are tried one by one, so that each gets its own answer or error.

    It belongs to one asyncio event loop.

    Args:
        call: makes the calls.
        at_once: how many calls may be under way.
        rows_max: says how many calls like this one may become one.
        lists: the inputs and outputs that list things along axis 1, each of which is answered by itself.
        length_max: how long lists may become when calls share a row.
    """

    def __init__(
        self,
        call: CallModel,
        *,
        at_once: int,
        rows_max: Callable[[ModelCall], int],
        lists: Set[str] = frozenset(),
        length_max: int = 0,
    ) -> None:
        self._call, self._at_once, self._rows_max = call, at_once, rows_max
        self._lists, self._length_max = lists, length_max
        self._waiting: list[_Waiting] = []
        self._under_way: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """How many calls have not begun, and are still wanted."""
        return sum(not each.answer.done() for each in self._waiting)

    async def __call__(self, call: ModelCall) -> dict[str, Array]:
        """Make the call, perhaps with others."""
        waiting = _Waiting(call)
        self._waiting.append(waiting)
        self._begin()
        return await waiting.answer

    def _begin(self) -> None:
        while len(self._under_way) < self._at_once and (group := self._next()):
            task = asyncio.ensure_future(self._answer(group))
            self._under_way.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._begin()

    def _next(self) -> _Group | None:
        """Take those that go next from those that wait."""
        while waiting := [each for each in self._waiting if not each.answer.done()]:
            group = max(self._in_a_row(waiting), self._as_rows(waiting), key=self._items)
            self._waiting = [each for each in waiting if each not in group.members]
            if wanted := [member for member in group.members if _is_wanted(member)]:
                return replace(group, members=wanted)
        self._waiting = []
        return None

    def _as_rows(self, waiting: Sequence[_Waiting]) -> _Group:
        first = waiting[0]
        rows = [each for each in waiting if each.row_form == first.row_form][: self._rows_max(first.call)]
        return _Group(rows, None)

    def _in_a_row(self, waiting: Sequence[_Waiting]) -> _Group:
        """Return the first that waits, with those that can share its row."""
        first = waiting[0]
        members, room = [first], self._length_max - _length(first.call, self._lists)
        for each in waiting[1:]:
            length = _length(each.call, self._lists)
            if each.list_form == first.list_form and length <= room:
                members.append(each)
                room -= length
        return _Group(members, self._lists)

    def _items(self, group: _Group) -> int:
        return sum(_length(member.call, self._lists) for member in group.members)

    async def _answer(self, group: _Group) -> None:
        try:
            answer = await self._call(group.call())
        except Exception as error:
            if len(group.members) > 1 and isinstance(error, SegmentationError):
                _log.warning("a call for %d requests failed; now one by one: %s", len(group.members), error)
                for member in group.members:
                    if not member.answer.done() and _is_wanted(member):
                        await self._answer(_Group([member], None))
                return
            for member in group.members:
                if not member.answer.done():
                    member.answer.set_exception(error)
        else:
            for member, part in group.parts(answer):
                if not member.answer.done():
                    member.answer.set_result(part)


def _is_wanted(waiting: _Waiting) -> bool:
    """Say whether the caller has not given up; one who has is told so."""
    try:
        if not waiting.call.is_cancelled():
            return True
        error: Exception = CancelledError("the caller has cancelled the request")
    except Exception as failed:  # to ask is the caller's affair: it must not take others along
        error = failed
    waiting.answer.set_exception(error)
    return False


def _length(call: ModelCall, lists: Set[str]) -> int:
    """Return how long the lists of these names are that a call brings; 1 if it brings none."""
    return next((values.shape[1] for name, values in call.inputs.items() if name in lists), 1)
