"""How to run a server, and what can go wrong with it.

The errors::

    ServerError                     base; a RuntimeError
    +-- SettingsError               a value in ServerSettings is not allowed
    +-- TritonserverNotFoundError   no tritonserver on this machine
    +-- ModelRepositoryError        no folder, or no model in it
    +-- PortInUseError              another program listens on the port
    +-- ServerStartError            the server ended, or was not ready in time
    +-- ServerDiedError             the server, or the process of a Python model, died while serving
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ssp_sam.limits import MAX_TIMEOUT_S

# Given twice, the server would not be where it is looked for, or not be known again.
_OWN_OPTIONS = (
    "--id",
    "--model-repository",
    "--model-store",
    "--backend-directory",
    "--http-address",
    "--http-port",
    "--grpc-address",
    "--grpc-port",
    "--metrics-address",
    "--metrics-port",
    "--log-file",
)


class ServerError(RuntimeError):
    """Base of what can go wrong with the server as a process."""


class SettingsError(ServerError, ValueError):
    """A value in `ServerSettings` is not allowed."""


class TritonserverNotFoundError(ServerError):
    """There is no tritonserver on this machine, or a part of it is missing."""


class ModelRepositoryError(ServerError):
    """The model repository is not there, or holds no model."""


class PortInUseError(ServerError):
    """Another program listens on the port."""


class ServerStartError(ServerError):
    """The server ended before it was ready, or was not ready in time; the message ends with its log."""


class ServerDiedError(ServerError):
    """The server, or the process of one of its Python models, died while serving."""


@dataclass(frozen=True)
class ServerSettings:
    """How to run the server.

    model_repository: the folder that holds a folder for each model.
    host: IPv4 address or name to listen on, for all three ports.
    grpc_port, http_port, metrics_port: 0 chooses a free one.
    ready_timeout_s: how long loading the models may take.
    stop_grace_s: how long requests in flight may take when the server stops; then it is killed.
    log_verbose: Triton's level of verbose logging; 0 is none.
    log_file: the server's log is appended to it; None is our own stderr.
    threads_per_model_process: CPU threads of each network. None is what each stage's configuration says: half of the
        cores, since stages compute side by side, but all for SAM's image encoder at full size.
    shm_default_bytes, shm_growth_bytes: shared memory of each Python process, at first and for each time that it grows.
        None is Triton's default (1 MiB each).
    extra_args: further options of tritonserver, e.g. ``("--rate-limit=off",)``.
    """

    model_repository: Path
    host: str = "127.0.0.1"
    grpc_port: int = 8001
    http_port: int = 8000
    metrics_port: int = 8002
    ready_timeout_s: float = 300.0
    stop_grace_s: float = 15.0
    log_verbose: int = 0
    log_file: Path | None = None
    threads_per_model_process: int | None = None
    shm_default_bytes: int | None = None
    shm_growth_bytes: int | None = None
    extra_args: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ports = (self.grpc_port, self.http_port, self.metrics_port)
        for name, port in zip(("grpc_port", "http_port", "metrics_port"), ports, strict=True):
            if not 0 <= port <= 65535:
                raise SettingsError(f"{name} is {port}; allowed are 1 to 65535, or 0 for a free one")
        chosen = [port for port in ports if port]
        if len(set(chosen)) < len(chosen):
            raise SettingsError(f"gRPC, HTTP and metrics need three different ports; got {', '.join(map(str, ports))}")
        for name in ("ready_timeout_s", "stop_grace_s"):
            value = getattr(self, name)
            if not 0 < value <= MAX_TIMEOUT_S:  # nor is NaN
                raise SettingsError(f"{name} is {value}; allowed is more than 0, up to {MAX_TIMEOUT_S:.0f}")
        if self.threads_per_model_process is not None and self.threads_per_model_process <= 0:
            raise SettingsError(f"threads_per_model_process is {self.threads_per_model_process}; it must be above 0")
        for name in ("shm_default_bytes", "shm_growth_bytes"):
            value = getattr(self, name)
            if value is not None and value < 2**20:
                raise SettingsError(f"{name} is {value}; a Python process needs 1048576 or more")
        if self.log_verbose < 0:
            raise SettingsError(f"log_verbose is {self.log_verbose}; it must be 0 or more")
        for argument in self.extra_args:
            if argument.split("=")[0] in _OWN_OPTIONS:
                raise SettingsError(f"{argument} may not be among the extra arguments: the launcher sets it itself")
