"""The command that turns weights into a served repository: what it writes, records and refuses, and its memory."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from ssp_sam.checkpoint import load_published, split_published
from ssp_sam.config import get_preset
from ssp_sam.modeling.ssp_sam import STAGES
from ssp_sam.serving.repository import Manifest, weights_path

ROOT = Path(__file__).parents[2]

Build = Callable[..., tuple[int, str]]


@pytest.fixture
def build(build_repository: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Build:
    """Run the command line; return the exit code and stderr."""

    def call(*arguments: str | Path) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["build_repository", *map(str, arguments)])
        code = build_repository.main()
        return code, capsys.readouterr().err

    return call


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def remove_weights(repository: Path) -> None:
    for stage in STAGES:
        weights_path(repository, stage).unlink()


@pytest.mark.parametrize(("dtype", "stored"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_every_stage_and_where_it_came_from_are_written(
    build: Build, golden_checkpoint: Path, tmp_path: Path, dtype: str, stored: torch.dtype
) -> None:
    preset = get_preset(golden_checkpoint.stem)
    out = tmp_path / "repository"
    assert build("--preset", preset.name, "--checkpoint", golden_checkpoint, "--dtype", dtype, "--out", out) == (0, "")

    expected = split_published(load_published(golden_checkpoint), preset, "it")
    for stage, parameters in expected.items():
        written = load_file(weights_path(out, stage))
        assert written.keys() == parameters.keys()
        for key, value in parameters.items():
            assert torch.equal(written[key], value.to(stored) if value.is_floating_point() else value), key
    manifest = Manifest.read(out)
    assert (manifest.preset, manifest.dtype) == (preset.name, dtype)
    assert manifest.source == {"file": golden_checkpoint.name, "sha256": sha256(golden_checkpoint)}
    assert manifest.weights_sha256 == {stage: sha256(weights_path(out, stage)) for stage in STAGES}
    assert manifest.versions == {name: version(name) for name in ("ssp-sam", "torch", "safetensors")}
    remove_weights(out)


def test_clip_of_its_own_file_is_recorded(build: Build, golden_checkpoint: Path, tmp_path: Path) -> None:
    state = load_published(golden_checkpoint)
    clip = tmp_path / "ViT.pt"
    torch.save({key.removeprefix("encoder."): v.half() for key, v in state.items() if key.startswith("encoder.")}, clip)
    out = tmp_path / "repository"
    arguments = ("--preset", golden_checkpoint.stem, "--checkpoint", golden_checkpoint, "--clip", clip, "--out", out)

    assert build(*arguments, "--dtype", "fp32") == (0, "")

    source = Manifest.read(out).source
    assert (source["clip_file"], source["clip_sha256"]) == ("ViT.pt", sha256(clip))
    written = load_file(weights_path(out, "clip_image_encoder"))
    assert torch.equal(written["conv1.weight"], state["encoder.visual.conv1.weight"].half().float())
    clip.unlink()
    remove_weights(out)


def test_what_does_not_fit_is_said_and_nothing_is_written(build: Build, tmp_path: Path) -> None:
    checkpoint = tmp_path / "x.pth"
    torch.save({"tf_scale": torch.zeros(1)}, checkpoint)
    out = tmp_path / "repository"
    code, err = build("--preset", "mini224", "--checkpoint", checkpoint, "--out", out)
    assert code == 1
    assert err.startswith(f"error: {checkpoint} holds no CLIP")
    code, err = build("--preset", "mini224", "--checkpoint", checkpoint, "--clip", checkpoint, "--out", out)
    assert code == 1
    assert f"{checkpoint} with CLIP from {checkpoint} does not fit preset 'mini224'" in err
    assert not out.exists()


@pytest.mark.parametrize("what", [("--random-weights", "1"), ("--checkpoint", "best.safetensors")])
def test_clip_goes_with_a_published_checkpoint_alone(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: tuple[str, str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        build("--preset", "tiny", *what, "--clip", tmp_path, "--out", tmp_path / "repository")
    assert "--clip goes with a published .pth" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"score_knots": [1]}'])
def test_a_calibration_that_is_none_is_named(build: Build, tmp_path: Path, content: str) -> None:
    file = tmp_path / "metrics.json"
    file.write_text(content)
    out = tmp_path / "out"
    code, err = build("--preset", "tiny", "--random-weights", "0", "--calibration", file, "--out", out)
    assert code == 1
    assert err.startswith(f"error: {file} is no calibration")
    assert not out.exists()


def test_random_weights_follow_from_the_seed(build: Build, tmp_path: Path) -> None:
    digests = {}
    for name, seed in (("a", "7"), ("b", "7"), ("c", "8")):
        torch.rand(3)  # whatever was drawn before
        assert build("--preset", "tiny", "--random-weights", seed, "--out", tmp_path / name) == (0, "")
        manifest = Manifest.read(tmp_path / name)
        assert manifest.source == {"random_seed": seed}
        digests[name] = manifest.weights_sha256
        remove_weights(tmp_path / name)
    assert digests["a"] == digests["b"]
    assert all(digests["a"][stage] != digests["c"][stage] for stage in STAGES)


# Builds a repository in a process of its own and prints the growth of its peak resident memory, in bytes. A preset
# whose stages are of like size tells one stage in memory from all of them.
MEASURED_BUILD = """
import dataclasses, json, runpy, sys
import safetensors.torch, torch
from transformers import CLIPConfig
from ssp_sam import checkpoint, clip_checkpoint, config
from ssp_sam.modeling import sam, ssp

