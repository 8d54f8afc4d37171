import argparse
import json
import re
from pathlib import Path

import pytest
import torch

from ssp_sam.config import Preset, get_preset
from ssp_sam.evaluation.comparison import FIGURES
from ssp_sam.modeling.ssp_sam import SspSam
from ssp_sam.postprocess import Calibration
from ssp_sam.training import calibrate, compare
from ssp_sam.training.files import save_weights
from ssp_sam.training.held_out import EXPRESSIONS_PER_SCENE, held_out_answers


@pytest.fixture
def checkpoint(nano: Preset, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "weights.safetensors"
    save_weights(path, SspSam(nano))
    return path


def test_a_checkpoint_is_calibrated(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "calibration.json"
    options = ["--checkpoint", str(checkpoint), "--preset", "nano", "--count", "4", "--out", str(out)]
    assert calibrate.main(options) == 0
    assert "ECE (10 bins)" in capsys.readouterr().out
    calibration = Calibration.from_json(json.loads(out.read_text()))
    assert 1 <= len(calibration.score_knots) <= 16


def test_mistakes_are_told(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "calibration.json")]
    assert calibrate.main(["--checkpoint", str(tmp_path / "absent"), "--preset", "nano", *out]) == 1
    assert "cannot read the weights" in capsys.readouterr().err
    assert calibrate.main(["--checkpoint", str(checkpoint), "--preset", "tiny", *out]) == 1
    assert "does not fit preset 'tiny'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        calibrate.main(["--checkpoint", str(checkpoint), "--count", "1", *out])


def test_checkpoints_are_compared(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(1)
    other = tmp_path / "other.safetensors"
    save_weights(other, SspSam(get_preset("nano")))
    options = ["--preset", "nano", "--count", "3", "--seed", "1", "--seed", "2"]
    same = ["--checkpoint", str(checkpoint), "--checkpoint", str(other)]
    assert compare.main([*same, *options]) == 0
    shown = capsys.readouterr().out
    counts = re.match(r"(\d+) phrases with a target, (\d+) without", shown)
    assert counts is not None
    targets, absent = map(int, counts.groups())
    assert targets + absent == 2 * 3 * EXPRESSIONS_PER_SCENE
    rows = [line.split() for line in shown.splitlines()]
    full = [row[0] for row in rows if row[1:2] == [str(targets + absent)]]
    assert full == 2 * [str(checkpoint), str(other)]  # figures, and shares by kind
    assert all(name in shown for name in FIGURES)
    assert re.search(rf"{other}, against {checkpoint}: targets \d+ gained and \d+ lost, absent \d+ gained", shown)


def test_scenes_of_other_seeds_are_others(checkpoint: Path) -> None:
    arguments = argparse.Namespace(preset="nano", count=2, config=None, threads=1)
    first, again, other = (list(held_out_answers(arguments, checkpoint, "val", seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_mistakes_in_comparing_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = ["--checkpoint", str(tmp_path / "missing.safetensors")]
    assert compare.main(missing) == 1
    assert "missing.safetensors" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        compare.main([*missing, "--kept-targets", "97"])
    assert "allowed is 0 to 1" in capsys.readouterr().err
