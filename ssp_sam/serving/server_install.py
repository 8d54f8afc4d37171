"""The tritonserver of this machine, and the command line and environment to run it with."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ssp_sam.runtime import cpu_threads
from ssp_sam.serving.server_settings import ServerSettings, TritonserverNotFoundError

_MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Installation:
    """A tritonserver on this machine.

    backends, caches: its folders of shared libraries.
    python_stub: the program that runs Python models, if it does not lie in `backends` already.
    libraries: folders of shared libraries that the server and its Python processes need on their search path.
    """

    executable: Path
    backends: Path
    caches: Path
    python_stub: Path | None = None
    libraries: tuple[Path, ...] = ()


def find_installation() -> Installation:
    """Return the tritonserver on PATH (as in NVIDIA's container), else the one in the package nvidia-pytriton.

    Raises `TritonserverNotFoundError`, which says what to install.
    """
    on_path = shutil.which("tritonserver")
    if on_path is not None:
        executable = Path(on_path).resolve()
        root = executable.parent.parent
        found = Installation(executable, root / "backends", root / "caches")
    else:
        spec = importlib.util.find_spec("pytriton")
        if spec is None or not spec.submodule_search_locations:
            raise TritonserverNotFoundError(
                "no tritonserver on PATH, and the package nvidia-pytriton, which carries one, is not installed: run "
                "`pip install 'ssp-sam[tritonserver]'`, or work in NVIDIA's container nvcr.io/nvidia/tritonserver"
            )
        package = Path(spec.submodule_search_locations[0])
        root = package / "tritonserver"
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        found = Installation(
            executable=root / "bin" / "tritonserver",
            backends=root / "backends",
            caches=root / "caches",
            python_stub=root / "python_backend_stubs" / python / "triton_python_backend_stub",
            # The stub embeds Python: it must be this very one, or its extension modules may not load.
            libraries=(package.parent / "nvidia_pytriton.libs", Path(sysconfig.get_config_var("LIBDIR"))),
        )
    for part in (found.executable, found.backends / "python", found.python_stub):
        if part is not None and not part.exists():
            raise TritonserverNotFoundError(f"{part} is missing: this tritonserver cannot run the Python models")
    return found


def link_backends(installation: Installation, folder: Path) -> Path:
    """Return the backend directory for the running Python.

    Where the stub lies apart from the backends, as one of several, this makes a directory of links in `folder`.
    """
    if installation.python_stub is None:
        return installation.backends
    (folder / "python").mkdir(parents=True)
    for source in (installation.backends / "python").iterdir():
        if source.is_file():
            (folder / "python" / source.name).symlink_to(source)
    (folder / "python" / installation.python_stub.name).symlink_to(installation.python_stub)
    return folder


def server_command(
    settings: ServerSettings, installation: Installation, backends: Path, *, server_id: str
) -> list[str]:
    """Return the command line; all ports of `settings` must be chosen.

    server_id: by which the server, and what it leaves in shared memory, are known again.
    """
    # Nobody needs these over the network: they let callers map shared memory, write logs and turn on traces. The key
    # is random and not kept, so they are closed.
    closed = f"shared-memory,logging,trace:closed={secrets.token_hex(16)}"
    python_backend = {
        "shm-region-prefix-name": f"{server_id}_",
        "stub-timeout-seconds": max(30, int(settings.ready_timeout_s)),
        "shm-default-byte-size": settings.shm_default_bytes,
        "shm-growth-byte-size": settings.shm_growth_bytes,
    }
    return [
        str(installation.executable),
        f"--id={server_id}",
        f"--model-repository={settings.model_repository}",
        "--model-control-mode=none",
        "--disable-auto-complete-config",
        "--exit-on-error=true",
        "--strict-readiness=true",
        f"--exit-timeout-secs={max(1, int(settings.stop_grace_s))}",
        f"--backend-directory={backends}",
        f"--cache-directory={installation.caches}",
        f"--http-address={settings.host}",
        f"--http-port={settings.http_port}",
        f"--http-restricted-api={closed}",
        f"--grpc-address={settings.host}",
        f"--grpc-port={settings.grpc_port}",
        f"--grpc-restricted-protocol={closed}",
        f"--metrics-address={settings.host}",
        f"--metrics-port={settings.metrics_port}",
        "--log-format=ISO8601",
        f"--log-verbose={settings.log_verbose}",
        *(f"--backend-config=python,{key}={value}" for key, value in python_backend.items() if value is not None),
        *settings.extra_args,
    ]


def server_environment(
    settings: ServerSettings, installation: Installation, environment: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables of the server and its Python processes.

    What the user has set in `environment` stays, but for threads that the settings name.
    """
    threads = settings.threads_per_model_process
    defaults = {
        "OPENBLAS_NUM_THREADS": str(threads or cpu_threads("auto")),
        "TOKENIZERS_PARALLELISM": "false",
        # tritonserver gives large tensors back to the system when they are freed: by default it grows by half a
        # gigabyte under load. Smaller ones it keeps, since the kernel clears every page that it hands out. Its Python
        # processes decide for themselves (`keep_freed_memory`).
        "MALLOC_MMAP_THRESHOLD_": str(4 * _MEBIBYTE),
        "MALLOC_TRIM_THRESHOLD_": str(16 * _MEBIBYTE),
    }
    own = defaults | dict(environment)
    if threads is not None:
        own["OMP_NUM_THREADS"] = str(threads)  # else each stage decides
    # The stub takes its packages from the environment of the first python3 on PATH.
    own["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), environment.get("PATH", os.defpath)))
    if installation.libraries:
        folders = (*map(str, installation.libraries), environment.get("LD_LIBRARY_PATH"))
        own["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, folders))
    return own
