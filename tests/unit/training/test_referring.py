import errno
import json
import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from referring_sets import IMAGES, write_sets
from torch import Tensor

from ssp_sam.config import Preset
from ssp_sam.evaluation.datasets import BENCHMARKS
from ssp_sam.modeling.sam import SamImageEncoder
from ssp_sam.predictor import Predictor
from ssp_sam.training.batches import BatchForm
from ssp_sam.training.config import parse_config
from ssp_sam.training.initial import read_model
from ssp_sam.training.learner import TrainingError
from ssp_sam.training.ranks import Ranks
from ssp_sam.training.referring import SetBatches
from ssp_sam.training.run import BEST_FILE, Run

Table = dict[str, Any]


class CrashError(Exception):
    """Stands for a process that is killed."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_sets(tmp_path / "data")


@pytest.fixture
def table(root: Path, nano: Preset, tmp_path: Path) -> Table:
    """The published recipe, small: boxes on a union of sets, then masks, with the mask decoder in the last epoch."""
    recipe = {
        "images_per_step": 2,
        "expressions_per_image": 1,
        "random_offset": True,
        "learning_rate": 1e-3,
        "lowest_learning_rate": 1e-5,
        "weight_decay": 1e-4,
        "decay_all": True,
        "gradient_clip": 0.1,
    }
    return {
        "name": "referring",
        "preset": "nano",
        "seed": 3407,
        "device": "cpu",
        "ema_decay": 0.0,
        "save_every_minutes": 1000,
        "log_every_seconds": 0,
        "data": {"workers": 0, "embeddings": str(tmp_path / "embeddings")},
        "sets": {"refcoco": {"root": str(root)}, "grefcoco": {"root": str(root)}},
        "phases": [
            {
                **recipe,
                "name": "boxes",
                "objective": "boxes",
                "sets": ["refcoco", "grefcoco"],
                "epochs": 1,
                "train": {"ssp_prompt_generator": 1.0},
                "loss_weights": {"box_l1": 20.0, "box_giou": 2.0},
            },
            {
                **recipe,
                "name": "masks",
                "objective": "masks",
                "sets": ["refcoco"],
                "epochs": 3,
                "warmup_epochs": 1,
                "compare_masks_on": "half-square",
                "train": {"ssp_prompt_generator": 1.0, "mask_decoder": 0.1},
                "train_from_epoch": {"mask_decoder": 2},
                "loss_weights": {"mask_dice": 4.0, "mask_focal": 4.0, "box_l1": 20.0, "box_giou": 2.0},
            },
        ],
    }


def _run(table: Table, folder: Path, should_stop: Callable[[], bool] = lambda: False) -> tuple[bool, Run]:
    folder.mkdir(exist_ok=True)
    run = Run(parse_config(table, "here"), folder, Ranks(), should_stop)
    return run.work(), run


def _after(calls: int, then: Callable[[], bool]) -> Callable[[], bool]:
    done = count(1)
    return lambda: next(done) >= calls and then()


def _crash() -> bool:
    raise CrashError


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def _events(folder: Path, event: str) -> list[Any]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [record for record in records if record["event"] == event]


def _changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name.split(".")[1] for name, value in after.items() if not torch.equal(value, before[name])}


def test_the_recipe_trains_what_it_names_and_keeps_the_best(
    table: Table, tmp_path: Path, nano: Preset, root: Path
) -> None:
    config = parse_config(table, "here")
    fresh = Run(config, tmp_path, Ranks(), lambda: False).trainee.state_dict()
    before = {name: value.clone() for name, value in fresh.items()}
    finished, run = _run(table, tmp_path / "run")
    assert finished
    assert _changed(before, run.trainee.state_dict()) == {"ssp_prompt_generator", "mask_decoder"}

    # 4 + 3 phrases in steps of 2, then 3 epochs of 4.
    validations = _events(tmp_path / "run", "validation")
    assert [(record["phase"], record["step"]) for record in validations] == [
        ("boxes", 4),
        ("masks", 2),
        ("masks", 4),
        ("masks", 6),
    ]
    assert {"giou", "ciou", "miou", "oiou", "pr_0.5", "box_iou"} <= validations[-1]["figures"].keys()
    data = _events(tmp_path / "run", "data")[1]["counts"]
    assert list(data.values()) == [4, 3, 1]

    best = read_model(tmp_path / "run" / BEST_FILE, nano)
    found = Predictor.of(best, dtype="fp32").segment(next((root / "images" / "train2014").iterdir()), ["the red box"])
    assert found[0].mask.shape == (48, 80)


def test_the_mask_decoder_is_frozen_before_its_epoch(table: Table, tmp_path: Path) -> None:
    del table["phases"][0]
    before = Run(parse_config(table, "here"), tmp_path, Ranks(), lambda: False).trainee.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    calls = len(IMAGES) + 1  # once for each image that is encoded, once before the first step
    _, run = _run(table, tmp_path / "a", _after(calls + 4, lambda: True))
    assert _changed(before, run.trainee.state_dict()) == {"ssp_prompt_generator"}
    _, run = _run(table, tmp_path / "b", _after(calls + 5, lambda: True))
    assert _changed(before, run.trainee.state_dict()) == {"ssp_prompt_generator", "mask_decoder"}


@pytest.mark.parametrize("calls", [3, 6, 12, 14], ids=["boxes", "encoding", "frozen", "unfrozen"])
def test_a_killed_run_continues_to_the_same_numbers(table: Table, tmp_path: Path, calls: int) -> None:
    _, whole = _run(table, tmp_path / "whole")
    table["data"]["embeddings"] = str(tmp_path / "others")
    table["save_every_minutes"] = 1e-9
    with pytest.raises(CrashError):
        _run(table, tmp_path / "killed", _after(calls, _crash))
    finished, continued = _run(table, tmp_path / "killed")
    assert finished
    assert _same(continued.trainee.state_dict(), whole.trainee.state_dict())
    figures = [[record["figures"] for record in _events(tmp_path / name, "validation")] for name in ("whole", "killed")]
    assert figures[1][-1] == figures[0][-1]


@pytest.mark.parametrize("step", [2, 3, 4])
def test_a_stopped_run_misses_no_validation(table: Table, tmp_path: Path, step: int) -> None:
    del table["phases"][0]
    _, whole = _run(table, tmp_path / "whole")
    calls = step + 1  # once before the first step, as no image is left to encode
    finished, _ = _run(table, tmp_path / "stopped", _after(calls, lambda: True))
    assert not finished
    _, continued = _run(table, tmp_path / "stopped")
    assert _same(continued.trainee.state_dict(), whole.trainee.state_dict())
    measured = [
        [(record["step"], record["figures"]) for record in _events(tmp_path / name, "validation")]
        for name in ("whole", "stopped")
    ]
    assert measured[0] == measured[1]
    assert [at for at, _ in measured[1]] == [2, 4, 6]


def test_an_image_is_encoded_once(table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []
    forward = SamImageEncoder.forward

    def counted(encoder: SamImageEncoder, image: Tensor, size_hw: Tensor) -> Tensor:
        encoded.append(len(image))
        return forward(encoder, image, size_hw)

    monkeypatch.setattr(SamImageEncoder, "forward", counted)
    _run(table, tmp_path / "first")
    assert encoded == [1] * len(IMAGES)
    table["phases"][1]["sets"] = ["grefcoco"]  # the same images
    _run(table, tmp_path / "second")
    assert len(encoded) == len(IMAGES)
    files = [path for path in (tmp_path / "embeddings").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".npy"}
    assert np.load(files[0]).dtype == np.float16

    table["seed"] = 1  # another encoder
    _run(table, tmp_path / "third")
    assert len(encoded) == 2 * len(IMAGES)


def test_embeddings_stand_for_the_encoder(table: Table, tmp_path: Path) -> None:
    del table["phases"][0]
    table["data"]["embeddings"] = ""
    _, asked = _run(table, tmp_path / "asked", _after(3, lambda: True))
    table["data"]["embeddings"] = str(tmp_path / "embeddings")
    _, kept = _run(table, tmp_path / "kept", _after(len(IMAGES) + 3, lambda: True))
    for name, value in asked.trainee.state_dict().items():
        torch.testing.assert_close(kept.trainee.state_dict()[name], value, atol=2e-3, rtol=1e-2)


def test_a_full_disk_and_broken_embeddings_are_told(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del table["phases"][0]
    with monkeypatch.context() as patched:

        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patched.setattr(os, "fsync", full)
        with pytest.raises(TrainingError, match=r"cannot keep the embedding .*No space left.*each image takes"):
            _run(table, tmp_path / "run")
    assert not [path for path in (tmp_path / "embeddings").rglob("*") if path.is_file()]

    _run(table, tmp_path / "run")
    for path in (tmp_path / "embeddings").rglob("*.npy"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TrainingError, match=r"cannot read the embedding .*delete it"):
        _run(table, tmp_path / "again")


def test_no_target_and_many_targets(table: Table, tmp_path: Path) -> None:
    del table["phases"][0]
    table["phases"][0]["sets"] = ["grefcoco"]
    finished, _ = _run(table, tmp_path / "run")
    assert finished
    figures = _events(tmp_path / "run", "validation")[-1]["figures"]
    assert {"n_acc", "t_acc"} <= figures.keys()


def _batches(root: Path, preset: Preset, **settings: Any) -> SetBatches:
    dataset = BENCHMARKS["refcoco"].open("train", root)
    return SetBatches([dataset], BatchForm(preset), **{"images": 2, "expressions": 1, **settings})


def test_an_epoch_is_every_phrase_once(root: Path, nano: Preset) -> None:
    batches = _batches(root, nano, images=3, seed=(3407, 0))
    assert (batches.phrases, batches.left_out, batches.steps_per_epoch) == (4, 1, 2)
    epochs = [torch.cat([batches[step].token_ids for step in range(2 * e, 2 * e + 2)]) for e in range(4)]
    for tokens in epochs:
        assert len(tokens) == 6  # filled up from the beginning
        assert len(tokens[:4].unique(dim=0)) == 4
        assert torch.equal(tokens[4:], tokens[:2])
    assert not all(torch.equal(tokens, epochs[0]) for tokens in epochs)
    assert torch.equal(batches[1].token_ids, epochs[0][3:])  # whenever it is made

    in_order = _batches(root, nano, images=3)
    assert [len(in_order[step].token_ids) for step in range(2)] == [3, 1]
    together = _batches(root, nano, images=1, expressions=2)
    assert [len(together[step].token_ids) for step in range(3)] == [2, 1, 1]


def test_processes_share_a_step(root: Path, nano: Preset) -> None:
    whole = _batches(root, nano, seed=(1,), random_offset=True)[0]
    parts = [_batches(root, nano, seed=(1,), random_offset=True, share=(rank, 2))[0] for rank in range(2)]
    assert torch.equal(torch.cat([part.clip_image for part in parts]), whole.clip_image)
    assert torch.equal(torch.cat([part.truth_box for part in parts]), whole.truth_box)


def test_the_image_lies_anywhere_and_its_truth_with_it(root: Path, nano: Preset) -> None:
    centred = _batches(root, nano, seed=(1,))
    moved = _batches(root, nano, seed=(1,), random_offset=True)
    tops = set()
    for step in range(8):
        a, b = centred[step], moved[step]
        shift = (b.geometry[:, 3] - a.geometry[:, 3]).flip(1) / nano.clip.image_side_px  # x, y
        torch.testing.assert_close(b.truth_box[:, :2], a.truth_box[:, :2] + shift)
        torch.testing.assert_close(b.truth_box[:, 2:], a.truth_box[:, 2:])
        assert torch.equal(a.truth_mask, b.truth_mask)
        tops |= set(b.geometry[:, 3, 0].tolist())
        for image, (height, width), (top, left) in zip(
            b.clip_image, b.geometry[:, 2].tolist(), b.geometry[:, 3].tolist(), strict=True
        ):
            assert not image[:, :top].any()
            assert not image[:, top + height :].any()
            assert image[:, top : top + height, left : left + width].any()
    assert len(tops) > 3
