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

    rows: of the one call, each with the calls that share it. lists: the inputs and outputs of these names are lists, in
    which those of a row stand one behind the other; all else is the same for all of a row.
    """

    rows: Sequence[Sequence[_Waiting]]
    lists: Set[str]

    @property
    def members(self) -> list[_Waiting]:
        """All calls."""
        return [member for row in self.rows for member in row]

    @property
    def items(self) -> int:
        """How many things are answered."""
        return sum(_length(member.call, self.lists) for member in self.members)

    def call(self) -> ModelCall:
        """Return the one call."""
        first = self.rows[0][0].call
        return replace(first, inputs={name: self._joined(name) for name in first.inputs})

    def _joined(self, name: str) -> Array:
        return _concatenated(
            [
                _concatenated([member.call.inputs[name] for member in (row if name in self.lists else row[:1])], axis=1)
                for row in self.rows
            ],
            axis=0,
        )

    def parts(self, answer: Mapping[str, Array]) -> Iterator[tuple[_Waiting, dict[str, Array]]]:
        """Yield each member and its part of the answer."""
        for index, row in enumerate(self.rows):
            of_row = {name: values[index : index + 1] for name, values in answer.items()}
            lengths = [_length(member.call, self.lists) for member in row]
            for member, length, end in zip(row, lengths, np.cumsum(lengths), strict=True):
                own = slice(end - length, end)
                yield (
                    member,
                    {name: values[:, own] if name in self.lists else values for name, values in of_row.items()},
                )


def _concatenated(parts: Sequence[Array], axis: int) -> Array:
    """Return the parts one behind the other; what is one already is not copied: features of images are large."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis)


class JoinedCalls:
    """A `CallModel` for calls of one row each: while `at_once` are under way, those that wait are joined.

    Nobody waits for company: a call that finds room begins at once. Under load each call then carries as much as has
    come meanwhile, and what a call costs by itself is paid once for all of it. The first to come is the first to go,
    with those of its form, whoever came in between: as rows of one call. Calls about the same subject share a row, with
    their lists one behind the other, so that what they have in common is sent and computed once; rows of one call are
    of the same length. Of all ways to take as many along as can be, that with the fewest rows is taken. A call that
    nobody waits for any more, or whose caller has given up by the time it would begin, is not made. Where a joined call
    fails, its members are tried one by one, so that each gets its own answer or error.

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
            # Of two ways to take as many along, the one with fewer rows costs less; it comes first.
            group = max([self._in_a_row(waiting), *self._in_rows(waiting)], key=lambda group: group.items)
            if all(_is_wanted(member) for member in group.members):  # who is not has been told, and waits no more
                self._waiting = [each for each in waiting if each not in group.members]
                return group
        self._waiting = []
        return None

    def _in_a_row(self, waiting: Sequence[_Waiting]) -> _Group:
        """Return the first that waits, with those that can share its row."""
        first = waiting[0]
        members, room = [first], self._length_max - _length(first.call, self._lists)
        for each in waiting[1:]:
            length = _length(each.call, self._lists)
            if each.list_form == first.list_form and length <= room:
                members.append(each)
                room -= length
        return _Group([members], self._lists)

    def _in_rows(self, waiting: Sequence[_Waiting]) -> Iterator[_Group]:
        """Yield the ways to make one call of the first that waits and others: so many calls a row, in all rows."""
        first = waiting[0]
        came = {each: place for place, each in enumerate(waiting)}
        by_subject: dict[Hashable, list[_Waiting]] = {}
        for each in waiting:
            if each.row_form == first.row_form:
                by_subject.setdefault(each.list_form, []).append(each)
        calls_max = self._rows_max(first.call)
        longest = self._length_max // _length(first.call, self._lists)
        for width in range(max(1, min(calls_max, longest, len(by_subject[first.list_form]))), 0, -1):
            rows = [
                members[start : start + width]
                for members in by_subject.values()
                for start in range(0, len(members) - width + 1, width)
            ]
            rows.sort(key=lambda row: came[row[0]])
            yield _Group(rows[: calls_max // width], self._lists)

    async def _answer(self, group: _Group) -> None:
        try:
            answer = await self._call(group.call())
        except Exception as error:
            if len(group.members) > 1 and isinstance(error, SegmentationError):
                _log.warning("a call for %d requests failed; now one by one: %s", len(group.members), error)
                for member in group.members:
                    if not member.answer.done() and _is_wanted(member):
                        await self._answer(_Group([[member]], self._lists))
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
