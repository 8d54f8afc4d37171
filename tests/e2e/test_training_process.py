"""Training as people run it: killed and started again, and shared by two processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from referring_sets import write_sets

ROOT = Path(__file__).parents[2]
PATIENCE_S = 240.0
RECIPE = """
images_per_step = 2
expressions_per_image = 1
random_offset = true
learning_rate = 1e-4
lowest_learning_rate = 1e-6
weight_decay = 1e-4
decay_all = true
gradient_clip = 0.1
"""
CONFIG = """
name = "{name}"
preset = "tiny"
initial_weights = "{root}/model_repository"
seed = 3407
device = "cpu"
ema_decay = 0.0
save_every_minutes = {save_every_minutes}
log_every_seconds = 0
[data]
workers = 1
embeddings = "{folder}/embeddings_{name}"
[sets.refcoco]
root = "{folder}/data"
[sets.grefcoco]
root = "{folder}/data"
[[phases]]
name = "boxes"
objective = "boxes"
sets = {sets}
epochs = 1
train = {{ ssp_prompt_generator = 1.0 }}
loss_weights = {{ box_l1 = 20.0, box_giou = 2.0 }}
{recipe}
[[phases]]
name = "masks"
objective = "masks"
sets = ["refcoco"]
epochs = 2
compare_masks_on = "half-square"
train = {{ ssp_prompt_generator = 1.0, mask_decoder = 0.1 }}
train_from_epoch = {{ mask_decoder = 1 }}
loss_weights = {{ mask_dice = 4.0, mask_focal = 4.0, box_l1 = 20.0, box_giou = 2.0 }}
{recipe}
"""

Command = Callable[..., list[str]]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Write a configuration and return the command that trains by it into `tmp_path`."""
    write_sets(tmp_path / "data")

    def make(
        name: str,
        *,
        sets: tuple[str, ...] = ("refcoco", "grefcoco"),
        save_every_minutes: float = 1000.0,
        processes: int = 1,
    ) -> list[str]:
        config = tmp_path / f"{name}.toml"
        values = {"root": ROOT, "folder": tmp_path, "recipe": RECIPE, "name": name, "sets": json.dumps(sets)}
        config.write_text(CONFIG.format(save_every_minutes=save_every_minutes, **values))
        launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
        program = [*(launcher if processes > 1 else []), "ssp_sam.training"]
        return [sys.executable, "-m", *program, "--config", str(config), "--runs", str(tmp_path / "runs")]

    return make


def train(command: list[str]) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


def events(run: Path) -> list[dict[str, Any]]:
    """Return what a run has logged so far; its last line may not be whole yet."""
    log = run / "log.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def test_a_run_that_was_killed_goes_on_to_the_same_weights(command: Command, tmp_path: Path) -> None:
    train(command("whole"))
    killed = tmp_path / "runs" / "killed"
    process = subprocess.Popen(command("killed", save_every_minutes=1e-9), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE_S
    while not any(event["event"] == "progress" and event["phase"] == "masks" for event in events(killed)):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "last.safetensors").exists() or events(killed)[-1]["event"] != "finished"
    train(command("killed", save_every_minutes=1e-9))
    whole = tmp_path / "runs" / "whole"
    assert (killed / "last.safetensors").read_bytes() == (whole / "last.safetensors").read_bytes()
    assert (killed / "best.safetensors").read_bytes() == (whole / "best.safetensors").read_bytes()
    assert [event["phase"] for event in events(killed) if event["event"] == "phase"] == ["boxes", "masks", "masks"]


def test_two_processes_train_as_one(command: Command, tmp_path: Path) -> None:
    figures = {}
    for name, processes in (("one", 1), ("two", 2)):
        train(command(name, sets=("refcoco",), processes=processes))
        validations = [event for event in events(tmp_path / "runs" / name) if event["event"] == "validation"]
        assert [event["phase"] for event in validations] == ["boxes", "masks", "masks"], "told once, by the first"
        figures[name] = [event["figures"] for event in validations]
    for one, two in zip(figures["one"], figures["two"], strict=True):
        assert one == pytest.approx(two, abs=5e-3, nan_ok=True)  # no phrase without target: no N-acc
