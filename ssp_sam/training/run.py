"""The loop: phases of steps, with figures on the way, that can be stopped at any time and continued later."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ssp_sam.config import CONTEXT_LENGTH, get_preset
from ssp_sam.training.batches import Batch, SceneBatches
from ssp_sam.training.config import PhaseConfig, RunConfig
from ssp_sam.training.files import load_state, load_weights, save_state, save_weights
from ssp_sam.training.learner import Learner, TrainingError, autocast
from ssp_sam.training.objectives import OBJECTIVES
from ssp_sam.training.progress import Progress
from ssp_sam.training.ranks import Ranks
from ssp_sam.training.trainee import Trainee, draw_weights
from ssp_sam.training.validation import validate

STATE_FILE = "state.pt"
BEST_FILE = "best.safetensors"
LAST_FILE = "last.safetensors"
VALIDATION_IMAGES_PER_BATCH = 8
VALIDATION_EXPRESSIONS = 4


class Run:
    """A training run in its folder.

    Args:
        config: what to do.
        folder: of state, weights and log; a state that is there is continued.
        ranks: the processes that share the work.
        should_stop: asked after every step; when it says so in any process, the run saves its state and returns.

    Raises:
        TrainingError: the folder holds the state of a run that began with another configuration.
    """

    def __init__(self, config: RunConfig, folder: Path, ranks: Ranks, should_stop: Callable[[], bool]) -> None:
        self._config, self._folder, self._ranks, self._should_stop = config, folder, ranks, should_stop
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.trainee = Trainee(get_preset(config.preset))
        if config.initial_weights:
            weights = load_weights(Path(config.initial_weights), self.trainee.preset)
            self.trainee.model.load_state_dict(weights.state_dict())
        else:
            draw_weights(self.trainee)
        self._phase_index, self._step, self._best_giou = 0, 0, -1.0
        self._learner_state: dict[str, Any] | None = None  # read from the folder, until its phase goes on
        self._progress = Progress(folder, config.log_every_seconds, quiet=not ranks.is_first)
        self._validation_batches: dict[str, list[Batch]] = {}
        if (folder / STATE_FILE).exists():
            self._restore(load_state(folder / STATE_FILE))

    def work(self) -> bool:
        """Do what is left to do; return whether the run is finished (else it was stopped, and can be continued)."""
        while self._phase_index < len(self._config.phases):
            if not self._work_on(self._config.phases[self._phase_index]):
                return False
            self._phase_index, self._step = self._phase_index + 1, 0
            if self._ranks.is_first:
                save_weights(self._folder / LAST_FILE, self.trainee.model)
                self._save(None)
        self._progress.finished()
        return True

    def _work_on(self, phase: PhaseConfig) -> bool:
        """Do the rest of a phase; return False if the run was stopped in it."""
        learner = Learner(self._config, phase, self.trainee, self._ranks)
        if self._learner_state is not None:
            learner.load_state_dict(self._learner_state)
            self._learner_state = None
        first_scene = sum(p.steps * p.images_per_step for p in self._config.phases[: self._phase_index])
        batches = SceneBatches(
            self.trainee.preset,
            self._config.data,
            split="train",
            targets=OBJECTIVES[phase.objective].targets,
            images=phase.images_per_step,
            expressions=phase.expressions_per_image,
            text_positions=phase.text_positions,
            first_scene=first_scene,
            share=(self._ranks.rank, self._ranks.count),
        )
        self._progress.start_phase(phase.name, self._step, phase.steps)
        saved_at = validated_at = time.monotonic()
        for batch in batches.loader(range(self._step, phase.steps), self._config.data.workers):
            losses = learner.step(batch, self._step)
            self._step += 1
            self._progress.step(self._step, {name: value.item() for name, value in losses.items()})
            last = self._step == phase.steps
            stop = self._ranks.any(self._should_stop()) and not last
            now = time.monotonic()
            if self._ranks.is_first:
                if last or (not stop and now - validated_at >= 60 * self._config.validation.every_minutes):
                    self._validate(phase, learner)
                    validated_at = now
                if stop or (not last and now - saved_at >= 60 * self._config.save_every_minutes):
                    self._save(learner)
                    saved_at = now
            if stop:
                self._progress.stopped(self._step)
                return False
        # The next phase goes on from the averaged weights, which are better than the last ones.
        learner.average.keep()
        return True

    def _validate(self, phase: PhaseConfig, learner: Learner) -> None:
        """Measure the averaged weights on scenes that no phase trains on, and keep them if they are the best so far."""
        targets = OBJECTIVES[phase.objective].targets
        if targets not in self._validation_batches:
            source = SceneBatches(
                self.trainee.preset,
                self._config.data,
                split="val",
                targets=targets,
                images=VALIDATION_IMAGES_PER_BATCH,
                expressions=VALIDATION_EXPRESSIONS,
                text_positions=CONTEXT_LENGTH,
            )
            count = -(-self._config.validation.scenes // VALIDATION_IMAGES_PER_BATCH)
            self._validation_batches[targets] = [source[index] for index in range(count)]
        with learner.average.applied(), autocast(self._config):
            figures = validate(self.trainee, phase.objective, self._validation_batches[targets])
            self._progress.validated(self._step, figures)
            if figures.get("giou", -1.0) > self._best_giou:
                self._best_giou = figures["giou"]
                save_weights(self._folder / BEST_FILE, self.trainee.model)

    def _save(self, learner: Learner | None) -> None:
        """Write the state; between two phases there is no learner."""
        state = {
            "config": _fingerprint(self._config, self._phase_index),
            "phase": self._phase_index,
            "step": self._step,
            "best_giou": self._best_giou,
            "trainee": self.trainee.state_dict(),
            "learner": learner.state_dict() if learner else None,
            "random": torch.get_rng_state(),
        }
        save_state(self._folder / STATE_FILE, state)

    def _restore(self, state: dict[str, Any]) -> None:
        if state["config"] != _fingerprint(self._config, state["phase"]):
            raise TrainingError(
                f"{self._folder} holds a run that began with another configuration; continue it with its own "
                "(phases that have not begun may change), or give the new run another name"
            )
        self._phase_index, self._step, self._best_giou = state["phase"], state["step"], state["best_giou"]
        self.trainee.load_state_dict(state["trainee"])
        self._learner_state = state["learner"]
        torch.set_rng_state(state["random"])


def _fingerprint(config: RunConfig, phase_index: int) -> str:
    """Return what decides the numbers of a run up to this phase; how often it saves or says something does not."""
    free = {"threads", "save_every_minutes", "log_every_seconds", "validation"}
    values = {name: value for name, value in dataclasses.asdict(config).items() if name not in free}
    values["data"].pop("workers")
    values["phases"] = values["phases"][: phase_index + 1]
    return json.dumps(values, sort_keys=True)
