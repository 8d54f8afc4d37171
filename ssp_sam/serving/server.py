"""Start, watch and stop a real Triton Inference Server.

::

    with TritonServer(ServerSettings(Path("model_repository"))) as server:
        print(server.grpc_url)
        server.wait()
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import secrets
import socket
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TextIO

from ssp_sam.errors import InvalidArgumentError, SegmentationError
from ssp_sam.serving.contract import PYTHON
from ssp_sam.serving.repository import MANIFEST, Manifest, prepare_repository
from ssp_sam.serving.server_install import (
    Installation,
    find_installation,
    link_backends,
    server_command,
    server_environment,
)
from ssp_sam.serving.server_process import PythonProcess, ServerProcess, cause_of_death
from ssp_sam.serving.server_settings import (
    ModelRepositoryError,
    PortInUseError,
    ServerDiedError,
    ServerError,
    ServerSettings,
    ServerStartError,
    SettingsError,
    TritonserverNotFoundError,
)

__all__ = [
    "ModelRepositoryError",
    "PortInUseError",
    "ServerDiedError",
    "ServerError",
    "ServerSettings",
    "ServerStartError",
    "SettingsError",
    "TritonServer",
    "TritonserverNotFoundError",
]

_NVIDIA_DRIVER = Path("/dev/nvidiactl")
_READY_POLL_S = 0.1
_WATCH_POLL_S = 0.5
_DEATH_GRACE_S = 5.0
_HTTP_TIMEOUT_S = 5.0


def check_repository(folder: Path) -> None:
    """Raise `ModelRepositoryError` unless `folder` holds at least one model."""
    if not folder.is_dir():
        raise ModelRepositoryError(f"the model repository {folder} is not a folder")
    if not any(folder.glob("*/config.pbtxt")):
        raise ModelRepositoryError(f"the model repository {folder} holds no model: no */config.pbtxt in it")


def prepare_networks_for_cpu(folder: Path) -> None:
    """Convert at once what the stages would convert one by one, where they will compute on the CPU.

    Each of them still can, which matters to those who start tritonserver themselves. Raises `ModelRepositoryError`.
    """
    if not (folder / MANIFEST).exists() or _NVIDIA_DRIVER.exists():
        return
    try:
        manifest = Manifest.read(folder)
        if manifest.backend == PYTHON:
            prepare_repository(folder, manifest, "cpu")
    except (SegmentationError, OSError) as error:
        raise ModelRepositoryError(f"the model repository {folder} cannot be served: {error}") from error


def choose_ports(settings: ServerSettings) -> ServerSettings:
    """Return the settings with a free port for each 0.

    Raises `PortInUseError` if a wanted port is taken, `SettingsError` if `host` is no address of this machine.
    """
    chosen: dict[str, int] = {}
    with ExitStack() as stack:  # all stay bound until all are chosen, so that no two are the same
        for name in ("grpc_port", "http_port", "metrics_port"):
            wanted = getattr(settings, name)
            probe = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections do not take a port
            try:
                probe.bind((settings.host, wanted))
            except socket.gaierror as error:
                raise SettingsError(f"host {settings.host!r} is not an IPv4 address or a known name: {error}") from None
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise PortInUseError(
                        f"{name} {wanted} on {settings.host} is taken by another program; choose another one, or 0 for "
                        "a free one"
                    ) from None
                raise SettingsError(f"cannot listen on {settings.host}:{wanted} ({name}): {error}") from None
            chosen[name] = probe.getsockname()[1]
    return replace(
        settings,
        grpc_port=chosen["grpc_port"],
        http_port=chosen["http_port"],
        metrics_port=chosen["metrics_port"],
    )


class TritonServer:
    """One tritonserver and its Python processes; a context manager that starts and stops it.

    When this process ends without `stop()`, even by ``kill -9``, the kernel sends the server SIGTERM.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self._process: ServerProcess | None = None
        self._python_processes: list[PythonProcess] = []
        self._resources = ExitStack()
        self._id = f"ssp_sam_{secrets.token_hex(8)}"

    def __enter__(self) -> TritonServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def grpc_url(self) -> str:
        """``host:port``, as gRPC clients take it."""
        return f"{self._client_host}:{self.settings.grpc_port}"

    @property
    def http_url(self) -> str:
        """Root of the HTTP API."""
        return f"http://{self._client_host}:{self.settings.http_port}"

    @property
    def metrics_url(self) -> str:
        """Where Prometheus finds the metrics."""
        return f"http://{self._client_host}:{self.settings.metrics_port}/metrics"

    @property
    def _client_host(self) -> str:
        return "127.0.0.1" if self.settings.host == "0.0.0.0" else self.settings.host

    def start(self) -> None:
        """Start the server and return when it and every model of it are ready.

        `settings` then holds the ports that were chosen for 0. Raises a `ServerError`; nothing is left running then.
        """
        if self._process is not None:
            raise ServerError(f"the server is already running at {self.grpc_url}")
        installation = find_installation()
        check_repository(self.settings.model_repository)
        self.settings = choose_ports(self.settings)
        prepare_networks_for_cpu(self.settings.model_repository)
        try:
            try:
                self._launch(installation)
            except (InvalidArgumentError, OSError) as error:
                raise ServerStartError(f"cannot start tritonserver: {error}") from error
            self._await_ready()
        except BaseException:
            self.stop()
            raise

    def _launch(self, installation: Installation) -> None:
        scratch = Path(self._resources.enter_context(tempfile.TemporaryDirectory(prefix="ssp-sam-triton-")))
        self._resources.callback(_remove_shared_memory, f"{self._id}_")
        log: TextIO = sys.stderr
        if self.settings.log_file is not None:
            log = self.settings.log_file.open("a", encoding="utf-8")
            self._resources.callback(_close, log)
        backends = link_backends(installation, scratch / "backends")
        self._process = ServerProcess(
            server_command(self.settings, installation, backends, server_id=self._id),
            server_environment(self.settings, installation, os.environ),
            log,
        )

    def _await_ready(self) -> None:
        process = self._running()
        begin = time.monotonic()
        first_death: float | None = None
        while not self._ready():
            now = time.monotonic()
            cause = process.exit_cause()
            if cause is not None:
                raise ServerStartError(f"tritonserver {cause} before it was ready\n{process.log_tail()}")
            # When a model raises, Triton tells why and ends. When its process just dies, Triton waits for it.
            cause = process.dead_child_cause()
            if cause is not None:
                first_death = first_death or now
                if now - first_death > _DEATH_GRACE_S:
                    raise ServerStartError(f"the Python process of a model {cause} while loading\n{process.log_tail()}")
            if now - begin > self.settings.ready_timeout_s:
                raise ServerStartError(
                    f"tritonserver was not ready after {self.settings.ready_timeout_s:g} s\n{process.log_tail()}"
                )
            time.sleep(_READY_POLL_S)
        self._python_processes = process.python_processes()
        # One that died while others were loading is not among them, and Triton says "ready" all the same.
        if cause := process.dead_child_cause():
            raise ServerStartError(f"the Python process of a model {cause} while loading\n{process.log_tail()}")

    def _ready(self) -> bool:
        """Whether the server says that it is ready, and lists every model as ready, and is the one started here.

        Of two that start on the same port at the same time one will end, and the other would answer for both.
        """
        status, _ = self._http("GET", "/v2/health/ready")
        if status != http.HTTPStatus.OK:
            return False
        status, body = self._http("POST", "/v2/repository/index")
        if status != http.HTTPStatus.OK or any(model.get("state") != "READY" for model in json.loads(body)):
            return False
        status, body = self._http("GET", "/v2")
        return status == http.HTTPStatus.OK and json.loads(body).get("name") == self._id

    def _http(self, method: str, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self._client_host, self.settings.http_port, timeout=_HTTP_TIMEOUT_S)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):  # it does not listen yet
            return 0, b""
        finally:
            connection.close()

    def _running(self) -> ServerProcess:
        if self._process is None:
            raise ServerError("the server is not running: call start() first")
        return self._process

    def check(self) -> None:
        """Raise `ServerDiedError` if the server or one of its Python processes has died.

        Triton itself goes on answering "ready" when the process of a model is dead (release 24.10).
        """
        process = self._running()
        cause = process.exit_cause()
        if cause is not None:
            raise ServerDiedError(f"tritonserver {cause}\n{process.log_tail()}")
        deaths = [(python.model, cause_of_death(python.process)) for python in self._python_processes]
        dead = "; ".join(f"the Python process of model {model!r} {cause}" for model, cause in deaths if cause)
        if dead:
            raise ServerDiedError(f"{dead}\n{process.log_tail()}")

    def wait(self, timeout_s: float | None = None) -> None:
        """Watch the server; return after `timeout_s`, or when another thread has called `stop()`.

        Raises `ServerDiedError` as soon as the server or one of its Python processes has died (see `check`).
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        watched = self._running()
        while self._process is watched and (deadline is None or time.monotonic() < deadline):
            try:
                self.check()
            except ServerError:
                if self._process is watched:  # else it was stopped meanwhile
                    raise
            time.sleep(_WATCH_POLL_S)

    def stop(self) -> None:
        """Stop the server: SIGTERM, then SIGKILL for its process group after the grace period. No process is left."""
        process, self._process, self._python_processes = self._process, None, []
        try:
            if process is not None:
                process.end(self.settings.stop_grace_s)
        finally:
            self._resources.close()


def _close(log: TextIO) -> None:
    with contextlib.suppress(OSError):  # a full disk: what it has no room for is lost already
        log.close()


def _remove_shared_memory(prefix: str) -> None:
    """Remove what killed Python processes leave behind."""
    for region in Path("/dev/shm").glob(f"{prefix}*"):
        region.unlink(missing_ok=True)
