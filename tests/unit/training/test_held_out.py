import json
from pathlib import Path

import pytest
import torch

from ssp_sam.config import Preset
from ssp_sam.modeling.ssp_sam import SspSam
from ssp_sam.postprocess import Calibration
from ssp_sam.training import calibrate
from ssp_sam.training.files import save_weights


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
    assert "cannot read the checkpoint" in capsys.readouterr().err
    assert calibrate.main(["--checkpoint", str(checkpoint), "--preset", "tiny", *out]) == 1
    assert "does not fit preset 'tiny'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        calibrate.main(["--checkpoint", str(checkpoint), "--count", "1", *out])
