"""`scripts/compare_runtimes.py` on the weights of this clone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("bounds", "code"), [(["--iou-min", "0.8", "--cosine-min", "0.99"], 0), (["--cosine-min", "1.001"], 1)]
)
def test_it_fails_when_a_chosen_runtime_is_outside_the_bounds(
    bounds: list[str],
    code: int,
    compare_runtimes: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = ["--stages", "mask_decoder", "--scenes", "2", "--phrases", "2", "--repeats", "1", "--threads", "1"]
    repository = ["--repository", str(ROOT / "model_repository")]
    out = ["--out", str(tmp_path / "runtimes.json")]
    monkeypatch.setattr(sys, "argv", ["compare_runtimes.py", *repository, *options, *bounds, *out])
    assert compare_runtimes.main() == code
    lines = json.loads((tmp_path / "runtimes.json").read_text())
    names = {line["runtime"]: line for line in lines if line["stage"] == "mask_decoder"}
    assert names.keys() >= {"torch fp32", "torch bf16", "openvino fp32", "openvino bf16", "onnxruntime fp32"}
    assert sum(line["chosen"] for line in names.values()) == 1
    assert names["torch fp32"]["cosine"] == pytest.approx(1)
    assert names["openvino fp32"]["iou_min"] > 0.99
    assert names["onnxruntime fp32"]["iou_min"] > 0.99
    assert lines[-1]["stage"] == "all of them" and lines[-1]["iou_mean"] > 0.9
