"""What `python -m benchmarks` does when one of its parts cannot be measured."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import PARTS, main
from benchmarks.figures import Figure


def test_figures_of_an_earlier_run_are_not_taken_for_this_one_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runtimes.json").write_text("[]")

    def failing(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(subprocess, "run", failing)
    with pytest.raises(SystemExit, match=r"compare_runtimes\.py failed with status 1"):
        list(PARTS["runtimes"](tmp_path))


def test_what_was_measured_before_a_part_failed_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bench.json").write_text('[{"name": "of an earlier run"}]')

    def failing(out: Path) -> Iterator[Figure]:
        """fails"""
        yield Figure("first", 1.0, "x", "once")
        raise RuntimeError("no room")

    monkeypatch.setitem(PARTS, "phrases", failing)
    monkeypatch.setattr("sys.argv", ["benchmarks", "--only", "phrases", "--out", str(tmp_path)])
    with pytest.raises(RuntimeError, match="no room"):
        main()
    assert [figure["name"] for figure in json.loads((tmp_path / "bench.json").read_text())] == ["first"]
