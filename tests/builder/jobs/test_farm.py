"""Jobs done elsewhere: by a process pool, and by a real Dask scheduler with real workers."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import pytest
from packaging.requirements import Requirement

import aotpack as front_door
from aotpack.errors import UsageError
from aotpack.runtime.probing import probe
from aotpack.targets.catalogue import find
from aotpack.toolchains import toolchains
from aotpack.toolchains.plugin import PluginToolchain
from aotpack.version import VERSION
from tests.command_line import ROOT, Done, aotpack, environment, finish, start
from tests.toolchains.venvs import project, python_with

pytest.importorskip("distributed", reason="the extra `farm` is not installed")
from tests.builder.jobs.cluster import Cluster, cluster, free_port

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


def rows(done: Done) -> dict[str, dict[str, Any]]:
    return {row["target"]: row for row in done.document("build-report")["rows"]}


def with_this_and(toolchain: str) -> Path:
    """An environment with what aotpack needs, Dask, and one toolchain alone."""
    required = [*project()["dependencies"], *project()["optional-dependencies"]["build"]]
    names = dict.fromkeys(Requirement(text).name for text in required)
    own = [f"{name}=={metadata.version(name)}" for name in (*names, "distributed")]
    return python_with(*own, toolchain)


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One worker with OpenVINO alone, one with QNN alone."""
    extras = {
        name: f"{known.distribution}=={metadata.version(known.distribution)}"
        for name, known in toolchains().items()
        if name in ("openvino", "qnn") and isinstance(known, PluginToolchain)
    }
    with cluster(tmp_path_factory.mktemp("farm")) as made:
        for name, requirement in extras.items():
            made.add(name, python=with_this_and(requirement))
        made.wait()
        yield made


def test_each_job_goes_to_the_machine_that_has_its_tools(
    farm: Cluster, real_model: Callable[[str], Path], tmp_path: Path
) -> None:
    model = real_model("silero_vad_16k_sequence")
    targets = ("openvino-cpu-avx2", "qnn-htp-v73", "qnn-htp-v75", "ort-cpu")
    arguments = [
        "build",
        model,
        "--shape",
        "input=1,576",
        *(f"--target={name}" for name in targets),
        "--no-reuse",
    ]
    far = aotpack(*arguments, "-o", tmp_path / "far.aotpack", "--executor", farm.address, "--json", "-k")
    assert far.status == 0, far.err
    built = rows(far)
    has_openvino = toolchains()["openvino"].why_not_compile(find(targets[0]), probe()) is None
    for name in targets:
        if name.startswith("openvino") and not has_openvino:
            # The worker has the package, but not a CPU that it takes: it offers nothing.
            assert built[name]["reason"] == (
                f"it was not done: {farm.address}: no worker can compile with the toolchain openvino"
            )
            continue
        assert built[name]["state"] == "built", built[name]
        assert built[name]["machine"] == probe().name
        assert built[name]["numerics"]["error"] <= built[name]["numerics"]["tolerance"]
    near = aotpack(*arguments, "-o", tmp_path / "near.aotpack", "--json", "-k")
    # What was done there is what would have been done here, and as well checked.
    assert {name: row["id"] for name, row in built.items()} == {
        name: row["id"] for name, row in rows(near).items()
    }
    assert aotpack("verify", tmp_path / "far.aotpack").status == 0
    # The prepared model and the reference, each of them once, for two jobs of QNN and one of ORT.
    assert len(list((farm.cache("qnn") / "sent").iterdir())) == 2


def test_results_of_a_cluster_are_kept_and_taken_again(
    farm: Cluster, small_model: Path, tmp_path: Path
) -> None:
    env = {"AOTPACK_CACHE": str(tmp_path / "cache")}
    arguments = ["build", small_model, "-o", tmp_path / "x.aotpack", "-t", "qnn-htp-v73", "--json"]
    first = rows(aotpack(*arguments, "--executor", farm.address, env=env))["qnn-htp-v73"]
    again = rows(aotpack(*arguments, "--executor", farm.address, env=env))["qnn-htp-v73"]
    assert (first["cached"], again["cached"]) == (False, True)
    assert first["id"] == again["id"]


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Cluster]:
    """A scheduler without workers yet."""
    (tmp_path / "cluster").mkdir()
    with cluster(tmp_path / "cluster") as made:
        yield made


