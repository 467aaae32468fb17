"""A worker under its limits; what misbehaves is real (tests/builder/troublesome.py)."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import psutil
import pytest

from aotpack.builder.jobs.forkserver import ForkServer
from aotpack.builder.jobs.supervise import Outcome, Workers
from aotpack.builder.jobs.worker import CompileRequest, Part
from aotpack.builder.spec import Limits
from aotpack.targets.catalogue import Target
from tests.builder.troublesome import Troublesome
from tests.command_line import environment


class Compile(Protocol):
    """Let the worker misbehave in one way."""

    def __call__(self, how: str, seconds: float = 300) -> Outcome: ...


TARGETS: dict[str, Target] = {target.name: target for target in Troublesome().targets()}


@pytest.fixture(params=["forked", "fresh"])
def compile_for(
    small_model: Path,
    troublesome: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Compile:
    if request.param == "fresh":
        monkeypatch.setattr(ForkServer, "available", False)
    monkeypatch.setenv("PYTHONPATH", environment({}, (troublesome,))["PYTHONPATH"])
    (tmp_path / "out").mkdir()

    def run(how: str, seconds: float = 300) -> Outcome:
        asked = CompileRequest(
            toolchain="troublesome",
            target=TARGETS[f"trouble-{how}"],
            parts=(Part(component="main", model=str(small_model), nodes=1),),
            folder=str(tmp_path / "out"),
        )
        with Workers() as workers:
            return workers.run(asked, tmp_path, environment={}, limits=Limits(seconds=seconds))

    return run


def test_a_worker_that_ends_well(compile_for: Compile) -> None:
    outcome = compile_for("none")
    assert outcome.failure is None
    assert outcome.result is not None
    (part,) = outcome.result.parts
    assert part.coverage.partitions == 1
    assert outcome.log == "troublesome: compiling for trouble-none\n"
    assert outcome.peak_memory > 10_000_000


def test_a_crash_leaves_the_stack_in_the_log(compile_for: Compile) -> None:
    outcome = compile_for("segfault")
    assert outcome.result is None
    assert outcome.failure == "the worker was killed by SIGSEGV"
    assert "troublesome.py" in outcome.log, "faulthandler prints where it was"


def test_a_hang_ends_at_its_limit(compile_for: Compile) -> None:
    outcome = compile_for("hang", seconds=3)
    assert outcome.failure == "it did not end within 3 s"
    assert 3 <= outcome.seconds < 60
    assert outcome.log == "troublesome: compiling for trouble-hang\n"


def test_only_the_end_of_a_long_log_is_kept(compile_for: Compile) -> None:
    outcome = compile_for("shout")
    assert outcome.failure == "RuntimeError: hoarse"
    assert len(outcome.log) == 4 * 1024 * 1024
    assert "\n199999 shouted" in outcome.log
    assert outcome.log.endswith("RuntimeError: hoarse\n"), "the traceback tells the vendor where"


PARENT = """
import sys
from pathlib import Path
from aotpack.builder.spec import Limits
from aotpack.builder.jobs.supervise import Workers
from aotpack.builder.jobs.worker import CompileRequest
request = CompileRequest.from_json(sys.argv[1])
Workers().run(request, Path(sys.argv[2]), environment={}, limits=Limits())
"""


def test_a_worker_does_not_outlive_a_parent_that_is_killed(
    small_model: Path, troublesome: Path, tmp_path: Path
) -> None:
    request = CompileRequest(
        toolchain="troublesome",
        target=TARGETS["trouble-hang"],
        parts=(Part(component="main", model=str(small_model), nodes=1),),
        folder=str(tmp_path),
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, request.to_json(), str(tmp_path)],
        env=environment({}, (troublesome,)),
    )
    try:
        log = tmp_path / "log.txt"
        _wait_until(lambda: log.exists() and b"compiling" in log.read_bytes())
        workers = psutil.Process(parent.pid).children(recursive=True)
    finally:
        parent.kill()
        parent.wait()
    assert workers
    _wait_until(lambda: not any(map(_lives, workers)))


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
