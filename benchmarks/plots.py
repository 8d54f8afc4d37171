"""How throughput and latency grow, as pictures: `python -m benchmarks.plots SWEEPS.json FOLDER` draws them again."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

Point = Mapping[str, Any]

# By sweep: what its horizontal axis shows, how to read it, and whether it is logarithmic.
_AXES: Mapping[str, tuple[str, Callable[[Point], float], bool]] = {
    "clients": ("clients that ask at once", lambda point: point["clients"], True),
    "image size": ("megapixels of an image", lambda point: point["size_wh"][0] * point["size_wh"][1] / 1e6, True),
    "phrases": ("phrases of a request", lambda point: point["phrases"], True),
    "hit rate": ("share on an image that is known", lambda point: 1 - point["new_image_share"], False),
}
_PERCENTILES = ("p50_ms", "p95_ms", "p99_ms")


def draw(sweeps: Mapping[str, Sequence[Point]], folder: Path) -> list[Path]:
    """Draw growth.png (throughput and latency of every sweep) and stages.png (where the time goes as clients come)."""
    folder.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(2, len(sweeps), figsize=(3.6 * len(sweeps), 6), constrained_layout=True)
    for column, (name, points) in enumerate(sweeps.items()):
        _draw_sweep(axes[0, column], axes[1, column], name, points)
    axes[0, 0].set_ylabel("answers per second")
    axes[1, 0].set_ylabel("latency, ms")
    axes[1, 0].legend([percentile.removesuffix("_ms") for percentile in _PERCENTILES])
    growth = folder / "growth.png"
    figure.savefig(growth, dpi=110)
    plt.close(figure)
    return [growth, _draw_stages(sweeps["clients"], folder / "stages.png")]


def _draw_sweep(rate: Axes, latency: Axes, name: str, points: Sequence[Point]) -> None:
    label, read, logarithmic = _AXES[name]
    x = [read(point) for point in points]
    # An answer is a phrase's: so sweeps over phrases can be read like the others.
    rate.plot(x, [point["requests_per_s"] * point["phrases"] for point in points], "o-", color="black")
    for percentile, style in zip(_PERCENTILES, ("-", "--", ":"), strict=True):
        latency.plot(x, [point[percentile] for point in points], style, marker="o", markersize=3)
    rate.set_ylim(bottom=0)
    latency.set_ylim(bottom=0)
    rate.set_title(name)
    latency.set_xlabel(label)
    for axes in (rate, latency):
        if logarithmic:
            axes.set_xscale("log", base=2)
            axes.set_xticks(x, [f"{value:.3g}" for value in x])
            axes.minorticks_off()
        axes.grid(alpha=0.3)


def _draw_stages(points: Sequence[Point], path: Path) -> Path:
    figure, (queues, computing, batches) = plt.subplots(1, 3, figsize=(13, 4), constrained_layout=True)
    clients = [point["clients"] for point in points]
    for stage in points[-1]["stages"]:
        for axes, what in ((queues, "queue_ms"), (computing, "compute_ms"), (batches, "batch")):
            values = [point["stages"].get(stage, {}).get(what, 0.0) for point in points]
            axes.plot(clients, values, "o-", markersize=3, label=stage)
    titles = ("waiting in the stage's queue, ms", "computing (a request's whole batch), ms", "requests of a batch")
    for axes, title in zip((queues, computing, batches), titles, strict=True):
        axes.set_title(title)
        axes.set_xscale("log", base=2)
        axes.set_xticks(clients, [str(number) for number in clients])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_xlabel("clients that ask at once")
        axes.grid(alpha=0.3)
    queues.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


if __name__ == "__main__":
    for written in draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2])):
        print(written)