def test_a_worker_that_dies_is_a_retry_and_then_one_failed_row(
    plain: Cluster, small_model: Path, troublesome: Path, tmp_path: Path
) -> None:
    for name in ("one", "two", "three"):
        plain.add(name, path=(troublesome,))
    plain.wait()
    done = aotpack(
        *("build", small_model, "-o", tmp_path / "x.aotpack", "--executor", plain.address),
        *("-t", "trouble-kill-the-machine", "-t", "ort-cpu", "--json", "--no-reuse", "-k"),
        path=(troublesome,),
    )
    assert done.status == 0, done.err
    built = rows(done)
    assert "it was not done: KilledWorker" in built["trouble-kill-the-machine"]["reason"]
    assert built["ort-cpu"]["state"] == "built"
    assert sum(process.poll() is not None for process in plain.workers.values()) == 2
    assert "Traceback" not in done.err


@pytest.mark.long
def test_when_the_last_worker_with_a_toolchain_is_gone_its_jobs_are_failed_rows(
    plain: Cluster, small_model: Path, troublesome: Path, tmp_path: Path
) -> None:
    plain.add("one", path=(troublesome,))
    plain.add("other")
    plain.wait()
    process = start(
        *("build", small_model, "-o", tmp_path / "x.aotpack", "-t", "trouble-hang", "-t", "ort-cpu"),
        *("--executor", plain.address, "--json", "--no-reuse", "-k"),
        path=(troublesome,),
    )
    until_it_hangs(process, plain.workers["one"])
    plain.kill("one")
    done = finish(process, timeout=60)
    built = rows(done)
    assert built["trouble-hang"]["reason"] == (
        f"it was not done: {plain.address}: the last worker with the toolchain troublesome is gone"
    )
    assert built["ort-cpu"]["state"] == "built"


def test_a_cluster_that_goes_away_in_the_middle_is_failed_rows_and_nothing_half_written(
    plain: Cluster, small_model: Path, troublesome: Path, tmp_path: Path
) -> None:
    plain.add("one", path=(troublesome,))
    plain.wait()
    (tmp_path / "out").mkdir()
    package = tmp_path / "out" / "x.aotpack"
    package.write_bytes(b"what was there before")
    process = start(
        *("build", small_model, "-o", package, "-t", "trouble-hang", "--executor", plain.address),
        "--force",
        "--json",
        path=(troublesome,),
        env={"AOTPACK_CACHE": str(tmp_path / "cache")},
    )
    until_it_hangs(process, plain.workers["one"])
    plain.close()
    done = finish(process, timeout=60)
    assert done.status == 1
    assert "Traceback" not in done.err
    built = rows(done)
    assert built["trouble-hang"]["reason"] == f"it was not done: {plain.address}: the cluster went away"
    assert built["portable"]["state"] == "built"
    assert "1 of 2 targets failed" in done.error
    assert aotpack("verify", package).status == 0
    assert [path.name for path in package.parent.iterdir()] == [package.name]


def until_it_hangs(build: subprocess.Popen[str], worker: subprocess.Popen[bytes]) -> None:
    """Until a task of `build` has a compiler at `worker` that hangs."""
    for _ in range(600):
        assert build.poll() is None, build.communicate()
        for child in psutil.Process(worker.pid).children(recursive=True):
            logs = [Path(file.path) for file in child.open_files() if file.path.endswith("log.txt")]
            if any("trouble-hang" in path.read_text(encoding="utf-8") for path in logs):
                return
        time.sleep(0.05)
    raise AssertionError("no compiler hangs")


