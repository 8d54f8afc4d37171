"""The real tritonserver with the repository of this clone, and the in-process predictor to compare it with."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssp_sam.predictor import Predictor
from ssp_sam.serving.server import ServerSettings, TritonServer

# The small sets of the training's unit tests serve these too.
sys.path.append(str(Path(__file__).parents[1] / "unit" / "training"))

REPOSITORY = Path(__file__).parents[2] / "model_repository"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    settings = ServerSettings(
        REPOSITORY,
        grpc_port=0,
        http_port=0,
        metrics_port=0,
        ready_timeout_s=300,
        log_file=tmp_path_factory.mktemp("server") / "server.log",
    )
    with TritonServer(settings) as server:
        yield server
        server.check()  # no process has died during the tests


@pytest.fixture(scope="session")
def predictor() -> Predictor:
    return Predictor.from_repository(REPOSITORY, device="cpu")
