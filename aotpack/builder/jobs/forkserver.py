"""A process that has all imports behind it and forks a worker for each request.

An interpreter with numpy, onnx and onnxruntime takes most of a second to start, which is longer than a small
model takes to compile. The server loads no vendor library and runs no session, so what it hands on is clean.

The two sides talk in lines over pipes: a request is one JSON object, the answers are ``started PID`` and
``ended STATUS KIB`` (a negative status is a signal's; the second is the highest resident memory). The server
ends its worker, and all that the worker started, when the pipe to it closes, so that nothing is left of a
build that was killed. The near side waits for no answer without a deadline: a worker can stop the server.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import re
import secrets
import select
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from aotpack.builder.jobs.descendants import MARK, adopt_orphans, children_of, end_all, marked
from aotpack.common.child_process import python_command, python_environment

__all__ = ["Ended", "ForkServer", "serve"]

#: Of numpy's BLAS in the server: a fork takes along the calling thread alone.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

#: Seconds for the server to import all it needs, on a machine that is busy, and to fork.
_UNTIL_STARTED = 120.0
#: Seconds for the server to say how its worker ended, and for killed processes to be gone. A server that a
#: worker has stopped says nothing.
_UNTIL_ENDED = 10.0
#: Of an answer, in bytes.
_MAX_ANSWER = 256


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended."""

    #: A negative one is a signal's.
    status: int
    #: Its highest resident memory in bytes, without its children; 0 if that is not known.
    peak_memory: int = 0


