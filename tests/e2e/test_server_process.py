"""The real tritonserver as a process: it starts, answers, and never leaves anything behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from ssp_sam.serving import server as server_module
from ssp_sam.serving.server import PortInUseError, ServerDiedError, ServerSettings, ServerStartError, TritonServer

SERVE = Path(__file__).parents[2] / "scripts" / "serve.py"
TIMEOUT_S = 60.0
CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 0
input [{{ name: "x" data_type: TYPE_FP32 dims: [-1] }}]
output [{{ name: "y" data_type: TYPE_FP32 dims: [-1] }}]
instance_group [{{ kind: KIND_CPU count: {instances} }}]
"""
MODEL = """
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        {initialize}

    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", x)]) for x in inputs]
"""


def add_model(repository: Path, name: str, initialize: str = "pass", instances: int = 1) -> Path:
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(CONFIG.format(name=name, instances=instances))
    (version / "model.py").write_text(MODEL.format(initialize=initialize))
    return repository


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Path]:
    """A repository of one identity model; at the end of a test no process of it and none of its memory may be left."""
    shared_before = abandoned_memory()
    folder = add_model(tmp_path / "repository", "identity")
    yield folder
    left = processes_of(folder)
    for process in left:
        process.kill()
    assert not left
    # Another server on this machine that is just stopping has regions without processes for a moment; a leak stays.
    deadline = time.monotonic() + TIMEOUT_S
    while not abandoned_memory() <= shared_before and time.monotonic() < deadline:
        time.sleep(0.5)
    assert abandoned_memory() <= shared_before


def processes_of(repository: Path, name: str = "triton") -> list[psutil.Process]:
    """The living processes called `name`... that serve `repository`: the server's and the models'."""
    found = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
        except psutil.Error:
            continue
        if line and Path(line[0]).name.startswith(name) and any(str(repository) in word for word in line):
            found.append(process)
    return found


def abandoned_memory() -> set[str]:
    """The shared memory of Python models that no living process names: other servers may run on this machine."""
    regions = {file.name for file in Path("/dev/shm").glob("ssp_sam_*")}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            regions -= set(process.cmdline())
    return regions


def wait_until_gone(repository: Path) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while processes_of(repository) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes_of(repository)


def settings(repository: Path, **changes: object) -> ServerSettings:
    ports = {"grpc_port": 0, "http_port": 0, "metrics_port": 0, "ready_timeout_s": TIMEOUT_S}
    return ServerSettings(repository, **{**ports, **changes})  # type: ignore[arg-type]


def echo(server_url: str, values: list[float], model: str = "identity") -> list[float]:
    x = triton.InferInput("x", [len(values)], "FP32")
    x.set_data_from_numpy(np.array(values, np.float32))
    with triton.InferenceServerClient(server_url) as client:
        answer = client.infer(model, [x], client_timeout=TIMEOUT_S).as_numpy("y")
    assert answer is not None
    return [float(value) for value in answer]


