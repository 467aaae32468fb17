"""Run workers under a time and a memory limit, and say how each ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil
from msgspec import DecodeError

from aotpack.builder.jobs.descendants import children_of, end_all, resident
from aotpack.builder.jobs.forkserver import Ended, ForkServer
from aotpack.builder.jobs.untrusted_files import ResultFolder, written_bytes
from aotpack.builder.jobs.worker import AnyRequest, Result
from aotpack.builder.spec import Limits
from aotpack.common.child_process import python_command, python_environment
from aotpack.errors import BuildStopped, CompileError

__all__ = ["Outcome", "Workers", "run_worker"]

#: Seconds between two looks at a worker's memory: a compiler allocates some hundred MB in one.
_INTERVAL = 0.05

#: Seconds between two looks at what it has written.
_DISK_INTERVAL = 1.0

#: Kept of what a worker printed, in bytes, from its end: verbose logs of large models reach hundreds of MB.
_KEPT_OF_LOG = 4 * 1024 * 1024
#: Of a log on disk, in bytes: what a worker prints without end is thrown away while it runs.
_LARGEST_LOG = 64 * 1024 * 1024
#: Of a result, in bytes: the names of all nodes of a large model are some MB.
_LARGEST_RESULT = 16 * 1024 * 1024
#: Of a failure, in characters: some vendors name every node of a model in one message.
_LONGEST_FAILURE = 10_000
#: Of a file that a worker writes, and of all of them together, in bytes, where the caller sets no limit.
_LARGEST_FILE = 64 * 1024**3
#: Processes and the like that a worker may start at once: compilers start one for each core.
_MOST_PROCESSES = 512
#: Seconds for killed processes to be gone.
_UNTIL_ENDED = 10.0


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
        self,
        request: Path,
        result: Path,
        log: Path,
        *,
        folder: Path,
        environment: Mapping[str, str],
        largest_file: int,
    ) -> int: ...

    @property
    def alive(self) -> bool: ...

    def processes(self) -> list[psutil.Process]: ...

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
        largest_file: int = _LARGEST_FILE,
    ) -> Outcome:
        """Start a worker, wait for it, end it at its limits, and read its result.

        Args:
            request: what it shall do.
            folder: an empty one for the request, the result and the log.
            environment: added to this process's.
            limits: after which it is killed, with all that it started.
            largest_file: bytes that a file which it writes may have, and that `folder` may take on disk.

        Raises:
            BuildStopped: `stop` was called before the worker had ended.
        """
        if self._stopped.is_set():
            raise BuildStopped
        asked, answered = folder / "request.json", folder / "result.json"
        asked.write_text(request.to_json(), encoding="utf-8")
        started = time.monotonic()
        result: Result | None = None
        with ResultFolder(folder) as opened, _Log(folder / "log.txt") as log:
            try:
                with self._starter() as starter:
                    pid = starter.start(
                        asked,
                        answered,
                        log.path,
                        folder=folder,
                        environment=environment,
                        largest_file=largest_file,
                    )
                    watch = _Watch(starter, pid, limits, started, self._stopped, folder, log, largest_file)
                    ended_by, ended = watch.until_it_ends()
            except OSError as error:
                ended_by, ended = f"no worker could be started, or it was lost: {error}", Ended(1)
            seconds = time.monotonic() - started
            if ended_by is None:
                try:
                    result = Result.from_json(opened.read(answered.name, _LARGEST_RESULT))
                except (CompileError, OSError, DecodeError) as error:
                    ended_by = _how_it_died(ended.status, error)
            failure = ended_by or (result.error if result else None)
            return Outcome(
                result=result,
                failure=None if failure is None else failure[:_LONGEST_FAILURE],
                seconds=seconds,
                peak_memory=ended.peak_memory,
                log=log.text(),
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
            if starter.alive:
                self._idle.append(starter)
                return
        starter.close()


def run_worker(
    request: AnyRequest, folder: Path, *, environment: Mapping[str, str], limits: Limits
) -> Outcome:
    """Run a single worker. As `Workers.run`, for those who start no other one soon."""
    with Workers() as workers:
        return workers.run(request, folder, environment=environment, limits=limits)


class _Fresh:
    """Starts each worker in an interpreter of its own, on systems that cannot fork."""

    alive = True

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        #: All that were ever seen: who is detached from its parent is found by nobody afterwards.
        self._seen: set[psutil.Process] = set()

    def start(
        self,
        request: Path,
        result: Path,
        log: Path,
        *,
        folder: Path,
        environment: Mapping[str, str],
        largest_file: int,
    ) -> int:
        with log.open("ab") as output:
            # Its own session, so that it can be killed with its children and a Ctrl-C reaches only us.
            self._process = subprocess.Popen(
                python_command("aotpack.builder.jobs.worker", str(request), str(result)),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=python_environment({**environment, "PYTHONFAULTHANDLER": "1"}),
                start_new_session=True,
            )
        return self._process.pid

    def processes(self) -> list[psutil.Process]:
        assert self._process is not None
        with contextlib.suppress(psutil.Error):
            self._seen.update((psutil.Process(self._process.pid), *children_of(self._process.pid)))
        return [process for process in self._seen if process.is_running()]

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
        end_all(self.processes, _UNTIL_ENDED)
        self._seen.clear()
        return Ended(self._process.wait())

    def close(self) -> None:
        if self._process is not None:
            self.kill()


class _Watch:
    """Waits for a worker's end, and ends it at its limits."""

    def __init__(
        self,
        starter: _Starter,
        pid: int,
        limits: Limits,
        started: float,
        stopped: threading.Event,
        folder: Path,
        log: _Log,
        largest: int,
    ) -> None:
        self._starter = starter
        self._pid = pid
        self._limits = limits
        self._started = started
        self._stopped = stopped
        self._folder = folder
        self._log = log
        self._largest = largest
        self._peak = 0
        self._looked_at_disk = started

    def until_it_ends(self) -> tuple[str | None, Ended]:
        """Why it had to be ended, and how it did, with the highest memory seen.

        Raises:
            BuildStopped: nobody wants it any more, and it was killed.
            OSError: what started it is gone.
        """
        while True:
            if self._stopped.is_set():
                self._starter.kill()
                raise BuildStopped
            ended = self._starter.wait(_INTERVAL)
            reason = self._reason() if ended is None else None
            if reason is not None:
                ended = self._starter.kill()
            if ended is not None:
                return reason, Ended(ended.status, max(self._peak, ended.peak_memory))

    def _reason(self) -> str | None:
        """Why it has to be ended now."""
        limits, now = self._limits, time.monotonic()
        processes = self._starter.processes()
        memory = resident(processes)
        self._peak = max(self._peak, memory)
        if limits.memory is not None and memory > limits.memory:
            return f"it took {memory >> 20} MiB of memory; the limit is {limits.memory >> 20} MiB"
        if len(processes) > _MOST_PROCESSES:
            return f"it started {len(processes)} processes; the limit is {_MOST_PROCESSES}"
        if now - self._started > limits.seconds:
            return f"it did not end within {limits.seconds:g} s"
        self._log.shorten()
        if now - self._looked_at_disk > _DISK_INTERVAL:
            self._looked_at_disk = now
            if (written := written_bytes(self._folder)) > self._largest:
                return f"it wrote {written >> 20} MiB; the limit is {self._largest >> 20} MiB for this model"
        return None


