"""Run workers under a time and a memory limit, and say how each ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil
from pydantic import ValidationError

from aotpack.builder.jobs.forkserver import Ended, ForkServer, python_path
from aotpack.builder.jobs.worker import AnyRequest, Result
from aotpack.builder.spec import Limits
from aotpack.errors import BuildStopped

__all__ = ["Outcome", "Workers", "run_worker"]

#: Seconds between two looks at a worker's memory: a compiler allocates some hundred MB in one.
_INTERVAL = 0.05

#: Kept of what a worker printed, in bytes, from its end: verbose logs of large models reach hundreds of MB.
_KEPT_OF_LOG = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a worker ended."""

    #: None if it died or was ended.
    result: Result | None
    #: One sentence; None if it succeeded.
    failure: str | None
    #: Of the whole process.
    seconds: float
    #: Highest resident memory of the process and its children, in bytes.
    peak_memory: int
    #: What it printed; the end of it, if it was much.
    log: str


class _Starter(Protocol):
    """Starts one worker at a time."""

    def start(
        self, request: Path, result: Path, log: Path, *, folder: Path, environment: Mapping[str, str]
    ) -> int: ...

    def wait(self, seconds: float) -> Ended | None: ...

    def kill(self) -> Ended: ...

    def close(self) -> None: ...


class Workers:
    """Starts workers for any number of threads, and keeps what starts them until it is closed."""

    def __init__(self) -> None:
        self._idle: list[_Starter] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def stop(self) -> None:
        """Have running workers ended at once, by the threads that wait for them, and start no others."""
        self._stopped.set()

    def close(self) -> None:
        """End the processes that are kept for the next worker."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    def run(
        self,
        request: AnyRequest,
        folder: Path,
        *,
        environment: Mapping[str, str],
        limits: Limits,
    ) -> Outcome:
        """Start a worker, wait for it, end it at its limits, and read its result.

        Args:
            request: what it shall do.
            folder: an empty one for the request, the result and the log.
            environment: added to this process's.
            limits: after which it is killed, with its children.

        Raises:
            BuildStopped: `stop` was called before the worker had ended.
        """
        if self._stopped.is_set():
            raise BuildStopped
        asked, answered, log = folder / "request.json", folder / "result.json", folder / "log.txt"
        asked.write_text(request.model_dump_json(), encoding="utf-8")
        log.touch()
        started = time.monotonic()
        try:
            with self._starter() as starter:
                pid = starter.start(asked, answered, log, folder=folder, environment=environment)
                ended_by, ended = _watch(starter, pid, limits, started, self._stopped)
        except OSError as error:
            ended_by, ended = f"no worker could be started: {error}", Ended(1)
        seconds = time.monotonic() - started
        result: Result | None = None
        if ended_by is None:
            with contextlib.suppress(OSError, ValidationError):
                result = Result.model_validate_json(answered.read_bytes())
            if result is None:
                ended_by = _how_it_died(ended.status)
        failure = ended_by or (result.error if result else None)
        return Outcome(
            result=result, failure=failure, seconds=seconds, peak_memory=ended.peak_memory, log=_tail(log)
        )

    @contextlib.contextmanager
    def _starter(self) -> Iterator[_Starter]:
        with self._lock:
            starter = self._idle.pop() if self._idle else None
        if starter is None:
            starter = ForkServer() if ForkServer.available else _Fresh()
        try:
            yield starter
        except BaseException:
            starter.close()
            raise
        with self._lock:
            self._idle.append(starter)


def run_worker(
    request: AnyRequest, folder: Path, *, environment: Mapping[str, str], limits: Limits
) -> Outcome:
    """Run a single worker. As `Workers.run`, for those who start no other one soon."""
    with Workers() as workers:
        return workers.run(request, folder, environment=environment, limits=limits)


class _Fresh:
    """Starts each worker in an interpreter of its own, on systems that cannot fork."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(
        self, request: Path, result: Path, log: Path, *, folder: Path, environment: Mapping[str, str]
    ) -> int:
        with log.open("wb") as output:
            # Its own session, so that it can be killed with its children and a Ctrl-C reaches only us.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "aotpack.builder.jobs.worker", str(request), str(result)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, **environment, "PYTHONFAULTHANDLER": "1", "PYTHONPATH": python_path()},
                start_new_session=True,
            )
        return self._process.pid

    def wait(self, seconds: float) -> Ended | None:
        assert self._process is not None
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        return self.kill()

    def kill(self) -> Ended:
        assert self._process is not None
        if self._process.stdin is not None:
            self._process.stdin.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        return Ended(self._process.wait())

    def close(self) -> None:
        if self._process is not None:
            self.kill()


def _watch(
    starter: _Starter, pid: int, limits: Limits, started: float, stopped: threading.Event
) -> tuple[str | None, Ended]:
    """Wait for the end. Gives why it had to be ended, and how it did, with the highest memory seen.

    Raises:
        BuildStopped: nobody wants it any more, and it was killed.
    """
    peak = 0
    while True:
        if stopped.is_set():
            starter.kill()
            raise BuildStopped
        ended = starter.wait(_INTERVAL)
        reason = None
        if ended is None:
            memory = _memory(pid)
            peak = max(peak, memory)
            if limits.memory is not None and memory > limits.memory:
                reason = f"it took {memory >> 20} MiB of memory; the limit is {limits.memory >> 20} MiB"
            elif time.monotonic() - started > limits.seconds:
                reason = f"it did not end within {limits.seconds:g} s"
        if reason is not None:
            ended = starter.kill()
        if ended is not None:
            return reason, Ended(ended.status, max(peak, ended.peak_memory))


def _memory(pid: int) -> int:
    total = 0
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
    return total


def _how_it_died(status: int) -> str:
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = str(-status)
        return f"the worker was killed by {name}"
    return f"the worker ended with status {status} and no result"


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _KEPT_OF_LOG))
        return file.read().decode("utf-8", "replace")
