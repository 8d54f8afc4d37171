"""The same work without a server: what phrases on a known image, and new images, take in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.phrases import phrases
from ssp_sam.predictor import Predictor
from ssp_sam.preprocess import prepare, read_image
from ssp_sam.serving import contract


@dataclass(frozen=True)
class Cost:
    """What one item of a batch takes: wall_s: of the clock; cpu_s: of all threads together."""

    wall_s: float
    cpu_s: float


class BestBatch:
    """Calls with as many items as are best: those with which one item takes the least time.

    name: of an item.
    """

    def __init__(self, name: str, sizes: Sequence[int], call: Callable[[int], Callable[[], object]]) -> None:
        """Find the best of some sizes; call: makes what computes a batch of a size."""
        calls = {size: call(size) for size in sizes}
        wall_s = dict.fromkeys(sizes, 0.0)
        for turn in range(4):  # all sizes by turns, each as many items; the first turn is for warming up
            for size, compute in calls.items():
                spent = _spent(compute, calls=max(sizes) // size, items=max(sizes))
                wall_s[size] += spent.wall_s if turn else 0.0
        self.name = name
        self.size = min(sizes, key=wall_s.__getitem__)
        self._compute = calls[self.size]

    def cost(self, at_least_s: float = 0.7) -> Cost:
        """Measure once more: the mean of so many calls that they take so long."""
        self._compute()
        one_s = _spent(self._compute, calls=1, items=1).wall_s
        calls = max(1, round(at_least_s / one_s))
        return _spent(self._compute, calls=calls, items=calls * self.size)


def best_phrases(predictor: Predictor, image: Path) -> BestBatch:
    """Return the best batches of phrases on one image whose features are known."""
    features = predictor.encode_image(image)
    return BestBatch(
        "phrases on one image", (1, 4, 8, 16, 32), lambda size: partial(predictor.segment, features, phrases(size))
    )


def best_images(predictor: Predictor, image: Path) -> BestBatch:
    """Return the best batches of new images."""
    file = image.read_bytes()
    return BestBatch("new images", (1, 2, 4), lambda size: partial(_encode, predictor, [file] * size))


def _spent(compute: Callable[[], object], *, calls: int, items: int) -> Cost:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    for _ in range(calls):
        compute()
    return Cost((time.perf_counter() - wall_s) / items, (time.process_time() - cpu_s) / items)


def _encode(predictor: Predictor, files: Sequence[bytes]) -> None:
    """Do for several images at once what `Predictor.encode_image` does for one."""
    inputs = [prepare(read_image(file), predictor.preset) for file in files]
    geometry = np.stack([each.geometry.to_array() for each in inputs])
    predictor.networks[contract.SAM_IMAGE_ENCODER](np.stack([each.sam_image for each in inputs]), geometry[:, 1])
    predictor.networks[contract.CLIP_IMAGE_ENCODER](
        np.stack([each.clip_image for each in inputs]), geometry[:, 2], geometry[:, 3]
    )
