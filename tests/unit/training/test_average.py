from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ssp_sam.config import get_preset
from ssp_sam.modeling.ssp_sam import SspSam
from ssp_sam.training.average import main
from ssp_sam.training.files import save_weights
from ssp_sam.training.initial import read_model

TINY = get_preset("tiny")


@pytest.fixture
def checkpoints(tmp_path: Path) -> list[Path]:
    paths = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        paths.append(tmp_path / f"{seed}.safetensors")
        save_weights(paths[-1], SspSam(TINY))
    return paths


def _arguments(paths: list[Path], out: Path) -> list[str]:
    return [*(word for path in paths for word in ("--checkpoint", str(path))), "--out", str(out)]


def test_every_parameter_is_the_mean(checkpoints: list[Path], tmp_path: Path) -> None:
    assert main(_arguments(checkpoints, tmp_path / "mean.safetensors")) == 0
    a, b, mean = (read_model(path, TINY).state_dict() for path in (*checkpoints, tmp_path / "mean.safetensors"))
    differing = 0
    for name, value in mean.items():
        torch.testing.assert_close(value, (a[name] + b[name]) / 2, msg=name)
        differing += not torch.equal(a[name], b[name])
    assert differing > len(mean) / 2


def test_a_checkpoint_counts_as_often_as_it_is_given(checkpoints: list[Path], tmp_path: Path) -> None:
    first, second = checkpoints
    assert main(_arguments([first, first, second], tmp_path / "mean.safetensors")) == 0
    a, b, mean = (read_model(path, TINY).state_dict() for path in (*checkpoints, tmp_path / "mean.safetensors"))
    name = next(key for key in mean if not torch.equal(a[key], b[key]))
    torch.testing.assert_close(mean[name], (2 * a[name] + b[name]) / 3)


def test_stages_that_were_trained_apart_are_put_together(checkpoints: list[Path], tmp_path: Path) -> None:
    first, second = checkpoints
    out = tmp_path / "mixed.safetensors"
    stages = "--stage", f"mask_decoder={second}", "--stage", f"text_encoder={first},{second}"
    assert main([*_arguments([first], out), *stages]) == 0
    a, b, mixed = (read_model(path, TINY).state_dict() for path in (first, second, out))
    expected = {"mask_decoder": lambda a, b: b, "text_encoder": lambda a, b: (a + b) / 2}
    for name, value in mixed.items():
        of_stage = expected.get(name.split(".")[0], lambda a, b: a)
        torch.testing.assert_close(value, of_stage(a[name], b[name]), msg=name)


@pytest.mark.parametrize("said", ["decoder=a.safetensors", "mask_decoder", "mask_decoder=a.safetensors,"])
def test_what_is_no_stage_is_named(said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*_arguments([tmp_path / "a.safetensors"], tmp_path / "out.safetensors"), "--stage", said])
    assert "mask_decoder" in capsys.readouterr().err


def test_a_stage_that_is_given_twice_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twice = ["--stage", "mask_decoder=a.safetensors", "--stage", "mask_decoder=b.safetensors"]
    with pytest.raises(SystemExit):
        main([*_arguments([tmp_path / "a.safetensors"], tmp_path / "out.safetensors"), *twice])
    assert "given twice (mask_decoder, mask_decoder)" in capsys.readouterr().err


def test_what_cannot_be_averaged_is_named(
    checkpoints: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing.safetensors"
    assert main(_arguments([checkpoints[0], missing], tmp_path / "mean.safetensors")) == 1
    assert "missing.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "mean.safetensors").exists()
    with pytest.raises(SystemExit):
        main(_arguments(checkpoints[:1], tmp_path / "mean.safetensors"))
    assert "at least two" in capsys.readouterr().err
