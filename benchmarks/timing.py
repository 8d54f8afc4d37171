"""Timing of calls side by side: machines are noisy, and what is slow for one call is slow for its neighbour."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


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
