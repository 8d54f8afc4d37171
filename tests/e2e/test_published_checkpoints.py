"""A published checkpoint, built into a repository and served, answers with the masks of the published code."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ssp_sam.client import SegmentationClient
from ssp_sam.results import BoolMask
from ssp_sam.serving.server import ServerSettings, TritonServer

ROOT = Path(__file__).parents[2]
IOU_MIN = {"fp32": 0.999, "fp16": 0.99}


@pytest.fixture(scope="module", params=IOU_MIN)
def served(
    golden_checkpoint: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[SegmentationClient, str, str]]:
    """A client of a server of `golden_checkpoint`, the checkpoint's variant and the precision it is served in."""
    variant, dtype = golden_checkpoint.stem, request.param
    folder = tmp_path_factory.mktemp("published_server")
    script = [sys.executable, str(ROOT / "scripts" / "build_repository.py")]
    options = ["--preset", variant, "--checkpoint", str(golden_checkpoint), "--dtype", dtype]
    subprocess.run([*script, *options, "--out", str(folder / "models")], check=True)
    settings = ServerSettings(
        folder / "models",
        grpc_port=0,
        http_port=0,
        metrics_port=0,
        ready_timeout_s=300,
        log_file=folder / "server.log",
    )
    with TritonServer(settings) as server, SegmentationClient(server.grpc_url, timeout_s=120) as client:
        yield client, variant, dtype
        server.check()


def test_served_masks_are_those_of_the_published_code(served: tuple[SegmentationClient, str, str]) -> None:
    client, variant, dtype = served
    golden = np.load(ROOT / "tests" / "goldens" / f"{variant}_open.npz")
    for case in range(3):
        image, phrase = golden[f"case{case}_image"], str(golden[f"case{case}_phrase"])
        (answer,) = client.segment(image, [phrase])
        height, width, _ = image.shape
        bits = np.unpackbits(golden[f"case{case}_full_mask"])[: height * width].astype(bool)
        assert mask_iou(answer.mask, bits.reshape(height, width)) > IOU_MIN[dtype], f"case {case}: {phrase}"


def mask_iou(a: BoolMask, b: BoolMask) -> float:
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0
