"""Run one worker under a time and a memory limit, and say how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
from pydantic import ValidationError

from aotpack.builder.spec import Limits
from aotpack.builder.worker import AnyRequest, Result

__all__ = ["Outcome", "run_worker"]

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


def run_worker(
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
    """
    asked, answered, log = folder / "request.json", folder / "result.json", folder / "log.txt"
    asked.write_text(request.model_dump_json(), encoding="utf-8")
    started = time.monotonic()
    with log.open("wb") as output:
        # Its own session, so that it can be killed with its children and a Ctrl-C reaches only us.
        process = subprocess.Popen(
            [sys.executable, "-m", "aotpack.builder.worker", str(asked), str(answered)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, **environment, "PYTHONFAULTHANDLER": "1", "PYTHONPATH": _python_path()},
            start_new_session=True,
        )
        try:
            ended_by, peak = _watch(process, limits, started)
        finally:
            _kill(process)
    seconds = time.monotonic() - started
    text = _tail(log)
    result: Result | None = None
    if ended_by is None:
        with contextlib.suppress(OSError, ValidationError):
            result = Result.model_validate_json(answered.read_bytes())
        if result is None:
            ended_by = _how_it_died(process.returncode)
    failure = ended_by or (result.error if result else None)
    return Outcome(result=result, failure=failure, seconds=seconds, peak_memory=peak, log=text)


def _python_path() -> str:
    # The worker imports the aotpack that started it, wherever it runs from.
    root = str(Path(__file__).resolve().parents[2])
    inherited = os.environ.get("PYTHONPATH")
    return root if not inherited else os.pathsep.join([root, inherited])


def _watch(process: subprocess.Popen[bytes], limits: Limits, started: float) -> tuple[str | None, int]:
    """Wait for the end. Gives why it had to be ended, and the highest memory seen."""
    peak = 0
    while True:
        try:
            process.wait(_INTERVAL)
            return None, peak
        except subprocess.TimeoutExpired:
            pass
        memory = _memory(process.pid)
        peak = max(peak, memory)
        if limits.memory is not None and memory > limits.memory:
            return f"it took {memory >> 20} MiB of memory; the limit is {limits.memory >> 20} MiB", peak
        if time.monotonic() - started > limits.seconds:
            return f"it did not end within {limits.seconds:g} s", peak


def _memory(pid: int) -> int:
    total = 0
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
    return total


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


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
