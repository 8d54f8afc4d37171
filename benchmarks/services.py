"""Servers to put a load on: ours, and what users might have built instead."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil

from ssp_sam.networks.converted import CACHE_VARIABLE
from ssp_sam.serving.server import ServerSettings, TritonServer

RIVALS = Path(__file__).parent / "rivals"
START_TIMEOUT_S = 300.0


@contextlib.contextmanager
def triton(repository: Path, log: Path, *, cache: str | None = None) -> Iterator[TritonServer]:
    """Serve a repository on free ports. cache: folder for converted networks instead of the usual one."""
    settings = ServerSettings(repository, grpc_port=0, http_port=0, metrics_port=0, log_file=log)
    with environment(CACHE_VARIABLE, cache), TritonServer(settings) as server:
        yield server


@contextlib.contextmanager
def environment(name: str, value: str | None) -> Iterator[None]:
    """Set a variable for processes that are started meanwhile; None leaves it as it is."""
    before = os.environ.get(name)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        if before is not None:
            os.environ[name] = before
        elif value is not None:
            os.environ.pop(name)


@contextlib.contextmanager
def monolith(repository: Path, log: Path) -> Iterator[TritonServer]:
    """Serve the weights of a repository as one Triton model."""
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        shutil.copytree(RIVALS / "monolith", models)
        settings = ServerSettings(
            models,
            grpc_port=0,
            http_port=0,
            metrics_port=0,
            log_file=log,
            threads_per_model_process=len(os.sched_getaffinity(0)),
        )
        with environment("SSP_SAM_REPOSITORY", str(repository.resolve())), TritonServer(settings) as server:
            yield server


@contextlib.contextmanager
def litserve(repository: Path, log: Path) -> Iterator[str]:
    """Serve the weights of a repository with LitServe; yields the URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "benchmarks.rivals.litserve_server", str(repository), str(port)]
    with log.open("a") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            _await(f"{url}/health", process, log)
            yield url
        finally:
            workers: list[psutil.Process] = []
            with contextlib.suppress(psutil.NoSuchProcess):  # where it could not start, `_await` says so
                workers = psutil.Process(process.pid).children(recursive=True)
            for each in (*workers, process):
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.terminate()
            process.wait(60)
            psutil.wait_procs(workers, timeout=20)


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            raise RuntimeError(f"LitServe ended with code {process.returncode}; see {log}")
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                if response.status == 200:
                    return
        except (urllib.error.URLError, OSError):  # it does not listen yet, or has not loaded the weights
            pass
        time.sleep(0.2)
    raise RuntimeError(f"LitServe was not ready after {START_TIMEOUT_S:g} s; see {log}")


def memory_mib() -> dict[str, float]:
    """Return the resident memory of every process under this one by its model; shared pages are shared out."""
    sizes: dict[str, float] = {}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            sizes[_name(process)] = sizes.get(_name(process), 0.0) + process.memory_full_info().pss / 2**20
    return sizes


def cpu_s() -> dict[str, float]:
    """Return the processor time that this process ("client") and every one under it, by its model, have taken."""
    taken: dict[str, float] = {}
    own = psutil.Process()
    for process in (own, *own.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            name, times = "client" if process == own else _name(process), process.cpu_times()
            taken[name] = taken.get(name, 0.0) + times.user + times.system
    return taken


def _name(process: psutil.Process) -> str:
    command = process.cmdline()
    model = next((Path(part).parent.parent.name for part in command if part.endswith("model.py")), None)
    return model or process.name()
