"""Image features by content: bounded in bytes, least recently used out first, each computed once.

It belongs to one asyncio event loop and is used from nowhere else, hence no locks.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """Anything that knows how many bytes it holds."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""


Value = TypeVar("Value", bound=Sized)


@dataclass
class CacheCounters:
    """What happened since the start; `joins` are requests that waited for somebody else's computation."""

    hits: int = 0
    misses: int = 0
    joins: int = 0
    evictions: int = 0
    bytes_held: int = 0


class FeatureCache(Generic[Value]):
    """A mapping from image digest to features with a budget in bytes.

    A value larger than the whole budget is handed out but not kept. Errors are not kept either: everybody who waits
    for that computation gets the error, the next request tries again.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.counters = CacheCounters()
        self._values: OrderedDict[str, Value] = OrderedDict()
        self._in_flight: dict[str, asyncio.Task[Value]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._values or key in self._in_flight

    @property
    def computing(self) -> int:
        """How many values are being computed, also those that nobody waits for any more."""
        return len(self._in_flight)

    async def get(self, key: str, compute: Callable[[], Awaitable[Value]] | None = None) -> Value:
        """Return the value of `key`, computing it if need be; KeyError if it is unknown and `compute` is None.

        The computation goes on if this caller is cancelled: others may wait for it, and the next request will want it.
        """
        if key in self._values:
            self.counters.hits += 1
            self._values.move_to_end(key)
            return self._values[key]
        task = self._in_flight.get(key)
        if task is not None:
            self.counters.joins += 1
        elif compute is None:
            raise KeyError(key)
        else:
            self.counters.misses += 1
            task = asyncio.ensure_future(self._compute(key, compute))
            self._in_flight[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)

    async def _compute(self, key: str, compute: Callable[[], Awaitable[Value]]) -> Value:
        value = await compute()
        self._keep(key, value)
        return value

    def _forget(self, key: str, task: asyncio.Task[Value]) -> None:
        del self._in_flight[key]
        if not task.cancelled():
            task.exception()  # seen: if every waiter has gone, asyncio would complain that nobody looked

    def _keep(self, key: str, value: Value) -> None:
        if value.nbytes > self.budget_bytes:
            return
        self._values[key] = value
        self.counters.bytes_held += value.nbytes
        while self.counters.bytes_held > self.budget_bytes:
            _, dropped = self._values.popitem(last=False)
            self.counters.bytes_held -= dropped.nbytes
            self.counters.evictions += 1