@dataclass
class Serve:
    """scripts/serve.py as a process that has said that it is ready."""

    process: subprocess.Popen[str]
    grpc_url: str
    block: list[str]

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit status and what came on stderr."""
        _, errors = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, errors


@contextmanager
def serving(repository: Path) -> Iterator[Serve]:
    ports = [f"--{name}-port=0" for name in ("grpc", "http", "metrics")]
    command = [sys.executable, str(SERVE), f"--model-repository={repository}", *ports]
    # A server that is killed leaves its folder of links: here it goes with the test's own.
    env = {**os.environ, "TMPDIR": str(repository.parent)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        watchdog = threading.Timer(TIMEOUT_S, process.kill)  # ends a read that would never end
        watchdog.start()
        try:
            assert process.stdout is not None
            block = [process.stdout.readline() for _ in range(5)]
            assert "Stop with Ctrl-C" in block[-1], process.communicate()[1]
            yield Serve(process, block[1].split()[-1], block)
        finally:
            watchdog.cancel()
            process.kill()


def test_answers_and_is_gone_after_the_block(repository: Path) -> None:
    with TritonServer(settings(repository)) as server:
        assert echo(server.grpc_url, [1.0, 2.5]) == [1.0, 2.5]
        with urllib.request.urlopen(server.metrics_url, timeout=TIMEOUT_S) as answer:
            assert b"nv_inference_request_success" in answer.read()
        with urllib.request.urlopen(f"{server.http_url}/v2/health/ready", timeout=TIMEOUT_S) as answer:
            assert answer.status == 200
        server.wait(timeout_s=0.1)
    assert not processes_of(repository)
    with TritonServer(server.settings) as again:
        assert echo(again.grpc_url, [3.0]) == [3.0]


def test_two_servers_side_by_side(repository: Path) -> None:
    with TritonServer(settings(repository)) as one, TritonServer(settings(repository)) as two:
        assert one.grpc_url != two.grpc_url
        assert echo(one.grpc_url, [1.0]) == [1.0]
        assert echo(two.grpc_url, [2.0]) == [2.0]
        stubs = processes_of(repository, "triton_python_backend_stub")
        assert [word.startswith("ssp_sam_") for stub in stubs for word in stub.cmdline()].count(True) == len(stubs) == 2


def test_shared_memory_cannot_be_mapped_over_the_network(repository: Path) -> None:
    with TritonServer(settings(repository)) as server:
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{server.http_url}/v2/systemsharedmemory/status", timeout=TIMEOUT_S)
        with triton.InferenceServerClient(server.grpc_url) as client, pytest.raises(InferenceServerException):
            client.get_system_shared_memory_status(client_timeout=TIMEOUT_S)


def test_server_outlives_the_thread_that_started_it(repository: Path) -> None:
    server = TritonServer(settings(repository))
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join(TIMEOUT_S)
    try:
        server.wait(timeout_s=1.5)
        assert echo(server.grpc_url, [1.0]) == [1.0]
    finally:
        server.stop()


def test_stop_from_another_thread_ends_the_wait(repository: Path) -> None:
    with TritonServer(settings(repository)) as server:
        timer = threading.Timer(0.2, server.stop)
        timer.start()
        server.wait(timeout_s=TIMEOUT_S)
        timer.join(TIMEOUT_S)


def test_log_goes_to_the_file(repository: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with TritonServer(settings(repository, log_file=tmp_path / "server.log")):
        pass
    assert "successfully loaded 'identity'" in (tmp_path / "server.log").read_text()
    assert capfd.readouterr().err == ""


def test_log_file_that_cannot_be_written_fails_the_start(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(ServerStartError, match=r"cannot start tritonserver: .*no-folder"):
        TritonServer(settings(repository, log_file=tmp_path / "no-folder" / "server.log")).start()


def test_dead_model_process_is_named(repository: Path) -> None:
    add_model(repository, "other_model", instances=2)
    with TritonServer(settings(repository)) as server:
        stubs = [p for p in processes_of(repository) if "other_model_0_1" in p.cmdline()]
        stubs[0].kill()
        with pytest.raises(ServerDiedError, match="model 'other_model' killed by signal 9"):
            server.wait(timeout_s=TIMEOUT_S)


def test_broken_model_fails_the_start_with_its_reason(repository: Path) -> None:
    add_model(repository, "broken", initialize="raise ValueError('no weights here')")
    with pytest.raises(ServerStartError, match="exited with code 1 before it was ready") as failure:
        TritonServer(settings(repository)).start()
    assert "failed to load 'broken' version 1: Internal: ValueError: no weights here" in str(failure.value)
    assert "successfully loaded 'identity'" not in str(failure.value)


def test_model_process_that_cannot_run_fails_the_start_soon(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = tmp_path / "triton_python_backend_stub"
    stub.write_text("#!/bin/sh\necho 'libpython.so: cannot open'\nexit 127\n")
    stub.chmod(0o755)
    installation = replace(server_module.find_installation(), python_stub=stub)
    monkeypatch.setattr(server_module, "find_installation", lambda: installation)
    begin = time.monotonic()
    with pytest.raises(ServerStartError, match="process of a model exited with code 127 while loading") as failure:
        TritonServer(settings(repository, stop_grace_s=2.0)).start()
    assert "libpython.so: cannot open" in str(failure.value)
    assert time.monotonic() - begin < 30


def test_slow_model_fails_the_start_in_time(repository: Path) -> None:
    add_model(repository, "slow", initialize="time.sleep(600)")
    begin = time.monotonic()
    with pytest.raises(ServerStartError, match=r"not ready after 1.5 s"):
        TritonServer(settings(repository, ready_timeout_s=1.5, stop_grace_s=2.0)).start()
    assert time.monotonic() - begin < 20


def test_taken_port_fails_the_start(repository: Path) -> None:
    with TritonServer(settings(repository)) as server:
        taken = server.settings.grpc_port
        with pytest.raises(PortInUseError, match=f"grpc_port {taken} on 127.0.0.1 is taken"):
            TritonServer(settings(repository, grpc_port=taken)).start()
        assert echo(server.grpc_url, [1.0]) == [1.0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_stops_cleanly_on_a_signal(repository: Path, number: signal.Signals) -> None:
    with serving(repository) as serve:
        assert str(repository) in serve.block[0]
        assert echo(serve.grpc_url, [4.0]) == [4.0]
        serve.process.send_signal(number)
        status, errors = serve.end()
    assert status == 0
    assert "Traceback" not in errors
    assert not processes_of(repository)


def test_serve_fails_when_a_model_process_is_killed(repository: Path) -> None:
    with serving(repository) as serve:
        processes_of(repository, "triton_python_backend_stub")[0].kill()
        status, errors = serve.end()
    assert status == 1
    assert "error: the Python process of model 'identity' killed by signal 9" in errors
    assert not processes_of(repository)


def test_serve_fails_when_the_server_is_killed(repository: Path) -> None:
    with serving(repository) as serve:
        processes_of(repository, "tritonserver")[0].kill()
        status, errors = serve.end()
    assert status == 1
    assert "error: tritonserver killed by signal 9" in errors
    assert not processes_of(repository)


def test_second_signal_ends_a_slow_stop(repository: Path) -> None:
    with serving(repository) as serve:
        os.kill(processes_of(repository, "tritonserver")[0].pid, signal.SIGSTOP)  # it cannot react to SIGTERM
        serve.process.send_signal(signal.SIGTERM)
        time.sleep(1.0)
        begin = time.monotonic()
        serve.process.send_signal(signal.SIGTERM)
        serve.end()
        assert time.monotonic() - begin < 10
    assert not processes_of(repository)


def test_killed_serve_leaves_no_server(repository: Path) -> None:
    with serving(repository) as serve:
        serve.process.send_signal(signal.SIGKILL)
        serve.process.wait(TIMEOUT_S)
        wait_until_gone(repository)


def test_serve_tells_that_a_port_is_taken(repository: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        command = [sys.executable, str(SERVE), f"--model-repository={repository}", f"--http-port={port}"]
        ended = subprocess.run(
            [*command, "--grpc-port=0", "--metrics-port=0"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert f"error: http_port {port} on 127.0.0.1 is taken" in ended.stderr
