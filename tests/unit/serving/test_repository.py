from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from safetensors.torch import load_file

from ssp_sam.config import get_preset
from ssp_sam.errors import InvalidArgumentError
from ssp_sam.modeling.ssp_sam import STAGES
from ssp_sam.postprocess import Calibration
from ssp_sam.serving import contract, repository
from ssp_sam.serving.repository import (
    MANIFEST,
    Manifest,
    configuration_files,
    weights_path,
    write_configurations,
    write_repository,
)

TINY = get_preset("tiny")
COMMITTED = Path(__file__).parents[3] / "model_repository"


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".safetensors", ".pyc")
    }


@pytest.fixture
def committed() -> Path:
    if not (COMMITTED / MANIFEST).exists():
        pytest.fail("model_repository/ is not there: make it with `python scripts/build_repository.py`")
    return COMMITTED


def test_the_committed_repository_is_what_the_code_generates(committed: Path) -> None:
    found = files_of(committed)
    del found[MANIFEST]
    expected = configuration_files(Manifest.read(committed))
    hint = "run `python scripts/build_repository.py --refresh model_repository`"
    assert sorted(found) == sorted(expected), hint
    changed = [path for path, content in expected.items() if found[path] != content]
    assert not changed, f"{changed}: {hint}"


def test_the_committed_weights_are_those_of_the_manifest(committed: Path) -> None:
    digests = {stage: hashlib.sha256(weights_path(committed, stage).read_bytes()).hexdigest() for stage in STAGES}
    assert digests == Manifest.read(committed).weights_sha256


def test_a_written_repository_is_complete(tiny_repository: Path) -> None:
    manifest = Manifest.read(tiny_repository)
    assert (manifest.preset, manifest.dtype, manifest.embedding_dtype) == ("tiny", "auto", "FP16")
    assert manifest.source == {"random_seed": "0"}
    found = files_of(tiny_repository)
    assert Manifest(**{**json.loads(found.pop(MANIFEST)), "calibration": manifest.calibration}) == manifest
    assert found == configuration_files(manifest)
    for stage, digest in manifest.weights_sha256.items():
        assert hashlib.sha256(weights_path(tiny_repository, stage).read_bytes()).hexdigest() == digest
    assert manifest.weights_sha256.keys() == STAGES.keys()


def test_every_model_has_a_version_and_python_models_name_their_adapter() -> None:
    files = configuration_files(Manifest("tiny", "auto"))
    for model in contract.all_models(get_preset("tiny"), "FP16"):
        assert any(path.startswith(f"{model.name}/1/") for path in files)
        if model.backend == contract.ENSEMBLE:
            continue
        source = files[f"{model.name}/1/model.py"].decode()
        compile(source, model.name, "exec")
        adapter = "SegmentModel" if model.name == contract.SEGMENT else "StageModel"
        assert f"import {adapter} as TritonPythonModel" in source


@pytest.mark.parametrize(("dtype", "wire"), [("auto", "FP16"), ("fp16", "FP16"), ("bf16", "FP16"), ("fp32", "FP32")])
def test_sixteen_bit_weights_send_sixteen_bit_embeddings(dtype: str, wire: str) -> None:
    assert Manifest("tiny", dtype).embedding_dtype == wire


def test_the_same_manifest_gives_the_same_files() -> None:
    assert configuration_files(Manifest("tiny", "auto")) == configuration_files(Manifest("tiny", "auto"))


def test_a_folder_without_a_manifest_and_another_format_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"it has no manifest\.json"):
        Manifest.read(tmp_path)
    (tmp_path / MANIFEST).write_text(json.dumps({"format_version": 99}))
    with pytest.raises(InvalidArgumentError, match="has format version 99; this release reads 1"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"format_version": 1}', '{"format_version": 1, "calibration": {"score_knots": []}}']
)
def test_a_damaged_manifest_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(InvalidArgumentError, match=r"manifest\.json is damaged"):
        Manifest.read(tmp_path)


