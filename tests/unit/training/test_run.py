import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from ssp_sam import runtime
from ssp_sam.config import Preset
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.evaluation.thumbnails import LONGEST_PX
from ssp_sam.training import run as run_module
from ssp_sam.training.__main__ import main
from ssp_sam.training.batches import Batches, BatchForm
from ssp_sam.training.close_ups import CloseUpBatches
from ssp_sam.training.config import ConfigError, parse_config
from ssp_sam.training.files import save_weights
from ssp_sam.training.initial import read_model
from ssp_sam.training.learner import Learner, TrainingError
from ssp_sam.training.objectives import OBJECTIVES
from ssp_sam.training.ranks import Ranks
from ssp_sam.training.run import BEST_FILE, CURVES_FILE, EXAMPLES_FILE, LAST_FILE, STATE_FILE, Run
from ssp_sam.training.scenes import SceneBatches
from ssp_sam.training.trainee import MODULES, Trainee, draw_weights


class CrashError(Exception):
    """Stands for a process that is killed."""


def _run(table: dict[str, Any], folder: Path, should_stop: Callable[[], bool] = lambda: False) -> tuple[bool, Run]:
    folder.mkdir(exist_ok=True)
    run = Run(parse_config(table, "here"), folder, Ranks(), should_stop)
    return run.work(), run


def _after(steps: int, then: Callable[[], bool]) -> Callable[[], bool]:
    """Return a `should_stop` that does something after so many steps, and again after each later one."""
    done = count(1)
    return lambda: next(done) >= steps and then()


def _crash() -> bool:
    raise CrashError


def _weights(run: Run) -> dict[str, Tensor]:
    return run.trainee.state_dict()


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def _figures(folder: Path) -> list[Any]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [record["figures"] for record in records if record["event"] == "validation"]


@pytest.mark.parametrize("steps", [2, 3, 5])
def test_a_stopped_run_continues_as_if_it_had_not_been(run_table: dict[str, Any], tmp_path: Path, steps: int) -> None:
    finished, whole = _run(run_table, tmp_path / "whole")
    assert finished

    stopped = tmp_path / "stopped"
    finished, run = _run(run_table, stopped, _after(steps, lambda: True))
    assert not finished
    read_model(stopped / LAST_FILE, run.trainee.preset)  # whoever stops it has something to go on with
    finished, continued = _run(run_table, stopped)
    assert finished
    assert _same(_weights(whole), _weights(continued))
    assert _figures(stopped) == _figures(tmp_path / "whole")


def test_a_crash_loses_only_what_was_not_saved(run_table: dict[str, Any], tmp_path: Path) -> None:
    _, whole = _run(run_table, tmp_path / "whole")
    run_table["save_every_minutes"] = 1e-9
    with pytest.raises(CrashError):
        _run(run_table, tmp_path / "crashed", _after(5, _crash))
    run_table["save_every_minutes"] = 1000
    _, continued = _run(run_table, tmp_path / "crashed")
    assert _same(_weights(whole), _weights(continued))


def test_a_finished_run_goes_on_with_another_phase(run_table: dict[str, Any], tmp_path: Path) -> None:
    _, whole = _run(run_table, tmp_path / "whole")

    first, second = run_table["phases"]
    finished, run = _run({**run_table, "phases": [first]}, tmp_path / "parts")
    assert finished
    assert not _same(_weights(run), _weights(whole))
    finished, longer = _run({**run_table, "phases": [first, second]}, tmp_path / "parts")
    assert finished
    assert _same(_weights(longer), _weights(whole))

    with pytest.raises(TrainingError, match="began with another configuration"):
        _run({**run_table, "phases": [second, first]}, tmp_path / "parts")


