from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from ssp_sam.serving import server_install, server_process
from ssp_sam.serving.server import (
    ModelRepositoryError,
    PortInUseError,
    ServerError,
    ServerSettings,
    ServerStartError,
    SettingsError,
    TritonServer,
    TritonserverNotFoundError,
    _close,
    check_repository,
    choose_ports,
)
from ssp_sam.serving.server_install import (
    Installation,
    find_installation,
    link_backends,
    server_command,
    server_environment,
)

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
CONTAINER = Installation(Path("/opt/t/bin/tritonserver"), Path("/opt/t/backends"), Path("/opt/t/caches"))


def test_a_watch_that_a_stop_overtakes_ends_without_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(TritonServer):
        def check(self) -> None:
            self._process = None  # another thread stops it here
            super().check()

    server = Stopped(ServerSettings(tmp_path))
    monkeypatch.setattr(server, "_process", SimpleNamespace())
    server.wait(timeout_s=10)
    with pytest.raises(ServerError, match="not running"):
        server.wait()


def make_package(site: Path) -> Path:
    """Lay out the folders of nvidia-pytriton in `site`, without their contents."""
    root = site / "pytriton" / "tritonserver"
    for file in (
        root / "bin" / "tritonserver",
        root / "backends" / "python" / "libtriton_python.so",
        root / "backends" / "python" / "triton_python_backend_utils.py",
        root / "caches" / "local" / "libtritoncache_local.so",
        root / "python_backend_stubs" / PYTHON / "triton_python_backend_stub",
        site / "pytriton" / "__init__.py",
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return root


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = make_package(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pytriton", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    return root


def command(**settings: Any) -> list[str]:
    return server_command(ServerSettings(Path("repo"), **settings), CONTAINER, Path("backends"), server_id="p")


def environment(given: dict[str, str], installation: Installation = CONTAINER, **settings: Any) -> dict[str, str]:
    return server_environment(ServerSettings(Path("repo"), **settings), installation, given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grpc_port": 65536}, "grpc_port is 65536; allowed are 1 to 65535, or 0"),
        ({"http_port": -1}, "http_port is -1"),
        ({"http_port": 8001}, "three different ports; got 8001, 8001, 8002"),
        ({"ready_timeout_s": 0.0}, "ready_timeout_s is 0.0; allowed is more than 0, up to 86400"),
        ({"ready_timeout_s": float("nan")}, "ready_timeout_s is nan"),
        ({"stop_grace_s": float("inf")}, "stop_grace_s is inf"),
        ({"stop_grace_s": -1.0}, "stop_grace_s is -1.0"),
        ({"threads_per_model_process": 0}, "threads_per_model_process is 0"),
        ({"shm_default_bytes": 1024}, "shm_default_bytes is 1024; a Python process needs 1048576 or more"),
        ({"log_verbose": -1}, "log_verbose is -1"),
        ({"extra_args": ("--http-port=1",)}, "--http-port=1 may not be among the extra arguments"),
        ({"extra_args": ("--model-repository", "x")}, "--model-repository may not be"),
        ({"extra_args": ("--id=mine",)}, "--id=mine may not be among the extra arguments: the launcher sets it itself"),
    ],
)
def test_wrong_settings_say_what_is_allowed(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        ServerSettings(Path("repo"), **changes)


def test_several_ports_may_be_chosen_freely() -> None:
    settings = choose_ports(ServerSettings(Path("repo"), grpc_port=0, http_port=0, metrics_port=0))
    assert len({settings.grpc_port, settings.http_port, settings.metrics_port} - {0}) == 3


def test_settings_cannot_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ServerSettings(Path("repo")).host = "0.0.0.0"  # type: ignore[misc]


def test_listens_on_loopback_only_unless_told() -> None:
    addresses = [option for option in command() if "-address=" in option]
    assert addresses == ["--http-address=127.0.0.1", "--grpc-address=127.0.0.1", "--metrics-address=127.0.0.1"]


def test_command_line_defaults() -> None:
    line = command(grpc_port=1, http_port=2, metrics_port=3)
    assert line[0] == "/opt/t/bin/tritonserver"
    assert {
        "--id=p",
        "--model-repository=repo",
        "--model-control-mode=none",
        "--disable-auto-complete-config",
        "--exit-on-error=true",
        "--strict-readiness=true",
        "--backend-directory=backends",
        "--cache-directory=/opt/t/caches",
        f"--exit-timeout-secs={int(ServerSettings(Path('repo')).stop_grace_s)}",
        "--grpc-port=1",
        "--http-port=2",
        "--metrics-port=3",
        "--log-format=ISO8601",
        "--log-verbose=0",
        "--backend-config=python,shm-region-prefix-name=p_",
        "--backend-config=python,stub-timeout-seconds=300",
    } <= set(line)
    assert not [option for option in line if "byte-size" in option]


def test_dangerous_apis_are_closed_by_a_key_that_nobody_knows() -> None:
    def closed() -> list[str]:
        return [option for option in command() if "restricted" in option]

    assert [option.split("=")[0] for option in closed()] == ["--http-restricted-api", "--grpc-restricted-protocol"]
    assert all("=shared-memory,logging,trace:closed=" in option for option in closed())
    assert closed() != closed()


def test_shared_memory_and_extra_options() -> None:
    line = command(shm_default_bytes=2**24, shm_growth_bytes=2**20, extra_args=("--rate-limit=off",))
    assert "--backend-config=python,shm-default-byte-size=16777216" in line
    assert "--backend-config=python,shm-growth-byte-size=1048576" in line
    assert line[-1] == "--rate-limit=off"


def test_environment_limits_threads_and_memory_but_the_user_decides() -> None:
    own = environment({"PATH": "/bin", "OMP_NUM_THREADS": "7", "OPENBLAS_NUM_THREADS": "5"})
    assert (own["OMP_NUM_THREADS"], own["OPENBLAS_NUM_THREADS"]) == ("7", "5")
    assert (own["MALLOC_MMAP_THRESHOLD_"], own["MALLOC_TRIM_THRESHOLD_"]) == ("4194304", "16777216")
    assert environment({"MALLOC_TRIM_THRESHOLD_": "1"})["MALLOC_TRIM_THRESHOLD_"] == "1"


def test_threads_of_the_settings_go_before_those_of_the_environment() -> None:
    own = environment({"PATH": "/bin", "OMP_NUM_THREADS": "7"}, threads_per_model_process=3)
    assert (own["OMP_NUM_THREADS"], own["OPENBLAS_NUM_THREADS"]) == ("3", "3")


def test_each_stage_decides_how_many_threads_its_network_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for cores, threads in ((1, "1"), (2, "1"), (9, "4")):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        own = environment({})
        assert "OMP_NUM_THREADS" not in own
        assert own["OPENBLAS_NUM_THREADS"] == threads  # numpy's, in the processes without a network as well


def test_python3_of_the_server_is_the_running_one() -> None:
    first, rest = environment({"PATH": "/a:/b"})["PATH"].split(os.pathsep, 1)
    assert (Path(first) / "python3").exists()
    assert first == str(Path(sys.executable).parent)
    assert rest == "/a:/b"


def test_library_path_of_the_package_comes_first() -> None:
    assert "LD_LIBRARY_PATH" not in environment({})
    packaged = dataclasses.replace(CONTAINER, libraries=(Path("/libs"), Path("/python")))
    assert environment({}, packaged)["LD_LIBRARY_PATH"] == "/libs:/python"
    assert environment({"LD_LIBRARY_PATH": "/x"}, packaged)["LD_LIBRARY_PATH"] == "/libs:/python:/x"


def test_server_on_path_wins(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable = tmp_path / "opt" / "tritonserver" / "bin" / "tritonserver"
    executable.parent.mkdir(parents=True)
    executable.touch(mode=0o755)
    (tmp_path / "opt" / "tritonserver" / "backends" / "python").mkdir(parents=True)
    monkeypatch.setenv("PATH", str(executable.parent))
    root = tmp_path / "opt" / "tritonserver"
    found = find_installation()
    assert found == Installation(executable, root / "backends", root / "caches")
    assert link_backends(found, tmp_path / "links") == root / "backends"


def test_package_is_found_and_linked_with_the_stub_of_this_python(package: Path, tmp_path: Path) -> None:
    found = find_installation()
    assert found.executable == package / "bin" / "tritonserver"
    assert found.libraries == (tmp_path / "nvidia_pytriton.libs", Path(sysconfig.get_config_var("LIBDIR")))
    backends = link_backends(found, tmp_path / "links")
    links = {file.name: file.resolve() for file in (backends / "python").iterdir()}
    assert links == {
        "libtriton_python.so": package / "backends" / "python" / "libtriton_python.so",
        "triton_python_backend_utils.py": package / "backends" / "python" / "triton_python_backend_utils.py",
        "triton_python_backend_stub": package / "python_backend_stubs" / PYTHON / "triton_python_backend_stub",
    }


def test_missing_server_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(server_install.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(TritonserverNotFoundError, match=r"pip install 'ssp-sam\[tritonserver\]'.*container"):
        find_installation()


def test_missing_stub_is_named(package: Path) -> None:
    stub = package / "python_backend_stubs" / PYTHON / "triton_python_backend_stub"
    stub.unlink()
    with pytest.raises(TritonserverNotFoundError, match=f"{stub} is missing"):
        find_installation()


def test_repository_without_models(tmp_path: Path) -> None:
    with pytest.raises(ModelRepositoryError, match="is not a folder"):
        check_repository(tmp_path / "none")
    (tmp_path / "notes").mkdir()
    with pytest.raises(ModelRepositoryError, match=r"holds no model: no \*/config.pbtxt"):
        check_repository(tmp_path)
    (tmp_path / "notes" / "config.pbtxt").touch()
    check_repository(tmp_path)


def test_taken_port_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortInUseError, match=f"http_port {port} on 127.0.0.1 is taken"):
            choose_ports(ServerSettings(Path("repo"), grpc_port=0, http_port=port, metrics_port=0))


@pytest.mark.parametrize("host", ["no.such.host.invalid", "::1", "192.0.2.1"])
def test_wrong_host_is_named(host: str) -> None:
    with pytest.raises(SettingsError, match=host):
        choose_ports(ServerSettings(Path("repo"), host=host, grpc_port=0, http_port=0, metrics_port=0))


def test_urls_reach_a_server_that_listens_everywhere() -> None:
    server = TritonServer(ServerSettings(Path("repo"), host="0.0.0.0"))
    assert server.grpc_url == "127.0.0.1:8001"
    assert server.http_url == "http://127.0.0.1:8000"
    assert server.metrics_url == "http://127.0.0.1:8002/metrics"


def test_server_that_does_not_run_cannot_be_watched() -> None:
    server = TritonServer(ServerSettings(Path("repo")))
    with pytest.raises(ServerError, match="not running"):
        server.wait()
    server.stop()


def test_death_of_a_zombie_is_told() -> None:
    for argument, cause in (
        ("import os; os.kill(os.getpid(), 9)", "killed by signal 9 (Killed"),
        ("raise SystemExit(3)", "with code 3"),
    ):
        with subprocess.Popen([sys.executable, "-S", "-c", argument]) as child:
            process = psutil.Process(child.pid)
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            assert cause in str(server_process.cause_of_death(process))
        assert server_process.cause_of_death(process) == "ended"


def test_process_keeps_the_errors_of_its_log_and_is_reaped(tmp_path: Path) -> None:
    script = "print('2026 E 1 boom'); [print('line', i) for i in range(50)]; print('| table |'); raise SystemExit(4)"
    with (tmp_path / "log").open("w+") as log:
        process = server_process.ServerProcess([sys.executable, "-c", script], dict(os.environ), log)
        server_process._wait_until(lambda: process.exit_cause() is not None, 10)
        assert process.exit_cause() == "exited with code 4"
        lines = process.log_tail().splitlines()
        process.end(1.0)
        log.seek(0)
        assert log.read().splitlines()[-1] == "| table |"
    assert lines == ["2026 E 1 boom", *(f"line {i}" for i in range(35, 50))]
    assert process.exit_cause() == "exited with code 4"
    assert not psutil.pid_exists(process.pid)


def test_closed_log_does_not_block_the_process(tmp_path: Path) -> None:
    log = (tmp_path / "log").open("w")
    log.close()
    script = "import sys; [print('x' * 1000) for _ in range(1000)]"
    process = server_process.ServerProcess([sys.executable, "-c", script], dict(os.environ), log)
    server_process._wait_until(lambda: process.exit_cause() is not None, 10)
    assert process.exit_cause() == "exited with code 0"
    process.end(1.0)


def test_process_of_a_model_that_died_while_others_were_loading_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    server = TritonServer(ServerSettings(Path("repo")))
    dead = {"dead_child_cause": lambda: "killed by signal 9", "python_processes": list, "log_tail": lambda: "its log"}
    monkeypatch.setattr(server, "_process", SimpleNamespace(exit_cause=lambda: None, **dead))
    monkeypatch.setattr(server, "_ready", lambda: True)
    with pytest.raises(ServerStartError, match="killed by signal 9 while loading\nits log"):
        server._await_ready()


def test_another_server_on_the_port_is_not_taken_for_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    server = TritonServer(ServerSettings(Path("repo")))
    answers: dict[str, Any] = {"/v2/health/ready": "", "/v2/repository/index": [{"name": "a", "state": "READY"}]}
    monkeypatch.setattr(server, "_http", lambda _, path: (200, json.dumps(answers[path]).encode()))
    answers["/v2"] = {"name": "triton"}
    assert not server._ready()
    answers["/v2"] = {"name": server._id}
    assert server._ready()
    answers["/v2/repository/index"] = [{"name": "a", "state": "LOADING"}]
    assert not server._ready()


def test_log_of_a_full_disk_does_not_spoil_the_stop() -> None:
    log = io.TextIOWrapper(io.BufferedWriter(io.FileIO("/dev/full", "w")))
    log.write("a line")
    _close(log)
    assert log.closed


def test_process_that_ignores_sigterm_is_killed_with_its_children(tmp_path: Path) -> None:
    script = (
        "import signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "child = subprocess.Popen(['sleep', '60']); print(child.pid, flush=True); child.wait()"
    )
    with (tmp_path / "log").open("w") as log:
        process = server_process.ServerProcess([sys.executable, "-c", script], dict(os.environ), log)
        server_process._wait_until(lambda: bool(process.log_tail()), 10)
        child = int(process.log_tail())
        process.end(0.2)
    assert process.exit_cause() == server_process.describe_exit(-signal.SIGKILL)
    server_process._wait_until(lambda: not psutil.pid_exists(child), 5)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_process_is_given_time_to_end(tmp_path: Path) -> None:
    script = (
        "import signal, sys, time\n"
        "def stop(*_): time.sleep(0.3); print('finished', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop); print('up', flush=True); time.sleep(60)"
    )
    with (tmp_path / "log").open("w+") as log:
        process = server_process.ServerProcess([sys.executable, "-c", script], dict(os.environ), log)
        server_process._wait_until(lambda: bool(process.log_tail()), 10)
        process.end(10)
        assert process.exit_cause() == "exited with code 0"
        log.seek(0)
        assert log.read().split() == ["up", "finished"]
