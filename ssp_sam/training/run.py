"""The loop: phases of steps, with figures on the way, that can be stopped at any time and continued later."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ssp_sam.config import get_preset
from ssp_sam.preprocess import UInt8Array
from ssp_sam.runtime import cpu_gains_from, keep_freed_memory
from ssp_sam.training.batches import check_share
from ssp_sam.training.config import ConfigError, PhaseConfig, RunConfig, parse_config
from ssp_sam.training.embeddings import EmbeddingFiles, encode_image
from ssp_sam.training.files import load_state, save_state, save_weights
from ssp_sam.training.initial import begin
from ssp_sam.training.learner import Learner, TrainingError, autocast
from ssp_sam.training.pictures import draw_curves, draw_examples
from ssp_sam.training.progress import LOG_FILE, Progress
from ssp_sam.training.ranks import Ranks
from ssp_sam.training.sources import PhaseData, open_phase
from ssp_sam.training.trainee import Trainee
from ssp_sam.training.validation import measure, sum_up
from ssp_sam.training.word_table import train_only_words_of_scenes

STATE_FILE = "state.pt"
BEST_FILE = "best.safetensors"
LAST_FILE = "last.safetensors"
CURVES_FILE = "curves.png"
EXAMPLES_FILE = "examples.png"


class Run:
    """A training run in its folder.

    Args:
        config: what to do.
        folder: of state, weights and log; a state that is there is continued.
        ranks: the processes that share the work.
        should_stop: asked after every step; when it says so in any process, the run saves its state and returns.

    Raises:
        TrainingError: the folder holds the state of a run that began with another configuration.
        ConfigError: the processes cannot share the images of a step, of whatever phase.
        InvalidArgumentError: a phase trains what the preset does not have.
    """

    def __init__(self, config: RunConfig, folder: Path, ranks: Ranks, should_stop: Callable[[], bool]) -> None:
        self._config, self._folder, self._ranks, self._should_stop = config, folder, ranks, should_stop
        for phase in config.phases:  # not only when it begins, hours later
            check_share(phase.images_per_step, ranks.count)
        keep_freed_memory()
        torch.set_num_threads(config.threads)
        # A state holds all weights, and those that the run began with may be gone by now.
        state = load_state(folder / STATE_FILE) if (folder / STATE_FILE).exists() else None
        preset = get_preset(config.preset)
        trainee = begin(config, preset) if state is None else Trainee(preset)
        for phase in config.phases:
            for name in phase.train:
                trainee.part(name)  # there is such a part
        if not any(phase.sets for phase in config.phases):
            train_only_words_of_scenes(trainee.model)
        self.trainee = trainee.to(ranks.device)
        self._phase_index, self._step, self._best_giou = 0, 0, -1.0
        self._owes_validation = False  # whether the run was stopped when it was due
        self._learner_state: dict[str, Any] | None = None  # read from the folder, until its phase goes on
        self._progress = Progress(folder, config.log_every_seconds, quiet=not ranks.is_first)
        if ranks.device.type == "cpu" and not cpu_gains_from(config.precision):
            self._progress.note(
                f"precision is {config.precision}, and this CPU computes faster in fp32; a new run should begin in that"
            )
        if state is not None:
            self._restore(state)

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
        data = open_phase(self._config, self._phase_index, self.trainee, self._ranks)
        if data.counts:
            self._progress.data(phase.name, data.counts)
        if data.embeddings:
            self._encode(data.embeddings, data.images)
            if self._ranks.any(self._should_stop()):  # and wait until the others have encoded theirs
                self._progress.stopped(self._step)
                return False
        learner = Learner(self._config, phase, self.trainee, self._ranks)
        if self._learner_state is not None:
            learner.load_state_dict(self._learner_state)
            self._learner_state = None
        self._progress.start_phase(phase.name, self._step, data.steps)
        if self._owes_validation:
            self._validate(phase, learner, data)
        saved_at = validated_at = time.monotonic()
        for batch in data.batches.loader(range(self._step, data.steps), self._config.data.workers):
            losses = learner.step(batch, self._step, data.epoch(self._step))
            self._step += 1
            self._progress.step(self._step, {name: value.item() for name, value in losses.items()})
            last = self._step == data.steps
            stop = self._ranks.any(self._should_stop()) and not last
            now = time.monotonic()
            is_due = last or self._ranks.any(self._is_validation_due(phase, data, now - validated_at))
            if is_due and not stop:
                self._validate(phase, learner, data)
                validated_at = now
            self._owes_validation = is_due and stop
            if self._ranks.is_first and (stop or (not last and now - saved_at >= 60 * self._config.save_every_minutes)):
                self._save(learner)
                saved_at = now
            if stop:
                self._progress.stopped(self._step)
                self._leave_weights(learner)
                return False
        # The next phase goes on from the averaged weights, which are better than the last ones.
        learner.average.keep()
        return True

    def _leave_weights(self, learner: Learner) -> None:
        """Write the averaged weights of a phase that is not finished, for who wants to go on from there elsewhere."""
        if self._ranks.is_first:
            with learner.average.applied():
                save_weights(self._folder / LAST_FILE, self.trainee.model)

    def _encode(self, embeddings: EmbeddingFiles, images: Sequence[Path | UInt8Array]) -> None:
        """Make the embeddings that are missing, this process its share of them, until the run is to stop."""
        encoder, preset = self.trainee.model.sam_image_encoder, self.trainee.preset
        context, own, encoded = (
            autocast(self._config, self._ranks.device),
            images[self._ranks.rank :: self._ranks.count],
            0,
        )
        made = embeddings.fill(own, lambda data: encode_image(encoder, preset, data, context))
        for done, embedding in enumerate(made, start=1):
            encoded += embedding is not None
            self._progress.embedding(done, len(own), encoded)
            if self._should_stop():
                return

    def _is_validation_due(self, phase: PhaseConfig, data: PhaseData, seconds: float) -> bool:
        """Say whether this process thinks so; clocks differ."""
        settings = self._config.validation
        if not phase.epochs:
            return seconds >= 60 * settings.every_minutes
        return data.ends_epoch(self._step) and data.epoch(self._step) % settings.every_epochs == 0

    def _validate(self, phase: PhaseConfig, learner: Learner, data: PhaseData) -> None:
        """Measure the averaged weights on what no phase trains on, and keep them if they are the best so far.

        The best are those of the highest gIoU, which is the mIoU where every phrase has a target.
        """
        device = self._ranks.device
        with learner.average.applied():
            with autocast(self._config, device):
                measured = measure(self.trainee, phase.objective, data.held_out, device)
            figures = sum_up(self._ranks.gather(measured))
            self._progress.validated(self._step, figures)
            if self._ranks.is_first:
                self._draw(phase, data)
            if figures.get("giou", -1.0) > self._best_giou:
                self._best_giou = figures["giou"]
                if self._ranks.is_first:
                    save_weights(self._folder / BEST_FILE, self.trainee.model)

    def _draw(self, phase: PhaseConfig, data: PhaseData) -> None:
        """Draw how the run goes, and where there are masks, what it answers to the first held-out phrases."""
        draw_curves(self._folder / LOG_FILE, self._folder / CURVES_FILE)
        if phase.objective != "masks" or data.embeddings:  # no masks, or no pictures to draw them on
            return
        batch = next(iter(data.held_out), None)
        if batch is not None:
            device = self._ranks.device
            with autocast(self._config, device):
                draw_examples(self.trainee, batch.to(device), self._folder / EXAMPLES_FILE)

    def _save(self, learner: Learner | None) -> None:
        """Write the state; between two phases there is no learner."""
        state = {
            "config": _fingerprint(self._config, self._phase_index + (learner is not None)),
            "processes": self._ranks.count,
            "phase": self._phase_index,
            "step": self._step,
            "best_giou": self._best_giou,
            "held_out": _held_out(self._config),
            "owes_validation": self._owes_validation,
            "trainee": self.trainee.state_dict(),
            "learner": learner.state_dict() if learner else None,
            "random": torch.get_rng_state(),
        }
        save_state(self._folder / STATE_FILE, state)

    def _restore(self, state: dict[str, Any]) -> None:
        begun = state["phase"] + (state["learner"] is not None)
        if not _continues(self._config, state["config"], begun):
            raise TrainingError(
                f"{self._folder} holds a run that began with another configuration; continue it with its own "
                "(phases that have not begun may change), or give the new run another name"
            )
        if (before := state.get("processes", self._ranks.count)) != self._ranks.count:
            self._progress.note(
                f"begun with {before} processes, continued with {self._ranks.count}: other numbers than with as many"
            )
        self._phase_index, self._step = state["phase"], state["step"]
        held_out = _held_out(self._config)
        if state.get("held_out", held_out) == held_out:  # older states do not say, nor what is owed
            self._best_giou = state["best_giou"]  # else the best so far are of other held-out phrases
        self._owes_validation = state.get("owes_validation", False)
        self.trainee.load_state_dict(state["trainee"])
        self._learner_state = state["learner"]
        torch.set_rng_state(state["random"])


def _held_out(config: RunConfig) -> tuple[int, str]:
    """Return what decides on which phrases weights are measured; how often does not."""
    return config.validation.scenes, config.validation.split


def _fingerprint(config: RunConfig, phases: int) -> str:
    """Return what decides the numbers of a run's first `phases`; how often it saves or says something does not."""
    free = {"threads", "device", "save_every_minutes", "log_every_seconds", "validation"}
    values = {name: value for name, value in dataclasses.asdict(config).items() if name not in free}
    values["data"].pop("workers")
    values["phases"] = values["phases"][:phases]
    return json.dumps(values, sort_keys=True)


def _continues(config: RunConfig, fingerprint: str, phases: int) -> bool:
    """Say whether a run that began with `fingerprint` goes on to the same numbers with `config`.

    The fingerprint may be older than some settings: the run began with their defaults.
    """
    try:
        began = parse_config(json.loads(fingerprint), "the state")
    except ConfigError:
        return False
    return _fingerprint(began, phases) == _fingerprint(config, phases)
