"""Phrases on an image whose features are known, in process."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure, at_most, ratio
from benchmarks.timing import interleaved
from ssp_sam.predictor import Predictor
from ssp_sam.runtime import keep_freed_memory

PHRASES = (
    "the dog on the left",
    "both dogs",
    "the car and the guitar",
    "the banana",
    "the zebra",
    "the second animal from the right",
    "all the vehicles",
    "the smallest fruit",
)
MANY = 32
REPEATS = 9


def phrases(count: int) -> Sequence[str]:
    """Return so many phrases."""
    return [PHRASES[number % len(PHRASES)] for number in range(count)]


def measure(repository: Path, image: Path) -> Iterator[Figure]:
    """Yield what many phrases cost beside one."""
    keep_freed_memory()
    threads = len(os.sched_getaffinity(0))
    predictor = Predictor.from_repository(repository, threads=threads)
    features = predictor.encode_image(image)
    seconds = interleaved(
        {str(count): partial(predictor.segment, features, phrases(count)) for count in (1, MANY)},
        repeats=REPEATS,
        warmup=2,
    )
    how = f"preset {predictor.preset.name}, image known, {threads} threads, {REPEATS} pairs after 2"
    yield ratio(f"{MANY} phrases in one call / 1 phrase", seconds[str(MANY)], seconds["1"], how, at_most(8))
    alone = [predictor.segment(features, [phrase])[0] for phrase in PHRASES]
    together = predictor.segment(features, PHRASES)
    differing = sum(
        not np.array_equal(a.mask, b.mask) or a.score != b.score for a, b in zip(alone, together, strict=True)
    )
    yield Figure(
        "phrases answered otherwise together than alone", differing, "phrases", f"{len(PHRASES)} phrases", at_most(0)
    )
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    predictor.segment(features, phrases(2 * MANY))
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) / 1024
    yield Figure(
        f"memory: peak of {2 * MANY} phrases over that of {MANY}", grown_mib, "MiB", "VmHWM, in process", at_most(32)
    )
