"""The load test makes load, counts it, and says when requests fail."""

from __future__ import annotations

import csv
import socket
import subprocess
import sys
from pathlib import Path

import tritonclient.grpc

from ssp_sam.serving import contract
from ssp_sam.serving.server import TritonServer

LOCUSTFILE = Path(__file__).parents[2] / "loadtest" / "locustfile.py"


def run_load(host: str, csv_prefix: Path, *options: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Run the load test for some seconds; return its exit code and the rows of its table by name."""
    command = [sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE), "--host", host, "--headless"]
    command += ["--users", "3", "--spawn-rate", "3", "--run-time", "8s", "--csv", str(csv_prefix), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    with Path(f"{csv_prefix}_stats.csv").open(encoding="utf-8") as file:
        return done.returncode, {row["Name"]: row for row in csv.DictReader(file)}


def test_new_and_recent_images_are_asked_about(server: TritonServer, tmp_path: Path) -> None:
    with tritonclient.grpc.InferenceServerClient(server.grpc_url) as client:

        def images_encoded() -> int:
            statistics = client.get_inference_statistics(contract.SAM_IMAGE_ENCODER).model_stats[0]
            return int(statistics.inference_count)

        before = images_encoded()
        code, rows = run_load(server.grpc_url, tmp_path / "load", "--new-image-share", "0.5", "--phrases", "2")
        assert code == 0
        assert images_encoded() - before >= int(rows["new image"]["Request Count"]) > 0
    assert float(rows["Aggregated"]["Average Content Size"]) == 2  # phrases
    assert rows.keys() == {"new image", "recent image", "Aggregated"}
    assert int(rows["Aggregated"]["Request Count"]) >= 6
    assert rows["Aggregated"]["Failure Count"] == "0"


def test_failures_are_counted(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        code, rows = run_load(f"127.0.0.1:{port}", tmp_path / "load")
    assert code == 1
    assert int(rows["Aggregated"]["Failure Count"]) == int(rows["Aggregated"]["Request Count"]) > 0
