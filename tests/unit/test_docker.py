"""No container engine runs the tests: the files are read and compared with each other and with the code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from ssp_sam.serving.server import ServerSettings

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
DEFAULTS = ServerSettings(ROOT / "model_repository")
PORTS = {DEFAULTS.grpc_port, DEFAULTS.http_port, DEFAULTS.metrics_port}


def service(name: str) -> dict[str, Any]:
    triton: dict[str, Any] = yaml.safe_load((ROOT / "docker" / name).read_text())["services"]["triton"]
    return triton


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def compose_plugin() -> bool:
    docker = shutil.which("docker")
    return (
        docker is not None
        and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0
    )


def test_image_is_pinned_and_not_root() -> None:
    assert re.search(r"^FROM nvcr\.io/nvidia/tritonserver:\d\d\.\d\d-py3$", DOCKERFILE, re.MULTILINE)
    users = re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)
    assert users == ["ssp-sam"]


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignore[0] == "*"
    copies = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY ")]
    sources = {source for copy in copies for source in copy}
    assert sources == {line[1:] for line in ignore if line.startswith("!")}
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_container_listens_everywhere_and_is_asked_whether_it_is_ready() -> None:
    command = json.loads(re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)[0])
    assert command == ["python3", "scripts/serve.py", "--host", "0.0.0.0"]
    assert {int(port) for port in re.findall(r"^EXPOSE (.*)$", DOCKERFILE, re.MULTILINE)[0].split()} == PORTS
    assert f"http://127.0.0.1:{DEFAULTS.http_port}/v2/health/ready" in DOCKERFILE


def test_ports_are_published_on_loopback_only() -> None:
    assert set(service("compose.yaml")["ports"]) == {f"127.0.0.1:{port}:{port}" for port in PORTS}


def test_compose_gives_the_server_time_to_stop_and_restarts_it() -> None:
    triton = service("compose.yaml")
    assert seconds(triton["stop_grace_period"]) > DEFAULTS.stop_grace_s
    assert triton["restart"] == "unless-stopped"
    assert triton["init"] is True
    assert triton["shm_size"] == "2gb"


def test_compose_starts_what_the_image_does_with_few_threads(serve: ModuleType) -> None:
    command = json.loads(re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)[0])
    of_compose = service("compose.yaml")["command"]
    assert of_compose == [*command, "--threads", "${SSP_SAM_THREADS:-1}"]
    settings = serve.parse_args([*of_compose[2:-1], "1"])
    assert (settings.host, settings.threads_per_model_process) == ("0.0.0.0", 1)


def test_gpu_overlay_adds_devices_only() -> None:
    assert service("compose.gpu.yaml") == {
        "deploy": {
            "resources": {"reservations": {"devices": [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]}}
        }
    }


@pytest.mark.skipif(not compose_plugin(), reason="the compose plugin of Docker is not installed")
def test_compose_accepts_both_files() -> None:
    files = [f"--file={ROOT / 'docker' / name}" for name in ("compose.yaml", "compose.gpu.yaml")]
    subprocess.run(["docker", "compose", *files, "config", "--quiet"], check=True, timeout=60)
