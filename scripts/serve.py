"""Serve a model repository with Triton Inference Server until SIGINT or SIGTERM.

Exit status: 0 after a signal, 1 if the server could not start, failed or died, 2 for a wrong command line.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from ssp_sam.serving.server import ServerError, ServerSettings, SettingsError, TritonServer

REPOSITORY = Path(__file__).resolve().parent.parent / "model_repository"


def parse_args(argv: Sequence[str]) -> ServerSettings:
    """Return the settings that the command line asks for; leave with status 2 if it is wrong."""
    own, extra = list(argv), []
    if "--" in own:
        split = own.index("--")
        own, extra = own[:split], own[split + 1 :]
    defaults = ServerSettings(REPOSITORY)
    parser = argparse.ArgumentParser(
        description="Serve a model repository with Triton Inference Server until SIGINT or SIGTERM.",
        epilog="Options after -- go to tritonserver as they are, e.g. serve.py -- --metrics-interval-ms=500",
    )
    parser.add_argument(
        "--model-repository",
        type=Path,
        default=defaults.model_repository,
        help="folder of the models (default: %(default)s)",
    )
    parser.add_argument(
        "--host",
        default=defaults.host,
        help="address to listen on; 0.0.0.0 is all of this machine (default: %(default)s)",
    )
    parser.add_argument(
        "--grpc-port", type=int, default=defaults.grpc_port, help="port of gRPC; 0 = a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--http-port", type=int, default=defaults.http_port, help="port of HTTP; 0 = a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--metrics-port",
        type=int,
        default=defaults.metrics_port,
        help="port of metrics; 0 = a free one (default: %(default)s)",
    )
    parser.add_argument(
        "--ready-timeout-s",
        type=float,
        default=defaults.ready_timeout_s,
        help="seconds that loading may take (default: %(default)s)",
    )
    parser.add_argument(
        "--stop-grace-s",
        type=float,
        default=defaults.stop_grace_s,
        help="seconds until a stopping server is killed (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        help="CPU threads of each network whose config.pbtxt has no number (default: what OMP_NUM_THREADS says, or "
        "half of the cores; all for a SAM image encoder of full size)",
    )
    parser.add_argument("--shm-default-bytes", type=int, help="shared memory of each model process at first, in bytes")
    parser.add_argument("--shm-growth-bytes", type=int, help="shared memory that a model process adds, in bytes")
    parser.add_argument("--log-file", type=Path, help="append the server's log to this file (default: stderr)")
    parser.add_argument("--verbose", action="store_true", help="let the server log every request")
    args = parser.parse_args(own)
    try:
        return ServerSettings(
            model_repository=args.model_repository,
            host=args.host,
            grpc_port=args.grpc_port,
            http_port=args.http_port,
            metrics_port=args.metrics_port,
            ready_timeout_s=args.ready_timeout_s,
            stop_grace_s=args.stop_grace_s,
            log_verbose=int(args.verbose),
            log_file=args.log_file,
            threads_per_model_process=args.threads,
            shm_default_bytes=args.shm_default_bytes,
            shm_growth_bytes=args.shm_growth_bytes,
            extra_args=tuple(extra),
        )
    except SettingsError as error:
        parser.error(str(error))


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit status."""
    settings = parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # Both signals end the wait below the same way; SIGINT by name since shells start background jobs with it ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with TritonServer(settings) as server:
            print(
                f"Serving {settings.model_repository}\n"
                f"  gRPC     {server.grpc_url}\n"
                f"  HTTP     {server.http_url}\n"
                f"  metrics  {server.metrics_url}\n"
                "Stop with Ctrl-C.",
                flush=True,
            )
            server.wait()
    except KeyboardInterrupt:
        return 0
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
