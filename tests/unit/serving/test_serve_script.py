from __future__ import annotations

import signal
from pathlib import Path
from types import ModuleType

import pytest

from ssp_sam.serving.server import ServerSettings


def test_every_option_of_serve_reaches_the_settings(serve: ModuleType) -> None:
    options = {
        "--model-repository": ("model_repository", Path("repository")),
        "--host": ("host", "0.0.0.0"),
        "--grpc-port": ("grpc_port", 1),
        "--http-port": ("http_port", 2),
        "--metrics-port": ("metrics_port", 3),
        "--ready-timeout-s": ("ready_timeout_s", 4.5),
        "--stop-grace-s": ("stop_grace_s", 5.5),
        "--threads": ("threads_per_model_process", 6),
        "--shm-default-bytes": ("shm_default_bytes", 2**21),
        "--shm-growth-bytes": ("shm_growth_bytes", 2**20),
        "--log-file": ("log_file", Path("x.log")),
    }
    settings = serve.parse_args([word for name, (_, value) in options.items() for word in (name, str(value))])
    assert settings == ServerSettings(**dict(options.values()))


def test_command_line_of_serve(serve: ModuleType) -> None:
    settings = serve.parse_args(
        ["--grpc-port", "1", "--verbose", "--ready-timeout-s", "2.5", "--", "--rate-limit=off", "--log-info=false"]
    )
    assert settings.grpc_port == 1
    assert settings.log_verbose == 1
    assert settings.ready_timeout_s == 2.5
    assert settings.extra_args == ("--rate-limit=off", "--log-info=false")
    assert settings.model_repository.name == "model_repository"
    assert serve.parse_args([]) == ServerSettings(settings.model_repository)


@pytest.mark.parametrize(
    "arguments", [["stray"], ["--grpc-port", "x"], ["--grpc-port", "70000"], ["--", "--http-port=1"]]
)
def test_wrong_usage_of_serve_is_status_2(serve: ModuleType, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        serve.parse_args(arguments)
    assert leave.value.code == 2


def test_failure_of_serve_is_status_1(serve: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        assert serve.main(["--model-repository", str(tmp_path)]) == 1
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)
    assert "holds no model" in capsys.readouterr().err