class ForkServer:
    """The near side: one server process, with at most one worker at a time."""

    #: pidfd and poll are needed.
    available = sys.platform == "linux" and hasattr(os, "pidfd_open")

    def __init__(self) -> None:
        self._mark = secrets.token_hex(16)
        self._process = subprocess.Popen(
            python_command("aotpack.builder.jobs.forkserver"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd="/",
            env=python_environment({**_ONE_THREAD, MARK: self._mark}),
            start_new_session=True,
        )
        self._said = b""

    @property
    def alive(self) -> bool:
        """Whether it can start another worker."""
        return self._process.poll() is None

    def processes(self) -> list[psutil.Process]:
        """The worker, and all that it started and that still runs."""
        return children_of(self._process.pid)

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
        """Fork a worker (`aotpack.builder.jobs.worker.main`) and return its process id.

        Args:
            request: the JSON file that says what to do.
            result: the JSON file that it writes.
            log: takes all that it prints.
            folder: where it runs.
            environment: added to the server's, in which the threads of numpy are few.
            largest_file: bytes that a file may have which it writes.

        Raises:
            OSError: the server has died, or does not answer.
        """
        asked = {
            "request": str(request),
            "result": str(result),
            "log": str(log),
            "folder": str(folder),
            # The server's own thread limits are not the worker's.
            "environment": {**environment, **{key: os.environ.get(key) for key in _ONE_THREAD}},
            "largest_file": largest_file,
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        (pid,) = self._answer("started", 1, _UNTIL_STARTED)
        return pid

    def wait(self, seconds: float) -> Ended | None:
        """How the worker ended, or None if it runs on after `seconds`.

        Raises:
            OSError: the server has died.
        """
        if not self._said and not self._readable(seconds):
            return None
        return self._end()

    def kill(self) -> Ended:
        """End the worker and all that it started; and the server, should it not say that they ended."""
        end_all(self.processes, _UNTIL_ENDED)
        try:
            return self._end()
        except OSError:
            self._end_server()
            return Ended(-signal.SIGKILL)

    def close(self) -> None:
        """End the server, its worker, if there is one, and all that it started."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            orderly = self._process.wait(_UNTIL_ENDED) == 0
        except subprocess.TimeoutExpired:
            orderly = False
        if not orderly:
            self._end_server()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _end_server(self) -> None:
        # The server first: one that a worker has stopped adopts orphans, and cannot reap them.
        self._process.kill()
        end_all(lambda: marked(self._mark), _UNTIL_ENDED)
        self._process.wait()

    def _end(self) -> Ended:
        status, kibibytes = self._answer("ended", 2, _UNTIL_ENDED)
        return Ended(status, kibibytes * 1024)

    def _answer(self, word: str, count: int, seconds: float) -> list[int]:
        end = time.monotonic() + seconds
        while b"\n" not in self._said:
            if not self._readable(end - time.monotonic()):
                raise TimeoutError(f"the process that starts the workers did not answer within {seconds:g} s")
            assert self._process.stdout is not None
            block = self._process.stdout.read(_MAX_ANSWER)
            self._said += block
            if not block or len(self._said) > _MAX_ANSWER:
                raise OSError("the process that starts the workers has died")
        line, _, self._said = self._said.partition(b"\n")
        if not re.fullmatch(rb"%s( -?[0-9]{1,12}){%d}" % (word.encode(), count), line):
            raise OSError("the process that starts the workers has died")
        return [int(number) for number in line.split()[1:]]

    def _readable(self, seconds: float) -> bool:
        assert self._process.stdout is not None
        poller = select.poll()
        poller.register(self._process.stdout, select.POLLIN)
        return bool(poller.poll(max(0.0, seconds) * 1000))


def serve() -> None:
    """The far side: fork a worker for each line of the standard input, until it closes."""
    import numpy  # noqa: F401
    import onnxruntime  # noqa: F401

    with contextlib.suppress(ImportError):
        # Not where packages are only loaded and measured.
        import onnx  # noqa: F401

    from aotpack.toolchains import toolchains

    toolchains()
    adopt_orphans()
    # The pipes get numbers of their own: 0, 1 and 2 are for what a vendor's library makes of them.
    requests, answers = os.dup(0), os.dup(1)
    empty = os.open(os.devnull, os.O_RDWR)
    os.dup2(empty, 0)
    os.dup2(empty, 1)
    os.close(empty)
    with os.fdopen(requests, "rb", buffering=0) as lines:
        for line in lines:
            asked = json.loads(line)
            with warnings.catch_warnings():
                # Python warns of other threads. There is one, onnxruntime's, which waits and holds nothing.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if pid == 0:
                os.close(requests)
                os.close(answers)
                _work(asked)
            os.write(answers, b"started %d\n" % pid)
            status, kibibytes = _until_it_ends(pid, requests)
            with contextlib.suppress(BrokenPipeError):
                os.write(answers, b"ended %d %d\n" % (os.waitstatus_to_exitcode(status), kibibytes))


def _until_it_ends(pid: int, requests: int) -> tuple[int, int]:
    """The wait status and the highest memory of the worker, which is ended when `requests` closes."""
    ended = os.pidfd_open(pid)
    poller = select.poll()
    poller.register(ended, select.POLLIN)
    poller.register(requests, 0)
    events = dict(poller.poll())
    if ended not in events:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PIDFD, ended, os.WEXITED | os.WNOWAIT)
    os.close(ended)
    # All that it started goes with it; what was detached from it has become a child of this process.
    end_all(lambda: children_of(os.getpid()), _UNTIL_ENDED / 2)
    _, status, used = os.wait4(pid, 0)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return status, used.ru_maxrss


def _work(asked: Mapping[str, object]) -> None:
    """In the fork: become a worker. Does not return."""
    import resource

    status = 1
    try:
        # Its own session, so that it can be killed with its children.
        os.setsid()
        output = os.open(str(asked["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        largest = asked["largest_file"]
        assert isinstance(largest, int)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.chdir(str(asked["folder"]))
        environment = asked["environment"]
        assert isinstance(environment, dict)
        for key, value in environment.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value
        faulthandler.enable()
        from aotpack.builder.jobs.worker import main

        main(Path(str(asked["request"])), Path(str(asked["result"])))
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Some vendors' libraries abort when the interpreter tears them down; the result is written.
        os._exit(status)


if __name__ == "__main__":
    serve()
