"""What a run tells: lines for people, and the same as JSON lines in `log.jsonl`."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssp_sam.training.files import append_json

LOG_FILE = "log.jsonl"


class Progress:
    """Reports on a run. `quiet` ones (all but the first process of a distributed run) say nothing."""

    def __init__(self, folder: Path, every_seconds: float, *, quiet: bool) -> None:
        self._file, self._every_seconds, self._quiet = folder / LOG_FILE, every_seconds, quiet
        self._phase, self._steps = "", 0
        self._told_at, self._told_step = 0.0, 0
        self._sums: dict[str, float] = defaultdict(float)

    def start_phase(self, phase: str, step: int, steps: int) -> None:
        """A phase begins, or goes on at `step`."""
        self._phase, self._steps = phase, steps
        self._told_at, self._told_step = time.monotonic(), step
        self._sums.clear()
        self._tell("phase", f"{phase}: step {step} of {steps}", phase=phase, step=step, steps=steps)

    def step(self, step: int, learning_rate: float, losses: Mapping[str, float]) -> None:
        """`step` steps of the phase are done; every now and then tell the mean losses since the last time."""
        for name, value in losses.items():
            self._sums[name] += value
        now = time.monotonic()
        if now - self._told_at < self._every_seconds and step < self._steps:
            return
        done = step - self._told_step
        rate = done / max(now - self._told_at, 1e-9)
        means = {name: total / done for name, total in self._sums.items()}
        eta_s = (self._steps - step) / rate
        self._tell(
            "progress",
            f"{self._phase} {step}/{self._steps}  {rate:.2f} steps/s  {eta_s / 60:.1f} min left  lr {learning_rate:.1e}  "
            + "  ".join(f"{name} {value:.3f}" for name, value in means.items()),
            phase=self._phase,
            step=step,
            steps=self._steps,
            steps_per_second=round(rate, 4),
            eta_s=round(eta_s, 1),
            learning_rate=learning_rate,
            losses={name: round(value, 5) for name, value in means.items()},
        )
        self._told_at, self._told_step = now, step
        self._sums.clear()

    def validated(self, phase: str, step: int, figures: Mapping[str, float]) -> None:
        """Held-out figures of the averaged weights."""
        text = "  ".join(f"{name} {value:.3f}" for name, value in figures.items())
        rounded = {name: round(value, 5) for name, value in figures.items()}
        self._tell("validation", f"{phase} {step}/{self._steps}  held out: {text}", phase=phase, step=step, figures=rounded)

    def stopped(self, phase: str, step: int) -> None:
        """The run was asked to stop and has saved its state."""
        self._tell("stopped", f"{phase}: stopped after step {step}; the same command continues", phase=phase, step=step)

    def finished(self) -> None:
        """Nothing is left to do."""
        self._tell("finished", "finished")

    def _tell(self, event: str, text: str, **values: Any) -> None:
        if not self._quiet:
            print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)
            append_json(self._file, {"event": event, "time": round(time.time(), 1), **values})