def test_a_repository_takes_the_place_of_an_earlier_one(tiny_repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "repository"
    old = Manifest("tiny", "auto", backend=contract.ONNXRUNTIME)
    for path, content in {**configuration_files(old), "mask_decoder/1/model.onnx": b"", "notes.txt": b"mine"}.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(content)
    (out / MANIFEST).write_text("{}")
    stages = load_stages(tiny_repository)
    calibration = Manifest.read(tiny_repository).calibration
    written = {"dtype": "auto", "calibration": calibration, "source": {"random_seed": "0"}}

    def broken_off() -> Iterator[str]:
        yield from list(stages)[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_repository(out, TINY, Part(stages, broken_off), **written)
    assert not (out / MANIFEST).exists()

    write_repository(out, TINY, stages, **written)
    assert files_of(out) == {**files_of(tiny_repository), "notes.txt": b"mine"}


class Part(dict):
    def __init__(self, stages: dict[str, Any], names: Callable[[], Iterator[str]]) -> None:
        super().__init__(stages)
        self._names = names

    def __iter__(self) -> Iterator[str]:
        return self._names()


def load_stages(repository: Path) -> dict[str, Any]:
    return {stage: load_file(weights_path(repository, stage)) for stage in STAGES}


def test_a_package_that_is_missing_is_named_with_what_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(repository, "version", absent)
    with pytest.raises(InvalidArgumentError, match=r"ssp-sam is not installed; `pip install ssp-sam\[server\]`"):
        write_repository(
            tmp_path, get_preset("tiny"), {}, dtype="auto", calibration=Calibration(), source={}, backend="onnxruntime"
        )


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def bare(tiny_repository: Path, tmp_path: Path) -> Path:
    """Return a repository that consists of a manifest and one stage's weights."""
    weights = weights_path(tmp_path, "mask_decoder")
    weights.parent.mkdir(parents=True)
    shutil.copy(weights_path(tiny_repository, "mask_decoder"), weights)
    shutil.copy(tiny_repository / MANIFEST, tmp_path / MANIFEST)
    return tmp_path


def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["build_repository.py", *map(str, arguments)])
    code: int = script.main()
    return code


def test_refresh_restores_what_is_generated_and_leaves_the_rest(
    build_repository: ModuleType, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_configurations(bare)
    weights, before = weights_path(bare, "mask_decoder").read_bytes(), files_of(bare)
    (bare / "segment" / "config.pbtxt").write_text("broken")
    shutil.rmtree(bare / "preprocess")

    assert run(build_repository, monkeypatch, "--refresh", bare) == 0

    assert files_of(bare) == before
    assert weights_path(bare, "mask_decoder").read_bytes() == weights


def test_a_calibration_can_be_changed_without_the_weights(
    build_repository: ModuleType, bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Manifest.read(bare)
    calibration = Calibration(((0.0, 0.1), (1.0, 0.8)), 70.0, 0.2, 0.3)
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps(asdict(calibration)))

    assert run(build_repository, monkeypatch, "--refresh", bare, "--calibration", file) == 0

    assert Manifest.read(bare) == replace(before, calibration=calibration) != before
    assert '\\"no_target_similarity\\": 0.3}' in (bare / "postprocess" / "config.pbtxt").read_text()
    assert run(build_repository, monkeypatch, "--refresh", bare) == 0
    assert Manifest.read(bare).calibration == calibration


def test_wrong_use_is_told_from_failure(
    build_repository: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(build_repository, monkeypatch, "--refresh", tmp_path) == 1
    assert "is no model repository" in capsys.readouterr().err
    (tmp_path / "x.pth").write_bytes(b"no checkpoint")
    options = ("--checkpoint", tmp_path / "x.pth", "--preset", "tiny", "--out", tmp_path / "out")
    assert run(build_repository, monkeypatch, *options) == 1
    assert "x.pth is not a checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    for arguments in ((), ("--random-weights", "0"), ("--random-weights", "0", "--refresh", tmp_path)):
        with pytest.raises(SystemExit) as caught:
            run(build_repository, monkeypatch, *arguments)
        assert caught.value.code == 2
