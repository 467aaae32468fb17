"""Jobs done elsewhere: by a process pool, and by a real Dask scheduler with two real workers."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.command_line import aotpack, environment

pytest.importorskip("distributed", reason="the extra `farm` is not installed")

POOL = """
import sys
from concurrent.futures import ProcessPoolExecutor
import aotpack

if __name__ == "__main__":
    with ProcessPoolExecutor(2) as pool:
        report = aotpack.build(
            sys.argv[1], targets=["ort-cpu", "qnn-htp-v73"], output=sys.argv[2],
            shapes={"input": (1, 576)}, executor=pool, reuse=False,
        )
    print(*(row.id for row in report.rows))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a scheduler with two workers, each of which declares its toolchains."""
    folder = tmp_path_factory.mktemp("farm")
    port = free_port()
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", f"tcp://127.0.0.1:{port}"]
    worker += ["--preload", "aotpack.builder.dask_worker", "--nthreads", "1", "--host", "127.0.0.1"]
    commands = [
        [*dask, "--host", "127.0.0.1", "--port", str(port), "--no-show", "--no-dashboard"],
        [*worker, "--no-dashboard", "--name", "one"],
        [*worker, "--no-dashboard", "--name", "two"],
    ]
    with (folder / "log.txt").open("wb") as log:
        processes = [
            subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment({}))
            for command in commands
        ]
    try:
        for _ in range(300):
            if (folder / "log.txt").read_bytes().count(b"Registered to:") >= 2:
                break
            assert all(process.poll() is None for process in processes), (folder / "log.txt").read_text()
            time.sleep(0.1)
        yield f"dask://127.0.0.1:{port}"
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)


def test_a_cluster_builds_what_this_machine_would(
    scheduler: str, real_model: Callable[[str], Path], tmp_path: Path
) -> None:
    model = real_model("silero_vad_16k_sequence")
    arguments = ["build", model, "--shape", "input=1,576", "-t", "ort-cpu", "-t", "qnn-htp-v73", "--no-reuse"]
    far = aotpack(*arguments, "-o", tmp_path / "far.aotpack", "--executor", scheduler, "--json")
    assert far.status == 0, far.err
    near = aotpack(*arguments, "-o", tmp_path / "near.aotpack", "--json")
    rows = {name: done.document("build-report")["rows"] for name, done in (("far", far), ("near", near))}
    assert [row["state"] for row in rows["far"]] == ["built"] * 3
    assert [row["id"] for row in rows["far"]] == [row["id"] for row in rows["near"]]
    assert aotpack("run", tmp_path / "far.aotpack", "--emulate", "--json").document("run")["target"]
    assert aotpack("verify", tmp_path / "far.aotpack").status == 0


def test_any_executor_does(real_model: Callable[[str], Path], tmp_path: Path) -> None:
    script = tmp_path / "pool.py"
    script.write_text(POOL, encoding="utf-8")
    model, out = real_model("silero_vad_16k_sequence"), tmp_path / "pool.aotpack"
    done = subprocess.run(
        [sys.executable, script, model, out], env=environment({}), capture_output=True, text=True, check=True
    )
    assert [each.rsplit("-", 1)[0] for each in done.stdout.split()] == ["ort-cpu", "qnn-htp-v73", "portable"]
    assert aotpack("verify", out).status == 0


def test_no_scheduler_is_said_in_a_line(real_model: Callable[[str], Path], tmp_path: Path) -> None:
    done = aotpack(
        "build",
        real_model("silero_vad_16k_sequence"),
        *("-t", "ort-cpu", "-o", tmp_path / "x.aotpack", "--executor", f"dask://127.0.0.1:{free_port()}"),
    )
    assert "no scheduler answers" in done.error
    assert list(tmp_path.iterdir()) == []
