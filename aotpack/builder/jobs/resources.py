"""What this process may take of the machine: a container, or a set of cores, has less than all of it."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

import psutil

from aotpack.builder.spec import Limits

__all__ = ["cores", "default_limits", "memory_left"]

#: Where a container sees its own limits (cgroup v2); outside of one these files are not there.
CONTAINER = Path("/sys/fs/cgroup")


def cores() -> int:
    """Cores, as many as a quota of time is worth."""
    affinity = getattr(os, "sched_getaffinity", None)
    found = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    # The quota is "max" where there is none.
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = map(int, _read("cpu.max").split())
        found = min(found, math.ceil(quota / period))
    return max(1, found)


def default_limits(limits: Limits) -> Limits:
    """`limits`, that of memory set to nine tenths of what this process may have where there is none.

    That is the least that a limit can mean: beyond it the system kills processes at random.
    """
    if limits.memory is not None:
        return limits
    total: int = psutil.virtual_memory().total
    with contextlib.suppress(OSError, ValueError):
        total = min(total, int(_read("memory.max")))
    return Limits(seconds=limits.seconds, memory=total * 9 // 10)


def memory_left() -> int:
    """Bytes that are free, or would be if what is only kept of files were dropped."""
    left: int = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):
        statistics = dict(line.split() for line in _read("memory.stat").splitlines())
        used = int(_read("memory.current")) - int(statistics.get("inactive_file", 0))
        left = min(left, int(_read("memory.max")) - used)
    return max(0, left)


def _read(name: str) -> str:
    return (CONTAINER / name).read_text(encoding="ascii")
