from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tiny_benchmarks import StubSegmenter, noisy, right, write_grefcoco, write_phrasecut, write_refer

from ssp_sam.data.names import nouns
from ssp_sam.training.config import load_config

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "scripts" / "evaluate.py"


@pytest.fixture(scope="module")
def evaluate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("evaluate", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def stubbed(evaluate: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script with a model that answers the truth of whatever data set it opens."""
    opened: list[Any] = []
    open_dataset = evaluate._open_dataset
    monkeypatch.setattr(evaluate, "_open_dataset", lambda options: opened.append(open_dataset(options)) or opened[-1])
    monkeypatch.setattr(evaluate, "_open_segmenter", lambda options: StubSegmenter(opened[-1], right))
    return evaluate


def arguments(root: Path, out: Path, *more: str) -> list[str]:
    return ["--dataset", "refcoco", "--split", "val", "--root", str(root), "--server", "x", "--out", str(out), *more]


def test_a_whole_run(stubbed: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = arguments(write_refer(tmp_path / "data"), out)
    assert stubbed.main(command) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == "RefCOCO, val: 3 phrases, 1 images (per cent)"
    assert printed.out.splitlines()[3].split() == ["field", "3", *["100.00"] * 7]
    assert "report.html" in printed.err
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["dataset"], metrics["split"], metrics["phrases"], metrics["model"]) == (
        "refcoco",
        "val",
        3,
        {"stub": 1},
    )
    assert metrics["figures"]["field"]["mIoU"] == 1
    assert metrics["figures"]["release"]["samples"] == 3
    assert {path.name for path in out.iterdir()} == {"journal.jsonl", "metrics.json", "report.html", "samples.csv"}
    assert stubbed.main(command) == 0
    assert capsys.readouterr().out == printed.out, "what is done is not done again, the figures stay"


@pytest.mark.parametrize(
    ("write", "name", "heads"),
    [
        (write_grefcoco, "grefcoco val", "phrases gIoU cIoU N-acc T-acc Pr@0.7 Pr@0.8 Pr@0.9"),
        (write_phrasecut, "phrasecut miniv", "phrases mIoU cIoU Pr@0.5 Pr@0.6 Pr@0.7 Pr@0.8 Pr@0.9"),
    ],
)
def test_each_benchmark_has_its_figures(
    write: Any, name: str, heads: str, stubbed: ModuleType, request: pytest.FixtureRequest
) -> None:
    tmp_path, capsys = request.getfixturevalue("tmp_path"), request.getfixturevalue("capsys")
    root, (dataset, split) = write(tmp_path / "data"), name.split()
    command = ["--dataset", dataset, "--split", split, "--root", str(root), "--server", "x"]
    command += ["--out", str(tmp_path / "out")]
    assert stubbed.main([*command, "--metrics", "field"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == heads.split()
    assert len(lines) == 4, "no row of the release's figures"
    assert stubbed.main([*command, "--metrics", "release"]) == 1
    assert 'metrics was "field", now it is "release"' in capsys.readouterr().err


def test_limit(stubbed: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_grefcoco(tmp_path / "data")
    command = ["--dataset", "grefcoco", "--split", "val", "--root", str(root), "--server", "x"]
    command += ["--out", str(tmp_path / "out")]
    for limit, said in ((["--limit", "1"], "2 phrases, 1 images"), ([], "4 phrases, 2 images")):
        for _ in range(2):  # a run with another limit goes on from the same answers
            assert stubbed.main([*command, *limit]) == 0
            assert said in capsys.readouterr().out
    assert stubbed.main([*command, "--limit", "1"]) == 0
    assert "2 phrases, 1 images" in capsys.readouterr().out


def test_interrupted(evaluate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    root, out = write_grefcoco(tmp_path / "data"), tmp_path / "out"
    dataset = evaluate.BENCHMARKS["grefcoco"].open("val", root)
    monkeypatch.setattr(
        evaluate, "_open_segmenter", lambda options: StubSegmenter(dataset, noisy, concurrency=1, fails_after=1)
    )
    command = ["--dataset", "grefcoco", "--split", "val", "--root", str(root), "--server", "x", "--out", str(out)]
    assert evaluate.main(command) == 1
    assert "the same command goes on from here" in capsys.readouterr().err
    assert not (out / "metrics.json").exists()
    monkeypatch.setattr(evaluate, "_open_segmenter", lambda options: StubSegmenter(dataset, noisy))
    assert evaluate.main(command) == 0
    assert json.loads((out / "metrics.json").read_text())["images"] == 2


def test_failures(evaluate: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(arguments(tmp_path / "nowhere", tmp_path / "out")) == 1
    assert "there is no folder" in capsys.readouterr().err
    root = write_refer(tmp_path / "data")
    command = arguments(root, tmp_path / "out")
    command[command.index("--server") : command.index("--server") + 2] = ["--repository", str(tmp_path)]
    assert evaluate.main(command) == 1
    assert "is no model repository" in capsys.readouterr().err
    command[command.index("--repository") : command.index("--repository") + 2] = ["--server", "127.0.0.1:9"]
    assert evaluate.main(command) == 1
    assert "no server is ready at 127.0.0.1:9" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([], "required"),
        (["--dataset", "refcoco", "--split", "val", "--server", "x"], "--root is needed for refcoco"),
        (["--dataset", "refcoco", "--split", "testC", "--server", "x"], "refcoco has val, testA, testB, test, train"),
        (["--dataset", "coco", "--split", "val", "--server", "x"], "invalid choice: 'coco'"),
        (["--dataset", "scenes", "--split", "val", "--server", "x", "--repository", "y"], "not allowed with"),
        (["--dataset", "scenes", "--split", "val", "--server", "x", "--count", "0"], "--count is 0; at least 1"),
        (["--dataset", "scenes", "--split", "val", "--server", "x", "--limit", "-1"], "--limit is -1; at least 1"),
        (["--dataset", "scenes", "--split", "val", "--server", "x", "--timeout-s", "0"], "timeout_s is 0.0; allowed"),
        (["--dataset", "scenes", "--split", "val", "--server", "http://x:1"], "without http://"),
    ],
)
def test_wrong_usage(command: list[str], message: str, evaluate: ModuleType, capsys: Any) -> None:
    with pytest.raises(SystemExit) as exit_:
        evaluate.main(command)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_scenes_in_process(
    evaluate: ModuleType, tiny_repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["--dataset", "scenes", "--split", "test", "--count", "2", "--repository", str(tiny_repository)]
    config = ROOT / "configs" / "tiny" / "01_basics.toml"
    assert evaluate.main([*command, "--config", str(config), "--out", str(out)]) == 0
    assert "Synthetic scenes, test: 8 phrases, 2 images" in capsys.readouterr().out
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["model"]["manifest"]["preset"] == "tiny"
    assert sum(row["samples"] for row in metrics["by_kind"].values()) == 8
    assert metrics["content"]["vocabulary"] == list(load_config(config).data.vocabulary or nouns())
    assert evaluate.main([*command, "--config", "absent.toml", "--out", str(out)]) == 1
    assert "cannot read absent.toml" in capsys.readouterr().err


def test_splits_of_scenes_are_those_that_there_are(evaluate: ModuleType) -> None:
    from ssp_sam.data import SPLITS

    assert set(evaluate.SCENE_SPLITS) == set(SPLITS)