def test_another_configuration_does_not_continue(run_table: dict[str, Any], tmp_path: Path) -> None:
    _run(run_table, tmp_path, _after(2, lambda: True))
    run_table["phases"][1]["steps"] = 2  # has not begun: may change
    _run(run_table, tmp_path, _after(1, lambda: True))
    run_table["phases"][1]["steps"] = 1
    run_table["phases"][0]["learning_rate"] = 1e-5
    with pytest.raises(TrainingError, match="began with another configuration"):
        _run(run_table, tmp_path)


def test_a_later_phase_that_cannot_be_shared_is_told_at_once(run_table: dict[str, Any], tmp_path: Path) -> None:
    run_table["phases"][0]["images_per_step"] = 6
    run_table["phases"][1]["images_per_step"] = 4
    with pytest.raises(ConfigError, match="4 images a step cannot be shared among 3 processes"):
        Run(parse_config(run_table, "here"), tmp_path, Ranks(0, 3), lambda: False)


def test_a_later_phase_that_trains_what_is_not_there_is_told_at_once(run_table: dict[str, Any], tmp_path: Path) -> None:
    run_table["phases"][1]["train"] = {"mask_decoder": 1.0, "clip_image_encoder.blocks.9": 1.0}
    with pytest.raises(InvalidArgumentError, match=r"preset 'nano' has no clip_image_encoder\.blocks\.9 to train"):
        Run(parse_config(run_table, "here"), tmp_path, Ranks(), lambda: False)


