"""One running tritonserver: its log, the Python processes of its models, and their end.

A private detail of `ssp_sam.serving.server`. Linux only, as tritonserver is.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import psutil

_POLL_S = 0.05
_KILLED_WAIT_S = 5.0
_TAIL_LINES = 400
_STUB_NAME = "triton_python_backend_stub"

# Runs in the new process and then becomes tritonserver: asks the kernel for SIGTERM when our process ends in whatever
# way, `kill -9` included. Done here and not in a `preexec_fn`, which may deadlock in a program with threads.
# Python ignores SIGPIPE and exec keeps that, so the server outlives the reader of its log long enough to end in order.
_LAUNCHER = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
    sys.exit("prctl(PR_SET_PDEATHSIG): " + os.strerror(ctypes.get_errno()))
if os.getppid() != int(sys.argv[1]):
    sys.exit("the process that starts tritonserver ended before it was started")
os.execv(sys.argv[2], sys.argv[2:])
"""


def describe_exit(code: int) -> str:
    """Say how a process ended; a negative `code` is the number of the signal that killed it, as in `subprocess`."""
    if code >= 0:
        return f"exited with code {code}"
    hint = ", by hand or by the kernel for want of memory" if code == -signal.SIGKILL else ""
    return f"killed by signal {-code} ({signal.strsignal(-code)}{hint})"


def cause_of_death(process: psutil.Process) -> str | None:
    """Say how a Python process of tritonserver ended, or return None while it lives.

    tritonserver does not reap them: a dead one stays as a zombie that still knows its exit status.
    """
    try:
        if not process.is_running():
            return "ended"
        if process.status() != psutil.STATUS_ZOMBIE:
            return None
        # The name in field 2 may hold blanks; field 52, the last, is the status as wait() gives it.
        status = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[-1])
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return "ended"
    return describe_exit(os.waitstatus_to_exitcode(status))


@dataclass(frozen=True)
class PythonProcess:
    """The process of one instance of a Python model."""

    model: str
    process: psutil.Process


class ServerProcess:
    """A tritonserver in a process group of its own, with a thread that copies its log to `log`.

    Raises `OSError` if the process cannot be made.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: TextIO) -> None:
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        launch = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
        started: Future[subprocess.Popen[str]] = Future()
        # The kernel ties the death signal to the thread that forks. So the thread that copies the log forks: it lives
        # as long as the server, which the caller's thread may not.
        self._reader = threading.Thread(
            target=self._run, args=(launch, dict(env), log, started), name="tritonserver-log", daemon=True
        )
        self._reader.start()
        self._popen = started.result()
        self.pid = self._popen.pid

    def _run(self, launch: list[str], env: dict[str, str], log: TextIO, started: Future[subprocess.Popen[str]]) -> None:
        try:
            popen = subprocess.Popen(
                launch,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            started.set_exception(error)
            return
        started.set_result(popen)
        assert popen.stdout is not None
        sink: TextIO | None = log
        with popen.stdout:
            for line in popen.stdout:
                if not line.startswith(("+-", "|")):  # the tables of models and options are of no use in an error
                    self._tail.append(line)
                if sink is not None:
                    try:
                        sink.write(line)
                        sink.flush()
                    except (OSError, ValueError):
                        sink = None  # full disk, closed stream: go on reading, or the server blocks on a full pipe

    def log_tail(self, lines: int = 15) -> str:
        """Return the last `lines` of the log, with the earlier lines that report errors, without tables."""
        # When a process is found dead its last lines may still be in the pipe.
        if self.exit_cause() is not None:
            self._reader.join(timeout=1.0)
        tail = list(self._tail)
        first = len(tail) - lines
        return "".join(
            line for i, line in enumerate(tail) if line.strip() and (i >= first or re.match(r"\S+ E |error:", line))
        ).rstrip()

    def exit_cause(self) -> str | None:
        """Say how the server ended, or return None while it lives."""
        if self._popen.returncode is not None:
            return describe_exit(self._popen.returncode)
        # Looks without reaping: as long as the server is a zombie, nobody else can get the number of its group.
        info = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if info is None:
            return None
        return describe_exit(info.si_status if info.si_code == os.CLD_EXITED else -info.si_status)

    def python_processes(self) -> list[PythonProcess]:
        """Return the living processes of the Python models, one for each instance."""
        found = []
        for child in self._children():
            with suppress(psutil.NoSuchProcess):
                command = child.cmdline()
                if command and Path(command[0]).name == _STUB_NAME:
                    # argv[1] is <repository>/<model>/<version>/model.py
                    found.append(PythonProcess(Path(command[1]).parts[-3], child))
        return found

    def dead_child_cause(self) -> str | None:
        """Say how a child of the server ended that is dead but not reaped; None if there is none."""
        return next(filter(None, map(cause_of_death, self._children())), None)

    def _children(self) -> list[psutil.Process]:
        try:
            return list(psutil.Process(self.pid).children())
        except psutil.NoSuchProcess:
            return []

    def end(self, grace_s: float) -> None:
        """Ask the server to end, kill what is left of its process group after `grace_s`, and reap it.

        Returns when no process of the group is left, at most a few seconds after `grace_s`.
        Does nothing the second time.
        """
        if self._popen.returncode is not None:
            return
        try:
            if self.exit_cause() is None:
                self._popen.terminate()
            _wait_until(lambda: self.exit_cause() is not None, grace_s)
        finally:  # also when a second Ctrl-C interrupts the wait
            members = self._group()
            os.killpg(self.pid, signal.SIGKILL)
            self._popen.wait()
        _wait_until(lambda: not any(map(_lives, members)), _KILLED_WAIT_S)
        self._reader.join(timeout=_KILLED_WAIT_S)

    def _group(self) -> list[psutil.Process]:
        members = []
        for process in psutil.process_iter():
            try:
                if process.pid != self.pid and os.getpgid(process.pid) == self.pid:
                    members.append(process)
            except ProcessLookupError:
                continue
        return members


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _wait_until(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(_POLL_S)