def test_workers_of_another_release_are_refused(plain: Cluster, small_model: Path, tmp_path: Path) -> None:
    older = tmp_path / "older"
    shutil.copytree(ROOT / "aotpack", older / "aotpack", ignore=shutil.ignore_patterns("__pycache__"))
    version = older / "aotpack" / "version.py"
    text = version.read_text(encoding="utf-8")
    version.write_text(text.replace(VERSION, "0.0.1"), encoding="utf-8")
    assert "0.0.1" in version.read_text(encoding="utf-8")
    plain.add("older", root=older)
    plain.wait()
    build = ("build", small_model, "-o", tmp_path / "x.aotpack", "--no-reuse")
    arguments = (*build, "-t", "ort-cpu", "--executor", plain.address)
    error = aotpack(*arguments).error
    assert f"nobody there can do this build's jobs; found aotpack 0.0.1; expected aotpack {VERSION}" in error
    assert not (tmp_path / "x.aotpack").exists()
    # One that has the right one is enough, and gets all the jobs.
    plain.add("newer")
    plain.wait()
    assert aotpack(*arguments).status == 0


def test_workers_that_declare_nothing_are_pointed_out(
    plain: Cluster, small_model: Path, tmp_path: Path
) -> None:
    plain.add("bare", preload=False)
    plain.wait()
    build = ("build", small_model, "-o", tmp_path / "x.aotpack", "--no-reuse")
    arguments = (*build, "-t", "ort-cpu", "--executor", plain.address)
    assert "--preload aotpack.builder.jobs.dask_worker" in aotpack(*arguments).error


def test_ctrl_c_gives_the_cluster_back(
    plain: Cluster, small_model: Path, troublesome: Path, tmp_path: Path
) -> None:
    plain.add("one", path=(troublesome,))
    plain.wait()
    process = start(
        *("build", small_model, "-o", tmp_path / "x.aotpack", "-t", "trouble-hang", "-t", "trouble-none"),
        *("--executor", plain.address),
        path=(troublesome,),
    )
    until_it_hangs(process, plain.workers["one"])
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    done = finish(process, timeout=60)
    assert done.status == 130
    assert time.monotonic() - started < 10
    assert done.err.splitlines()[-1].startswith("interrupted")
    assert "Traceback" not in done.err


def test_any_executor_does(real_model: Callable[[str], Path], tmp_path: Path) -> None:
    script = tmp_path / "pool.py"
    script.write_text(POOL, encoding="utf-8")
    model, out = real_model("silero_vad_16k_sequence"), tmp_path / "pool.aotpack"
    done = subprocess.run(
        [sys.executable, script, model, out], env=environment({}), capture_output=True, text=True, check=True
    )
    assert [each.rsplit("-", 1)[0] for each in done.stdout.split()] == ["ort-cpu", "qnn-htp-v73", "portable"]
    assert aotpack("verify", out).status == 0


@pytest.mark.parametrize(
    "address", ["dask://127.0.0.1", "dask://:8786", "dask://host:port", "dask:", "http://127.0.0.1:8786", "x"]
)
def test_an_address_of_another_form_is_wrong_usage(small_model: Path, tmp_path: Path, address: str) -> None:
    with pytest.raises(UsageError, match=f"--executor {address}: is no place for jobs; expected dask://HOST"):
        front_door.build(small_model, targets=["ort-cpu"], output=tmp_path / "x", executor=address)


@pytest.mark.long
def test_something_that_accepts_and_says_nothing_is_no_scheduler(small_model: Path, tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        place = f"dask://127.0.0.1:{silent.getsockname()[1]}"
        done = aotpack("build", small_model, "-t", "ort-cpu", "-o", tmp_path / "x", "--executor", place)
    assert done.error == f"{place}: no scheduler answers; found a connection, and nothing on it"
    assert list(tmp_path.iterdir()) == []


def test_no_scheduler_is_said_in_a_line(small_model: Path, tmp_path: Path) -> None:
    place = f"dask://127.0.0.1:{free_port()}"
    done = aotpack("build", small_model, "-t", "ort-cpu", "-o", tmp_path / "x.aotpack", "--executor", place)
    assert "no scheduler answers" in done.error
    assert list(tmp_path.iterdir()) == []
