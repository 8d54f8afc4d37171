"""What a run tells: lines for people, and the same as JSON lines in `log.jsonl`."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOG_FILE = "log.jsonl"


class Progress:
    """Reports on a run. `quiet` ones (all but the first process of a distributed run) say nothing."""

    def __init__(self, folder: Path, every_seconds: float, *, quiet: bool) -> None:
        self._file, self._every_seconds, self._quiet = folder / LOG_FILE, every_seconds, quiet
        self._phase, self._steps = "", 0
        self._told_at, self._told_step = 0.0, 0
        self._sums: dict[str, float] = defaultdict(float)

    def start_phase(self, phase: str, step: int, steps: int) -> None:
        """A phase begins, or goes on after `step` steps."""
        self._phase, self._steps = phase, steps
        self._told_at, self._told_step = time.monotonic(), step
        self._sums.clear()
        self._tell("phase", step, f"{step} of {steps} steps are done")

    def note(self, text: str) -> None:
        """Something that the reader should know before the run begins."""
        self._tell("note", 0, text)

    def data(self, phase: str, counts: Mapping[str, int]) -> None:
        """The data of a phase that is about to begin are open: what there is, by name."""
        self._phase, self._steps = phase, 0
        self._tell("data", 0, "  ".join(f"{name}: {count}" for name, count in counts.items()), counts=counts)

    def embedding(self, done: int, images: int, encoded: int) -> None:
        """`done` of this process's images have an embedding, `encoded` of them are new; told every now and then."""
        now = time.monotonic()
        if done == images or now - self._told_at >= self._every_seconds:
            text = f"SAM's embeddings: {done} of {images} images, {encoded} encoded now"
            self._tell("embeddings", 0, text, done=done, images=images, encoded=encoded)
            self._told_at = now

    def step(self, step: int, losses: Mapping[str, float]) -> None:
        """`step` steps of the phase are done; every now and then tell the mean losses since the last time."""
        for name, value in losses.items():
            self._sums[name] += value
        now = time.monotonic()
        if now - self._told_at < self._every_seconds and step < self._steps:
            return
        done = step - self._told_step
        rate = done / max(now - self._told_at, 1e-9)
        eta_s = (self._steps - step) / rate
        means = {name: round(total / done, 5) for name, total in self._sums.items()}
        self._tell(
            "progress",
            step,
            f"{rate:.2f} steps/s  {eta_s / 60:.1f} min left  {_listed(means)}",
            steps_per_second=round(rate, 4),
            eta_s=round(eta_s, 1),
            losses=means,
        )
        self._told_at, self._told_step = now, step
        self._sums.clear()

    def validated(self, step: int, figures: Mapping[str, float]) -> None:
        """Held-out figures of the averaged weights after `step` steps."""
        rounded = {name: round(value, 5) for name, value in figures.items()}
        self._tell("validation", step, f"held out: {_listed(rounded)}", figures=rounded)

    def stopped(self, step: int) -> None:
        """The run was asked to stop, and has saved its state."""
        self._tell("stopped", step, "stopped; the same command continues")

    def finished(self) -> None:
        """Nothing is left to do."""
        self._tell("finished", self._steps, "finished")

    def _tell(self, event: str, step: int, text: str, **values: Any) -> None:
        if self._quiet:
            return
        place = f"{self._phase} {step}/{self._steps}  " if self._phase else ""
        print(f"{time.strftime('%H:%M:%S')}  {place}{text}", flush=True)
        now = round(time.time(), 1)
        record = {"event": event, "time": now, "phase": self._phase, "step": step, "steps": self._steps, **values}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def _listed(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in values.items())
