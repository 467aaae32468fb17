"""The process that forks the workers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from aotpack.builder.jobs.forkserver import Ended, ForkServer
from aotpack.builder.jobs.worker import CompileRequest, Part
from aotpack.common.child_process import python_path
from tests.builder.troublesome import Troublesome
from tests.command_line import ROOT, environment

pytestmark = pytest.mark.skipif(not ForkServer.available, reason="pidfd is Linux's")

TARGETS = {target.name: target for target in Troublesome().targets()}


@pytest.fixture
def server(troublesome: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ForkServer]:
    monkeypatch.setenv("PYTHONPATH", environment({}, (troublesome,))["PYTHONPATH"])
    made = ForkServer()
    yield made
    made.close()


def begin(server: ForkServer, how: str, model: Path, folder: Path) -> int:
    """Start a worker that behaves in one way."""
    folder.mkdir()
    (folder / "out").mkdir()
    request = CompileRequest(
        toolchain="troublesome",
        target=TARGETS[f"trouble-{how}"],
        parts=(Part(component="main", model=str(model), nodes=1),),
        folder=str(folder / "out"),
    )
    (folder / "request").write_text(request.to_json(), encoding="utf-8")
    return server.start(
        folder / "request",
        folder / "result",
        folder / "log",
        folder=folder,
        environment={},
        largest_file=1 << 30,
    )


def end(server: ForkServer) -> Ended:
    while (ended := server.wait(0.1)) is None:
        pass
    return ended


def test_one_worker_after_the_other_each_in_a_fork_of_its_own(
    server: ForkServer, small_model: Path, tmp_path: Path
) -> None:
    pids = []
    for number in range(3):
        pids.append(begin(server, "none", small_model, tmp_path / str(number)))
        ended = end(server)
        assert ended.status == 0
        assert ended.peak_memory > 10_000_000
        assert (tmp_path / str(number) / "result").exists()
    assert len(set(pids)) == 3


def test_a_worker_that_died_leaves_a_server_that_goes_on(
    server: ForkServer, small_model: Path, tmp_path: Path
) -> None:
    begin(server, "segfault", small_model, tmp_path / "0")
    assert end(server).status == -signal.SIGSEGV
    begin(server, "none", small_model, tmp_path / "1")
    assert end(server).status == 0


def test_waiting_is_over_in_time_and_killing_ends_it(
    server: ForkServer, small_model: Path, tmp_path: Path
) -> None:
    pid = begin(server, "hang", small_model, tmp_path / "0")
    started = time.monotonic()
    assert server.wait(0.2) is None
    assert 0.15 < time.monotonic() - started < 5
    assert server.kill().status == -signal.SIGKILL
    assert not psutil.pid_exists(pid)


def test_a_worker_has_a_folder_and_a_session_of_its_own(
    server: ForkServer, small_model: Path, tmp_path: Path
) -> None:
    pid = begin(server, "hang", small_model, tmp_path / "0")
    deadline = time.monotonic() + 30
    while psutil.Process(pid).cwd() != str(tmp_path / "0"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert os.getsid(pid) == pid, "killed with its children, and no Ctrl-C reaches it"
    server.kill()


def test_when_the_server_has_died_it_is_an_error(
    server: ForkServer, small_model: Path, tmp_path: Path
) -> None:
    pid = begin(server, "hang", small_model, tmp_path / "0")
    parent = psutil.Process(pid).parent()
    assert parent is not None
    parent.kill()
    with pytest.raises(OSError, match="the process that starts the workers has died"):
        end(server)
    psutil.Process(pid).kill()


def test_closing_it_ends_its_worker(server: ForkServer, small_model: Path, tmp_path: Path) -> None:
    worker = psutil.Process(begin(server, "hang", small_model, tmp_path / "0"))
    server.close()
    assert psutil.wait_procs([worker], timeout=5)[1] == []


def test_a_child_imports_the_same_aotpack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert python_path() == str(ROOT)
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    assert python_path() == os.pathsep.join([str(ROOT), "/elsewhere"])
