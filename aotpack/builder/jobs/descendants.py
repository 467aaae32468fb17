"""The processes of a job, children that were detached from it included: found, weighed and ended.

On Linux the process that forks the workers is a subreaper (prctl(2)): a child that daemonises becomes its
child. Should that process be killed as well, all that it started still has `MARK` in its environment.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import sys
import time
from collections.abc import Callable, Iterable

import psutil

__all__ = ["MARK", "adopt_orphans", "children_of", "end_all", "marked", "resident"]

#: Environment variable with a value of its own for each process that starts workers.
MARK = "AOTPACK_WORKERS"

#: PR_SET_CHILD_SUBREAPER of linux/prctl.h.
_SUBREAPER = 36
#: Seconds between two looks at what is left.
_INTERVAL = 0.01
#: Looks for processes that were started while others were stopped: one that forks without end is caught
#: after two or three.
_LOOKS = 20


def adopt_orphans() -> None:
    """Make this process the parent of descendants whose own parent ends, where the system can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def children_of(pid: int) -> list[psutil.Process]:
    """All descendants of a process that still run; none if it is gone."""
    with contextlib.suppress(psutil.Error):
        found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
        return found
    return []


def marked(value: str) -> list[psutil.Process]:
    """Processes of this user whose `MARK` is `value`."""
    found = []
    for process in psutil.process_iter():
        # Those of others cannot be read, and some end meanwhile.
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == value:
                found.append(process)
    return found


def resident(processes: Iterable[psutil.Process]) -> int:
    """Resident memory of all `processes` together, in bytes."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total


def end_all(find: Callable[[], list[psutil.Process]], seconds: float) -> bool:
    """Kill what `find` gives until it gives nothing that runs; whether that was reached within `seconds`.

    Args:
        find: looks for them anew; they may start more of themselves.
        seconds: after which it is given up.
    """
    end = time.monotonic() + seconds
    while True:
        running = [process for process in find() if _runs(process)]
        if not running:
            return True
        # Stopped first, so that none starts another one while its siblings are killed.
        seen: set[psutil.Process] = set()
        for _ in range(_LOOKS):
            new = [process for process in running if process not in seen]
            if not new:
                break
            for process in new:
                _signal(process, getattr(signal, "SIGSTOP", None))
            seen.update(new)
            running = [process for process in find() if _runs(process)]
        for process in seen:
            with contextlib.suppress(psutil.Error):
                process.kill()
        if time.monotonic() > end:
            return not any(map(_runs, find()))
        time.sleep(_INTERVAL)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _signal(process: psutil.Process, number: int | None) -> None:
    if number is not None:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)
