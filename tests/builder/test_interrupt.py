"""Ctrl-C while compilers run: a real signal to a real command line."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.command_line import Done, aotpack, finish, start

TARGETS = ("-t", "ort-cpu", "-t", "trouble-hang-with-child", "-t", "trouble-hang", "-t", "trouble-none")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def building(
    small_model: Path, troublesome: Path, tmp_path: Path, cache: Path
) -> Iterator[subprocess.Popen[str]]:
    """A build with one result, whose two workers hang."""
    (tmp_path / "out").mkdir()
    process = start(
        *("build", small_model, "-o", tmp_path / "out" / "x.aotpack", *TARGETS, "--jobs", 2),
        path=(troublesome,),
        env={"AOTPACK_CACHE": str(cache)},
    )
    yield process
    process.kill()
    process.wait()


def until_it_hangs(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """All processes of the build, once it has its first result and both of its workers are hanging."""
    assert process.stderr is not None
    while not process.stderr.readline().startswith("built  main/ort-cpu"):
        assert process.poll() is None
    for _ in range(600):
        children = psutil.Process(process.pid).children(recursive=True)
        if any("time.sleep(1000)" in " ".join(child.cmdline()) for child in children):
            return children
        time.sleep(0.05)
    raise AssertionError("no worker hangs")


def interrupted(process: subprocess.Popen[str], how: int = signal.SIGINT) -> tuple[Done, float]:
    started = time.monotonic()
    os.kill(process.pid, how)
    done = finish(process, timeout=60)
    return done, time.monotonic() - started


def test_it_stops_the_workers_at_once_and_says_so_in_a_line(
    building: subprocess.Popen[str], tmp_path: Path, cache: Path
) -> None:
    children = until_it_hangs(building)
    done, seconds = interrupted(building)
    assert done.status == 130
    assert seconds < 5
    assert done.err.splitlines() == ["interrupted: what was finished is kept for the next build"]
    assert done.out == ""
    gone, alive = psutil.wait_procs(children, timeout=5)
    assert not alive
    assert len(gone) >= 4
    assert list((tmp_path / "out").iterdir()) == []
    assert list((cache / "builds").iterdir()) == []


def test_the_next_build_goes_on_from_what_was_finished(
    building: subprocess.Popen[str], small_model: Path, troublesome: Path, tmp_path: Path, cache: Path
) -> None:
    until_it_hangs(building)
    assert interrupted(building)[0].status == 130
    again = aotpack(
        *("build", small_model, "-o", tmp_path / "out" / "x.aotpack", "-t", "ort-cpu", "-t", "trouble-none"),
        *("--json", "--explain-rebuild"),
        path=(troublesome,),
        env={"AOTPACK_CACHE": str(cache)},
    )
    rows = {row["target"]: row for row in again.document("build-report")["rows"]}
    assert rows["ort-cpu"]["cached"]
    assert not rows["trouble-none"]["cached"]
    assert rows["trouble-none"]["why"] == "It was not built for this package before."


def test_a_build_that_is_killed_leaves_no_workers_and_its_litter_goes_with_the_next(
    building: subprocess.Popen[str], small_model: Path, tmp_path: Path, cache: Path
) -> None:
    children = until_it_hangs(building)
    assert interrupted(building, signal.SIGKILL)[0].status == -signal.SIGKILL
    assert not psutil.wait_procs(children, timeout=5)[1]
    assert any(path.is_dir() for path in (cache / "builds").iterdir())
    env = {"AOTPACK_CACHE": str(cache)}
    assert aotpack("build", small_model, "-o", tmp_path / "y.aotpack", "-t", "ort-cpu", env=env).status == 0
    assert not any(path.is_dir() for path in (cache / "builds").iterdir())
