"""What `scripts/demo.py` refuses before it starts a server."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Run = Callable[..., int]


@pytest.fixture
def run(demo: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(demo, "TritonServer", lambda _: pytest.fail("a server was started"))

    def run(*options: Path | str) -> int:
        monkeypatch.setattr(sys, "argv", ["demo.py", *map(str, options)])
        code: int = demo.main()
        return code

    return run


def test_missing_image(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "none.png"
    assert run("--image", missing, "--out", tmp_path) == 1
    assert str(missing) in capsys.readouterr().err


def test_folder_that_cannot_be_made(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert run("--out", tmp_path / "file" / "demo") == 1
    assert str(tmp_path / "file") in capsys.readouterr().err
