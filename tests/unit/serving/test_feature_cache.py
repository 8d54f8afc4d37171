from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssp_sam.serving.feature_cache import FeatureCache


@dataclass(frozen=True)
class Value:
    nbytes: int
    serial: int = 0


def computing(value: Value) -> Callable[[], Awaitable[Value]]:
    async def compute() -> Value:
        await asyncio.sleep(0)
        return value

    return compute


async def failing() -> Value:
    await asyncio.sleep(0)
    raise ValueError("no")


OPERATIONS = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from([None, "fail", 1, 3, 5, 9, 12])), max_size=60
)


@given(OPERATIONS, st.sampled_from([0, 5, 10, 30]))
@settings(max_examples=200, deadline=None)
def test_it_keeps_what_a_naive_list_keeps(operations: list[tuple[str, int | str | None]], budget: int) -> None:
    async def run() -> None:
        cache: FeatureCache[Value] = FeatureCache(budget)
        naive: list[tuple[str, Value]] = []  # the most recently used last
        hits = misses = evictions = 0
        for serial, (key, kind) in enumerate(operations):
            held = dict(naive).get(key)
            if held is not None:
                hits += 1
                naive = [entry for entry in naive if entry[0] != key] + [(key, held)]
                assert await cache.get(key, failing) is held
            elif kind is None:
                with pytest.raises(KeyError):
                    await cache.get(key)
            elif kind == "fail":
                misses += 1
                with pytest.raises(ValueError, match="no"):
                    await cache.get(key, failing)
            else:
                misses += 1
                value = Value(int(kind), serial)
                assert await cache.get(key, computing(value)) is value
                if value.nbytes <= budget:
                    naive.append((key, value))
                    while sum(v.nbytes for _, v in naive) > budget:
                        naive.pop(0)
                        evictions += 1
            await asyncio.sleep(0)
            assert {k for k in "abcdef" if k in cache} == {k for k, _ in naive}
            counters = cache.counters
            assert counters.bytes_held == sum(v.nbytes for _, v in naive) <= budget
            assert (counters.hits, counters.misses, counters.evictions) == (hits, misses, evictions)
        assert cache.counters.joins == 0

    asyncio.run(run())


class Gate:
    """A computation that waits to be let through, and counts how often it was begun."""

    def __init__(self, value: Value, error: Exception | None = None) -> None:
        self.value, self.error, self.begun, self.open = value, error, 0, asyncio.Event()

    async def __call__(self) -> Value:
        self.begun += 1
        await self.open.wait()
        if self.error:
            raise self.error
        return self.value


def test_many_who_want_the_same_wait_for_one_computation() -> None:
    async def run() -> None:
        cache: FeatureCache[Value] = FeatureCache(100)
        gate = Gate(Value(7))
        waiting = [asyncio.ensure_future(cache.get("a", gate)) for _ in range(20)]
        by_key_alone = asyncio.ensure_future(asyncio.wait_for(cache.get("a"), 10))
        other = await cache.get("b", computing(Value(1)))  # is not held up
        assert other == Value(1)
        assert "a" in cache
        gate.open.set()
        assert {id(value) for value in await asyncio.gather(*waiting, by_key_alone)} == {id(gate.value)}
        assert gate.begun == 1
        assert (cache.counters.misses, cache.counters.joins) == (2, 20)

    asyncio.run(run())


def test_an_error_reaches_everybody_who_waits_and_is_forgotten() -> None:
    async def run() -> None:
        cache: FeatureCache[Value] = FeatureCache(100)
        gate = Gate(Value(7), ValueError("broken"))
        waiting = [asyncio.ensure_future(cache.get("a", gate)) for _ in range(5)]
        await asyncio.sleep(0)
        gate.open.set()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [str(result) for result in results] == ["broken"] * 5
        assert "a" not in cache
        assert await cache.get("a", computing(Value(3))) == Value(3)

    asyncio.run(run())


def test_the_computation_outlives_those_who_wait() -> None:
    async def run() -> None:
        cache: FeatureCache[Value] = FeatureCache(100)
        gate = Gate(Value(7))
        waiting = [asyncio.ensure_future(cache.get("a", gate)) for _ in range(3)]
        await asyncio.sleep(0)
        for task in waiting[:2]:
            task.cancel()
        await asyncio.gather(*waiting[:2], return_exceptions=True)
        assert all(task.cancelled() for task in waiting[:2])
        assert not waiting[2].done()
        waiting[2].cancel()
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.sleep(0.01)
        assert await cache.get("a") is gate.value
        assert gate.begun == 1

    asyncio.run(run())


def test_nobody_waits_for_a_computation_that_fails_and_nothing_complains() -> None:
    complaints: list[object] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        cache: FeatureCache[Value] = FeatureCache(100)
        gate = Gate(Value(7), ValueError("broken"))
        task = asyncio.ensure_future(cache.get("a", gate))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.sleep(0.01)
        assert "a" not in cache

    asyncio.run(run())
    gc.collect()
    assert complaints == []


def test_a_value_over_the_budget_is_handed_out_and_pushes_nothing_out() -> None:
    async def run() -> None:
        cache: FeatureCache[Value] = FeatureCache(10)
        await cache.get("small", computing(Value(4)))
        assert await cache.get("large", computing(Value(11))) == Value(11)
        await asyncio.sleep(0)
        assert "small" in cache
        assert "large" not in cache
        assert cache.counters.evictions == 0

    asyncio.run(run())
