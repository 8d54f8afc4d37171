"""Training as it is configured can learn: eight scenes, by heart, in under two minutes on two cores."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ssp_sam.config import get_preset
from ssp_sam.runtime import cpu_gains_from
from ssp_sam.training.batches import BatchForm
from ssp_sam.training.config import load_config
from ssp_sam.training.initial import begin
from ssp_sam.training.learner import Learner, autocast
from ssp_sam.training.objectives import NAMING
from ssp_sam.training.ranks import Ranks
from ssp_sam.training.scenes import SceneBatches
from ssp_sam.training.validation import measure, sum_up

ROOT = Path(__file__).parents[2]
SCENES, PHRASES, STEPS = 8, 4, 32


@pytest.fixture(autouse=True)
def all_cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    yield
    torch.set_num_threads(before)


def test_eight_scenes_are_learned_by_heart() -> None:
    config = load_config(ROOT / "configs" / "tiny" / "01_basics.toml")
    precision = config.precision if cpu_gains_from(config.precision) else "fp32"  # or it takes twice as long
    config = dataclasses.replace(
        config, precision=precision, initial_weights=str(ROOT / "model_repository"), ema_decay=0.9
    )
    phase = dataclasses.replace(config.phases[-1], steps=STEPS, warmup_steps=5, learning_rate=1e-3)
    assert phase.objective == "masks"
    preset = get_preset(config.preset)
    scenes = SceneBatches(
        BatchForm(preset, things=NAMING in phase.loss_weights),
        config.data,
        split="train",
        targets="phrases",
        images=SCENES,
        expressions=PHRASES,
        first_scene=1000,
    )
    batch = scenes[0]
    trainee = begin(config, preset)
    learner = Learner(config, phase, trainee, Ranks.join())

    def giou() -> float:
        with learner.average.applied(), autocast(config, torch.device("cpu")):
            return sum_up([measure(trainee, "masks", [batch], torch.device("cpu"))])["giou"]

    before = giou()
    for step in range(STEPS):
        learner.step(batch, step)
    assert giou() > max(0.85, before)
