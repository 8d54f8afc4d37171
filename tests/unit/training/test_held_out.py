import json
from pathlib import Path

import pytest
import torch

from ssp_sam.config import Preset
from ssp_sam.modeling.ssp_sam import SspSam
from ssp_sam.postprocess import Calibration
from ssp_sam.training import calibrate, evaluate
from ssp_sam.training.files import save_weights


@pytest.fixture
def checkpoint(nano: Preset, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "weights.safetensors"
    save_weights(path, SspSam(nano))
    return path


def test_calibrate_then_evaluate(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--checkpoint", str(checkpoint), "--preset", "nano", "--count", "4"]
    out = tmp_path / "calibration.json"
    assert calibrate.main([*common, "--out", str(out)]) == 0
    assert "ECE (10 bins)" in capsys.readouterr().out
    calibration = Calibration.from_json(json.loads(out.read_text()))
    assert 1 <= len(calibration.score_knots) <= 16

    assert evaluate.main([*common, "--calibration", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["overall"]["samples"] == 16
    assert sum(figures["samples"] for kind, figures in found.items() if kind != "overall") == 16

    assert evaluate.main(common) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("overall ")


def test_mistakes_are_told(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["--checkpoint", str(tmp_path / "absent"), "--preset", "nano"]) == 1
    assert "cannot read the checkpoint" in capsys.readouterr().err
    assert evaluate.main(["--checkpoint", str(checkpoint), "--preset", "tiny"]) == 1
    assert "does not fit preset 'tiny'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        evaluate.main(["--checkpoint", str(checkpoint), "--count", "0"])
