"""Scoring through the real server gives the figures of scoring in process."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ssp_sam.serving.server import TritonServer

ROOT = Path(__file__).parents[2]


def evaluate(out: Path, *model: str) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Run the script on a few scenes; return what it wrote as JSON and for each sample."""
    command = [sys.executable, str(ROOT / "scripts" / "evaluate.py"), "--dataset", "scenes", "--split", "val"]
    command += ["--count", "6", "--out", str(out), *model]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "6/6" in done.stderr, "the bar is full"
    with (out / "samples.csv").open(encoding="utf-8") as file:
        return json.loads((out / "metrics.json").read_text(encoding="utf-8")), list(csv.DictReader(file))


def test_served_figures_are_those_of_the_predictor(server: TritonServer, tmp_path: Path) -> None:
    local, own = evaluate(tmp_path / "local", "--repository", str(ROOT / "model_repository"))
    served, theirs = evaluate(tmp_path / "served", "--server", server.grpc_url, "--concurrency", "4")
    assert served["figures"] == local["figures"]
    assert served["by_kind"] == local["by_kind"]
    assert served["phrases"] == 24
    assert theirs == own, "every sample, in the data set's order"
    assert (tmp_path / "served" / "report.html").stat().st_size > 10_000
