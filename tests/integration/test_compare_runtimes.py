"""`scripts/compare_runtimes.py` on the weights of this clone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ssp_sam.config import get_preset
from ssp_sam.serving import contract

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
    options = ["--stages", "mask_decoder", "--scenes", "2", "--phrases", "4", "--repeats", "1", "--threads", "1"]
    repository = ["--repository", str(ROOT / "model_repository")]
    out = ["--out", str(tmp_path / "runtimes.json")]
    monkeypatch.setattr(sys, "argv", ["compare_runtimes.py", *repository, *options, *bounds, *out])
    assert compare_runtimes.main() == code
    lines = json.loads((tmp_path / "runtimes.json").read_text())
    names = {line["runtime"]: line for line in lines if line["stage"] == "mask_decoder"}
    engines = {"torch fp32", "torch bf16", "openvino fp32", "openvino bf16", "openvino int8", "onnxruntime fp32"}
    assert names.keys() >= engines
    assert sum(line["chosen"] for line in names.values()) == 1
    assert names["torch fp32"]["cosine"] == pytest.approx(1)
    assert names["openvino fp32"]["iou_min"] > 0.99
    assert names["onnxruntime fp32"]["iou_min"] > 0.99
    assert lines[-1]["stage"] == "all of them" and lines[-1]["iou_mean"] > 0.9


@pytest.mark.parametrize("stage", contract.NETWORK_STAGES)
def test_only_what_a_stage_feeds_is_computed_again(stage: str, compare_runtimes: ModuleType) -> None:
    preset = get_preset("tiny")
    computed = []

    def call(name: str, scale: float):
        model = compare_runtimes.stage_model(name, preset)

        def compute(tensors):
            computed.append(name)
            total = sum(tensors[tensor.name] for tensor in model.inputs)
            return {tensor.name: scale * (total + k) for k, tensor in enumerate(model.outputs)}

        return compute

    others = {name: call(name, 2.0) for name in contract.NETWORK_STAGES}
    first = {tensor.name for name in others for tensor in compare_runtimes.stage_model(name, preset).inputs}
    known = compare_runtimes.run_all(others, {name: np.float64(len(name)) for name in sorted(first)})
    computed.clear()
    got = compare_runtimes.run_with(stage, call(stage, 3.0), others, known, preset)
    once = list(computed)
    assert got == compare_runtimes.run_all(others | {stage: call(stage, 3.0)}, known)
    assert once[0] == stage and contract.MASK_DECODER in once
    assert (contract.SAM_IMAGE_ENCODER in once) == (stage == contract.SAM_IMAGE_ENCODER)


def test_without_pictures_to_draw_it_says_how_to_get_them(
    compare_runtimes: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # where there is no build/glyphs
    config = ROOT / "configs" / "tiny" / "02_all_nouns.toml"
    options = ["--repository", str(ROOT / "model_repository"), "--config", str(config)]
    monkeypatch.setattr(sys, "argv", ["compare_runtimes.py", *options])
    assert compare_runtimes.main() == 1
    assert capsys.readouterr().err.startswith("error: ")