mini = config.PRESETS["mini224"]
config.PRESETS["mini336"] = dataclasses.replace(
    mini,
    name="mini336",
    clip=dataclasses.replace(mini.clip, width=512, heads=8, layers=10, text_width=256, text_heads=4, text_layers=2),
    sam=dataclasses.replace(mini.sam, width=512, heads=8, depth=10),
)

def peak():  # not getrusage: its figure starts with that of the process that started this one
    [line] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024

before = peak()
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as done:
    print(json.dumps({"exit": done.code, "grown": peak() - before}))
"""


def measured_build(*arguments: str | Path) -> int:
    script = ROOT / "scripts" / "build_repository.py"
    code = MEASURED_BUILD.replace("sys.argv[0]", repr(str(script)))
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    answer = json.loads(result.stdout.splitlines()[-1])
    assert answer["exit"] == 0, result.stderr
    return int(answer["grown"])


def stage_bytes(repository: Path) -> dict[str, int]:
    return {stage: weights_path(repository, stage).stat().st_size for stage in STAGES}


SLACK_BYTES = 40 << 20  # allocator, imports that only a build does


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_build_holds_the_file_and_one_stage(golden_checkpoint: Path, tmp_path: Path) -> None:
    if golden_checkpoint.stem != "mini224":
        pytest.skip("one variant is enough")
    out = tmp_path / "repository"
    grown = measured_build("--preset", "mini224", "--checkpoint", golden_checkpoint, "--dtype", "fp32", "--out", out)
    stages = stage_bytes(out)
    file_bytes = golden_checkpoint.stat().st_size
    remove_weights(out)
    allowed = file_bytes + max(stages.values()) + SLACK_BYTES
    assert allowed < file_bytes + sum(stages.values()), "a second full copy would not be noticed"
    assert grown <= allowed


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_random_weights_are_made_stage_by_stage(tmp_path: Path) -> None:
    out = tmp_path / "repository"
    grown = measured_build("--preset", "mini336", "--random-weights", "1", "--dtype", "fp16", "--out", out)
    stages = stage_bytes(out)
    remove_weights(out)
    # A stage in float32 and its half-precision copy; all stages in float32 alone would be more.
    allowed = 3 * max(stages.values()) + SLACK_BYTES
    assert allowed < 2 * sum(stages.values())
    assert grown <= allowed