class _Log:
    """What a worker prints, in a file that is held open: whatever the worker puts in its place is not read.

    Args:
        path: of the file, which is made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("x+b", buffering=0)
        self._before = b""

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def shorten(self) -> None:
        """Keep the end alone of a file that has grown too large. It goes on where the file ends then."""
        if os.fstat(self._file.fileno()).st_size > _LARGEST_LOG:
            self._before = self._tail()
            self._file.truncate(0)

    def text(self) -> str:
        """The end of all that was printed."""
        return (self._before + self._tail())[-_KEPT_OF_LOG:].decode("utf-8", "replace")

    def _tail(self) -> bytes:
        self._file.seek(max(0, self._file.seek(0, os.SEEK_END) - _KEPT_OF_LOG))
        kept = b""
        # It may grow while it is read.
        while len(kept) < _KEPT_OF_LOG and (block := self._file.read(_KEPT_OF_LOG - len(kept))):
            kept += block
        return kept


def _how_it_died(status: int, error: Exception) -> str:
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = str(-status)
        return f"the worker was killed by {name}"
    said = "no result"
    if isinstance(error, DecodeError):
        said = "a result that cannot be read"
    elif "was not written" not in str(error):
        said = f"no result that can be read: {error}"
    return f"the worker ended with status {status} and {said}"
