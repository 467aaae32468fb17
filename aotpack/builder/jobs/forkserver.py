"""A process that has all imports behind it and forks a worker for each request.

An interpreter with numpy, onnx and onnxruntime takes most of a second to start, which is longer than a small
model takes to compile. The server loads no vendor library and runs no session, so what it hands on is clean.

The two sides talk in lines over pipes: a request is one JSON object, the answers are ``started PID`` and
``ended STATUS KIB`` (a negative status is a signal's; the second is the highest resident memory). The server
ends its worker when the pipe to it closes, so that nothing is left of a build that was killed.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import select
import signal
import subprocess
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Ended", "ForkServer", "python_path", "serve"]

#: Of numpy's BLAS in the server: a fork takes along the calling thread alone.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def python_path() -> str:
    """PYTHONPATH for a child that shall import the aotpack that starts it, wherever that runs from."""
    root = str(Path(__file__).resolve().parents[3])
    inherited = os.environ.get("PYTHONPATH")
    return root if not inherited else os.pathsep.join([root, inherited])


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
        self._process = subprocess.Popen(
            [sys.executable, "-m", "aotpack.builder.jobs.forkserver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **_ONE_THREAD, "PYTHONPATH": python_path()},
            start_new_session=True,
        )
        self._pid: int | None = None

    def start(
        self, request: Path, result: Path, log: Path, *, folder: Path, environment: Mapping[str, str]
    ) -> int:
        """Fork a worker (`aotpack.builder.jobs.worker.main`) and return its process id.

        Args:
            request: the JSON file that says what to do.
            result: the JSON file that it writes.
            log: takes all that it prints.
            folder: where it runs.
            environment: added to the server's, in which the threads of numpy are few.

        Raises:
            OSError: the server has died.
        """
        asked = {
            "request": str(request),
            "result": str(result),
            "log": str(log),
            "folder": str(folder),
            # The server's own thread limits are not the worker's.
            "environment": {**environment, **{key: os.environ.get(key) for key in _ONE_THREAD}},
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        self._process.stdin.flush()
        (self._pid,) = self._answer("started", 1)
        return self._pid

    def wait(self, seconds: float) -> Ended | None:
        """How the worker ended, or None if it runs on after `seconds`.

        Raises:
            OSError: the server has died.
        """
        assert self._process.stdout is not None
        poller = select.poll()
        poller.register(self._process.stdout, select.POLLIN)
        if not poller.poll(seconds * 1000):
            return None
        return self._end()

    def kill(self) -> Ended:
        """End the worker."""
        assert self._pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        return self._end()

    def close(self) -> None:
        """End the server and its worker, if there is one."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.wait()

    def _end(self) -> Ended:
        status, kibibytes = self._answer("ended", 2)
        self._pid = None
        return Ended(status, kibibytes * 1024)

    def _answer(self, word: str, count: int) -> list[int]:
        assert self._process.stdout is not None
        said = self._process.stdout.readline().split()
        if len(said) != 1 + count or said[0] != word.encode():
            raise OSError("the process that starts the workers has died")
        return [int(number) for number in said[1:]]


def serve() -> None:
    """The far side: fork a worker for each line of the standard input, until it closes."""
    import numpy  # noqa: F401
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401

    from aotpack.toolchain import toolchains

    toolchains()
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
    # Its own children go with it; while it is not reaped, its number is nobody else's.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    _, status, used = os.wait4(pid, 0)
    return status, used.ru_maxrss


def _work(asked: Mapping[str, object]) -> None:
    """In the fork: become a worker. Does not return."""
    status = 1
    try:
        # Its own session, so that it can be killed with its children.
        os.setsid()
        output = os.open(str(asked["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
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
