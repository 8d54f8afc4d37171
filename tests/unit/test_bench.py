"""What `python -m benchmarks` does when one of its parts cannot be measured."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import PARTS


def test_figures_of_an_earlier_run_are_not_taken_for_this_one_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runtimes.json").write_text("[]")

    def failing(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(subprocess, "run", failing)
    with pytest.raises(SystemExit, match=r"compare_runtimes\.py failed with status 1"):
        list(PARTS["runtimes"](tmp_path))
