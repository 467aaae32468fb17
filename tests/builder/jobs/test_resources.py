"""A container has less than the machine that it is on."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from aotpack.builder.jobs import resources as allowed

GIB = 1024**3


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A container without limits, on a machine of 64 cores and 100 GiB."""
    monkeypatch.setattr(allowed, "CONTAINER", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 100 * GIB}))
    return tmp_path


def test_outside_of_a_container_it_is_what_the_machine_has(container: Path) -> None:
    assert (allowed.cores(), allowed.memory_left()) == (64, 100 * GIB)


@pytest.mark.parametrize(
    ("quota", "found"),
    [("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("max 100000", 64), ("rubbish", 64)],
)
def test_a_quota_of_time_is_worth_so_many_cores(container: Path, quota: str, found: int) -> None:
    (container / "cpu.max").write_text(f"{quota}\n", encoding="ascii")
    assert allowed.cores() == found


@pytest.mark.parametrize(
    ("limit", "left"),
    # What is kept of files is dropped when something else needs the room.
    [(f"{8 * GIB}", 7 * GIB), ("max", 100 * GIB), (f"{200 * GIB}", 100 * GIB), (f"{GIB // 2}", 0)],
)
def test_a_limit_of_memory_leaves_what_is_not_in_use(container: Path, limit: str, left: int) -> None:
    (container / "memory.max").write_text(f"{limit}\n", encoding="ascii")
    (container / "memory.current").write_text(f"{3 * GIB}\n", encoding="ascii")
    (container / "memory.stat").write_text(f"anon 5\ninactive_file {2 * GIB}\n", encoding="ascii")
    assert allowed.memory_left() == left
