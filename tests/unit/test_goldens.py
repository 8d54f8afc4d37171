"""The model computes what the published code computed: every array on the way, for both published architectures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

GOLDENS = Path(__file__).parents[1] / "goldens"
TOLERANCE = 1e-4  # of the largest magnitude of each array, as the golden files' README says
STRIDES: dict[str, tuple[slice, ...]] = {
    "clip_image": (slice(None), slice(None, None, 7), slice(None, None, 7)),
    "sam_image": (slice(None), slice(None, None, 31), slice(None, None, 31)),
    "image_embedding": (slice(None, None, 8), slice(None, None, 4), slice(None, None, 4)),
    "clip_tokens": (slice(None, None, 9), slice(None, None, 8)),
    "word_embeddings": (slice(None), slice(None, None, 8)),
    "prompt_tokens": (slice(None), slice(None, None, 4)),
    "low_res_logits": (slice(None, None, 2), slice(None, None, 2)),
    "logits_512": (slice(None, None, 4), slice(None, None, 4)),
    "full_logits": (slice(None, None, 3), slice(None, None, 3)),
}
EXACT = ("image", "phrase", "token_ids")


@pytest.fixture(scope="module")
def loaded(golden_checkpoint: Path, trace_model: ModuleType) -> tuple[str, Any]:
    return golden_checkpoint.stem, trace_model.load_model(golden_checkpoint.stem, golden_checkpoint)


@pytest.mark.parametrize("case", range(3))
def test_every_array_is_that_of_the_published_code(
    loaded: tuple[str, Any], trace_model: ModuleType, case: int, tmp_path: Path
) -> None:
    variant, model = loaded
    golden = np.load(GOLDENS / f"{variant}_open.npz")
    assert len(json.loads(str(golden["cases"]))) == 3, "a case of the golden file is not compared"
    expected = {
        name.removeprefix(f"case{case}_"): golden[name] for name in golden.files if name.startswith(f"case{case}_")
    }
    image = tmp_path / "image.png"
    Image.fromarray(expected["image"]).save(image)

    arrays = trace_model.trace(model, image, str(expected["phrase"]))

    assert arrays.keys() == expected.keys()
    for name in EXACT:
        np.testing.assert_array_equal(arrays[name], expected[name], err_msg=name)
    assert mask_iou(arrays["full_mask"], expected["full_mask"]) > 0.999
    for name in expected.keys() - {*EXACT, "full_mask"}:
        got = arrays[name][STRIDES[name]] if name in STRIDES else arrays[name]
        assert got.shape == expected[name].shape, name
        bound = TOLERANCE * np.abs(expected[name]).max()
        np.testing.assert_allclose(got, expected[name], rtol=0, atol=bound, err_msg=f"{variant} {name}")


def mask_iou(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    bits_a, bits_b = np.unpackbits(a).astype(bool), np.unpackbits(b).astype(bool)
    union = np.count_nonzero(bits_a | bits_b)
    return np.count_nonzero(bits_a & bits_b) / union if union else 1.0


def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["trace_model.py", *map(str, arguments)])
    code: int = script.main()
    return code


def test_the_command_writes_what_it_lists(
    loaded: tuple[str, Any],
    trace_model: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    variant, model = loaded
    monkeypatch.setattr(trace_model, "load_model", lambda preset, checkpoint, clip: model)
    image, out = tmp_path / "image.png", tmp_path / "trace.npz"
    Image.new("RGB", (30, 20), (200, 30, 40)).save(image)
    options = ("--preset", variant, "--checkpoint", "x.pth", "--image", image, "--phrase", "dog", "--out", out)

    assert run(trace_model, monkeypatch, *options) == 0

    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == set(np.load(out).files)


def test_the_command_names_what_does_not_fit(
    trace_model: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--preset", "b224", "--image", "x.png", "--phrase", "dog", "--out", tmp_path / "out.npz")
    assert run(trace_model, monkeypatch, *options, "--checkpoint", tmp_path / "missing.pth") == 1
    assert "missing.pth" in capsys.readouterr().err
