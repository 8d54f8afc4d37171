"""Timing of calls side by side: machines are noisy, and what is slow for one call is slow for its neighbour."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median


def interleaved(
    calls: Mapping[str, Callable[[], object]], *, repeats: int, warmup: int = 1, settle_s: float = 0.0
) -> dict[str, list[float]]:
    """Return the seconds of every call: all of them by turns, `repeats` times after `warmup` times.

    settle_s: seconds of rest before each call, where the threads of another one might still spin.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(warmup + repeats):
        for name, call in calls.items():
            time.sleep(settle_s)
            start_s = time.perf_counter()
            call()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - start_s)
    return seconds


def in_turns(
    calls: Mapping[str, Callable[[], object]], *, turns: int, repeats: int, warmup: int
) -> dict[str, list[float]]:
    """Return the median seconds of each turn of each call: in a turn it is made `repeats` times after `warmup` times.

    For calls of different processes, which by single turns would find the caches of the processor full of each other.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            seconds[name].append(median(interleaved({"": call}, repeats=repeats, warmup=warmup)[""]))
    return seconds