def test_another_number_of_processes_is_told(
    run_table: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(run_table, tmp_path, _after(2, lambda: True))
    state = torch.load(tmp_path / STATE_FILE, weights_only=False)
    torch.save({**state, "processes": 2}, tmp_path / STATE_FILE)
    _run(run_table, tmp_path)
    assert "begun with 2 processes, continued with 1" in capsys.readouterr().out


def test_a_run_leaves_weights_that_load(run_table: dict[str, Any], tmp_path: Path, nano: Preset) -> None:
    _, run = _run(run_table, tmp_path)
    last = read_model(tmp_path / LAST_FILE, nano).state_dict()
    best = read_model(tmp_path / BEST_FILE, nano).state_dict()
    assert _same(last, run.trainee.model.state_dict())
    assert _same(best, last)  # the only validation of the mask phase is its last

    run_table["initial_weights"] = str(tmp_path / LAST_FILE)
    config = parse_config(run_table, "here")
    again = Run(config, tmp_path / "next", Ranks(), lambda: False)
    assert _same(again.trainee.model.state_dict(), last)


def test_the_weights_of_the_best_validation_are_kept(
    run_table: dict[str, Any], tmp_path: Path, nano: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    del run_table["phases"][0]
    run_table["validation"]["every_minutes"] = 1e-9  # after every step
    gious, measured = iter([0.2, 0.5, 0.3]), []

    def measure(trainee: Trainee, *_: Any) -> float:
        measured.append({name: value.clone() for name, value in trainee.model.state_dict().items()})
        return next(gious)

    monkeypatch.setattr(run_module, "measure", measure)
    monkeypatch.setattr(run_module, "sum_up", lambda gathered: {"giou": gathered[0]})
    _run(run_table, tmp_path)
    best = read_model(tmp_path / BEST_FILE, nano).state_dict()
    assert [_same(best, weights) for weights in measured] == [False, True, False]


def test_the_best_of_other_held_out_phrases_is_not_compared(run_table: dict[str, Any], tmp_path: Path) -> None:
    _run(run_table, tmp_path, _after(5, lambda: True))
    state = torch.load(tmp_path / STATE_FILE, weights_only=False)
    torch.save({**state, "best_giou": 0.9}, tmp_path / STATE_FILE)
    for validation, best in (({}, 0.9), ({"every_minutes": 9.0}, 0.9), ({"scenes": 3}, -1.0)):
        run_table["validation"] |= validation
        assert Run(parse_config(run_table, "here"), tmp_path, Ranks(), lambda: False)._best_giou == best


def test_a_run_is_continued_without_the_weights_it_began_with(
    run_table: dict[str, Any], tmp_path: Path, nano: Preset
) -> None:
    initial = tmp_path / "initial.safetensors"
    torch.manual_seed(1)
    save_weights(initial, Trainee(nano).model)
    run_table["initial_weights"] = str(initial)
    _, whole = _run(run_table, tmp_path / "whole")
    _run(run_table, tmp_path / "stopped", _after(2, lambda: True))
    initial.unlink()
    _, continued = _run(run_table, tmp_path / "stopped")
    assert _same(_weights(whole), _weights(continued))


def test_a_run_leaves_pictures(run_table: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"event": "progr\n')  # what is left of a killed process
    _run(run_table, tmp_path)
    curves, examples = (Image.open(tmp_path / name) for name in (CURVES_FILE, EXAMPLES_FILE))
    assert curves.width > 1.5 * 4.2 * 110 > 0, "a column for each phase"
    assert examples.width >= 4 * LONGEST_PX


def test_frozen_modules_stay(run_table: dict[str, Any], tmp_path: Path) -> None:
    del run_table["phases"][0]
    config = parse_config(run_table, "here")
    before = {
        name: value.clone()
        for name, value in Run(config, tmp_path, Ranks(), lambda: False).trainee.state_dict().items()
    }
    _, run = _run(run_table, tmp_path)
    changed = {name.split(".")[1] for name, value in _weights(run).items() if not torch.equal(value, before[name])}
    assert changed == {"ssp_prompt_generator", "mask_decoder"}


def test_a_part_of_a_module_is_trained_alone(run_table: dict[str, Any], tmp_path: Path) -> None:
    del run_table["phases"][1]
    run_table["phases"][0]["train"] = {"clip_image_encoder.blocks.1": 1.0}
    config = parse_config(run_table, "here")
    before = {
        name: value.clone()
        for name, value in Run(config, tmp_path, Ranks(), lambda: False).trainee.state_dict().items()
    }
    _, run = _run(run_table, tmp_path)
    changed = {name.split(".", 1)[1] for name, value in _weights(run).items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("clip_image_encoder.blocks.1.") for name in changed)


@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_every_objective_learns_two_scenes(run_table: dict[str, Any], nano: Preset, objective: str) -> None:
    phase = run_table["phases"][1]
    run_table["phases"] = [phase]
    phase |= {
        "objective": objective,
        "loss_weights": dict.fromkeys(OBJECTIVES[objective].losses, 1.0),
        "train": dict.fromkeys(MODULES, 1.0),
        "steps": 1000,
    }
    config = parse_config(run_table, "here")
    torch.manual_seed(0)
    trainee = Trainee(nano)
    draw_weights(trainee)
    batches: Batches = CloseUpBatches(nano, config.data, split="train", images=2)
    if OBJECTIVES[objective].targets != "close-ups":
        batches = SceneBatches(
            BatchForm(nano, things=True),
            config.data,
            split="train",
            targets=OBJECTIVES[objective].targets,
            images=2,
            expressions=3,
        )
    batch = batches[0]
    learner = Learner(config, config.phases[0], trainee, Ranks())
    first = learner.step(batch, 0)
    for index in range(1, 25):
        last = learner.step(batch, index)
    assert sum(last.values()) < 0.9 * sum(first.values())
    assert set(last) == set(OBJECTIVES[objective].losses)


def test_a_precision_that_only_slows_the_cpu_down_is_told(
    run_table: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for precision, words, told in (("bf16", set(), 1), ("bf16", {"amx_bf16"}, 0), ("fp32", set(), 0)):
        monkeypatch.setattr(runtime, "_cpu_words", lambda words=words: frozenset(words))
        Run(parse_config({**run_table, "precision": precision}, "here"), tmp_path, Ranks(), lambda: False)
        assert capsys.readouterr().out.count("precision is bf16, and this CPU computes faster in fp32") == told


def test_command_line_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(tmp_path / "absent.toml"), "--runs", str(tmp_path)]) == 2
    assert "absent.toml" in capsys.readouterr().err
