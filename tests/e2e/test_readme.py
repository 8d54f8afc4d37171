"""The README's code runs as it stands, and commands of the documents name what exists."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ssp_sam.serving.server import TritonServer

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODEL_CARD = (ROOT / "docs" / "model_card.md").read_text(encoding="utf-8")
DEFAULT_URL = "localhost:8001"


def blocks(language: str, document: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document, re.DOTALL)


def commands(document: str = README) -> list[list[str]]:
    lines = "\n".join(blocks("bash", document)).splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize("code", blocks("python"))
def test_python_block_runs(server: TritonServer, code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code.replace(DEFAULT_URL, server.grpc_url)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_client_command_runs(server: TritonServer, tmp_path: Path) -> None:
    (command,) = (words for words in commands() if "client/segment.py" in words)
    words = [sys.executable, *command[1:], "--url", server.grpc_url]
    words[words.index("--out") + 1] = str(tmp_path)
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "overlay.png").exists()


def test_the_demo_runs(tmp_path: Path) -> None:
    command = [sys.executable, "scripts/demo.py", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    phrases = ("the dog on the left", "both dogs", "the car", "the lemon", "the zebra")
    assert all(phrase in done.stdout for phrase in phrases)
    assert len([*tmp_path.glob("mask_*.png")]) == len(phrases)
    assert (tmp_path / "overlay.png").exists()


def test_other_commands_name_what_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    seen = set()
    for program, *words in [*commands(), *commands(MODEL_CARD)]:
        if program == "make":
            assert words[0] in targets
        elif program == ".venv/bin/python":
            script = words[:2] if words[0] == "-m" else words[:1]
            done = subprocess.run(
                [sys.executable, *script, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
            )
            assert done.returncode == 0, done.stderr
            assert all(word in done.stdout for word in words if word.startswith("--"))
        else:
            assert program.endswith("torchrun")
            assert (ROOT / words[words.index("--config") + 1]).exists()
        seen.add(program)
    assert {"make", ".venv/bin/python"} <= seen


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
