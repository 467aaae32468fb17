"""Builds that cannot be: a usage error before anything runs, or one line that says what is in the way."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest

from samples.made_models import cnn
from tests.command_line import aotpack, environment, finish, start
from tests.container.packages import OLD_PACKAGE

SHAPES = ("--shape", "input=1,576")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "cnn.onnx"
    onnx.save(cnn(layers=2, channels=8, size=8), path)
    return path


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return tmp_path / "new.aotpack"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty; expected an ONNX model"),
        (os.urandom(3000), "is not an ONNX model"),
        (b'{"not": "a model"}', "is not an ONNX model"),
        (None, "No such file or directory; expected an ONNX model"),
    ],
    ids=["empty", "random", "text", "missing"],
)
def test_what_is_no_model(package: Path, content: bytes | None, says: str) -> None:
    model = package.with_name("model.onnx")
    if content is not None:
        model.write_bytes(content)
    done = aotpack("build", model, "-o", package, "-t", "ort-cpu")
    assert (done.status, done.out) == (1, "")
    assert done.error.startswith(f"{model}: {says}")
    assert not package.exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("-t", "openvino-cpu-avx3"), "unknown target 'openvino-cpu-avx3' (did you mean openvino-cpu-avx2"),
        (("-t", "snapdragon-x-elit"), "(did you mean snapdragon-x-elite"),
        (("-t", "xyz"), "`aotpack targets` lists them"),
        (("-t", "ort-cpu", "-t", "ort-cpu"), "target ort-cpu: is given twice"),
        (("--no-portable",), "no target (give --target"),
        (("-t", "ort-cpu", "--shape", "inptu=1"), "unknown input or symbolic dimension 'inptu'"),
        (("-t", "ort-cpu", "--shape", "input=1"), "--shape input: has 1 sizes; expected 2, the rank"),
        (("-t", "ort-cpu", "--shape", "input=1,577"), "--shape input: sets a size of 576 to 577"),
        (("-t", "ort-cpu", "--shape", "input=1,"), "--shape input=1,: is not a shape; expected NAME=SIZE"),
        (("-t", "ort-cpu", "--memory-limit", "much"), "--memory-limit much: is not a size; expected such as"),
        (("-t", "ort-cpu", "--name", "../up"), "../up: is not a valid package name"),
        (("-t", "ort-cpu", "--time-limit", "-1"), "is no time limit; found -1"),
        (("-t", "ort-cpu", "--memory-limit", "0"), "is no memory limit; found 0"),
        (("-t", "ort-cpu", "--tolerance", "nan"), "is no tolerance; found nan"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_compiled(
    real_model: Callable[[str], Path], package: Path, options: tuple[str, ...], says: str
) -> None:
    done = aotpack("build", real_model("silero_vad_16k_sequence"), "-o", package, *options)
    assert (done.status, done.out) == (2, "")
    assert "Traceback" not in done.err
    assert says in done.err
    assert "running main" not in done.err
    assert not list(package.parent.iterdir())


def test_options_that_are_missing_or_unknown_are_wrong_usage(model: Path) -> None:
    for arguments in (("build", model), ("build",), ("inspect",), ("buidl",), ("select", "--what", "x")):
        done = aotpack(*arguments)
        assert (done.status, done.out) == (2, ""), done
        assert "Traceback" not in done.err


def test_an_output_that_cannot_be_written_is_found_first(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for output, says in (
        (tmp_path / "none" / "new.aotpack", f"{tmp_path}/none: No such file or directory"),
        (tmp_path, "is a folder; expected a file to write the package to"),
        (tmp_path / "file" / "new.aotpack", f"{tmp_path}/file: Not a directory"),
        (Path("/proc/new.aotpack"), "/proc: "),
    ):
        done = aotpack("build", model, "-o", output, "-t", "ort-cpu")
        assert (done.status, done.out) == (1, ""), done
        assert says in done.error
        assert "running main" not in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_keeps_what_was_there(real_model: Callable[[str], Path], small_disk: Path) -> None:
    package = small_disk / "new.aotpack"
    package.write_bytes(OLD_PACKAGE)
    done = aotpack("build", real_model("silero_vad_16k_sequence"), "-o", package)
    assert (done.status, done.out) == (1, "")
    assert done.error == f"{package}: cannot be written: No space left on device"
    assert package.read_bytes() == OLD_PACKAGE
    assert [path.name for path in small_disk.iterdir()] == ["new.aotpack"]


def test_with_a_full_disk_for_the_cache_onnx_is_loaded_from_memory_and_blobs_are_refused_in_one_line(
    real_model: Callable[[str], Path], small_disk: Path, package: Path
) -> None:
    full = {"AOTPACK_CACHE": str(small_disk / "cache")}
    silero = real_model("silero_vad_16k_sequence")
    assert aotpack("build", silero, "-o", package, *SHAPES, "-t", "qnn-htp-v73").status == 0
    done = aotpack("run", package, "--json", env=full)
    assert done.status == 0, done.err
    assert done.document("run")["target"] == "portable"
    done = aotpack("run", package, "--variant", "qnn-htp-v73", "--emulate", env=full)
    assert (done.status, done.out) == (1, "")
    assert f"{small_disk}" in done.error
    assert "bytes free; expected" in done.error


def test_a_full_disk_for_scratch_is_one_line(
    real_model: Callable[[str], Path], small_disk: Path, package: Path
) -> None:
    silero = real_model("silero_vad_16k_sequence")
    scratch = {"AOTPACK_CACHE": str(small_disk / "cache")}
    done = aotpack("build", silero, "-o", package, *SHAPES, "-t", "ort-cpu", env=scratch)
    assert (done.status, done.out) == (1, "")
    assert "No space left on device" in done.error
    assert not package.exists()


def test_a_read_only_disk_is_found_first(model: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    done = aotpack("build", model, "-o", small_disk / "new.aotpack")
    assert (done.status, done.out) == (1, "")
    assert done.error.startswith(f"{small_disk}: Read-only file system (choose a folder that can be written)")


def test_a_file_that_may_not_grow_keeps_what_was_there(
    real_model: Callable[[str], Path], package: Path
) -> None:
    """As a full disk, for those who cannot mount one."""
    silero = real_model("silero_vad_16k_sequence")
    build = ("build", silero, "-o", package, "--compress", "0")
    assert aotpack(*build).status == 0
    # No other file that a build writes is as large as a package that is not compressed.
    limit = package.stat().st_size - 1
    package.write_bytes(OLD_PACKAGE)
    process = subprocess.Popen(
        [sys.executable, "-m", "aotpack", *map(str, build)],
        env=environment({}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    done = finish(process)
    assert (done.status, done.out) == (1, "")
    assert done.error == f"{package}: cannot be written: File too large"
    assert package.read_bytes() == OLD_PACKAGE
    assert [path.name for path in package.parent.iterdir()] == [package.name]


@pytest.fixture(scope="module")
def without_qnn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has all that this one has, but for one vendor's package."""
    folder = tmp_path_factory.mktemp("without") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith("onnxruntime_qnn"):
            (site / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


def test_a_missing_toolchain_fails_its_targets_with_the_pip_command(
    without_qnn: Path, model: Path, package: Path
) -> None:
    done = aotpack(
        "build", model, "-o", package, "-t", "qnn-htp-v73", "-t", "ort-cpu", "--json", python=without_qnn
    )
    assert done.status == 1
    command = "onnxruntime-qnn is not installed (pip install 'aotpack[qnn]')"
    assert command in done.error
    rows = {row["target"]: row for row in done.document("build-report")["rows"]}
    assert {name: row["state"] for name, row in rows.items()} == {
        "qnn-htp-v73": "failed",
        "ort-cpu": "built",
        "portable": "built",
    }
    assert rows["qnn-htp-v73"]["reason"] == command
    targets = aotpack("targets", "--json", python=without_qnn).document("targets")["targets"]
    (v73,) = [each for each in targets if each["name"] == "qnn-htp-v73"]
    assert (v73["can_compile"], v73["can_run"], v73["why"]) == (False, False, command)


def test_a_missing_toolchain_is_a_reason_of_the_selection(
    without_qnn: Path, model: Path, package: Path
) -> None:
    assert aotpack("build", model, "-o", package, "-t", "qnn-htp-v73", "--no-portable").status == 0
    selection = aotpack("select", package, "--json", "--emulate", python=without_qnn).document("selection")
    (candidate,) = selection["candidates"]
    assert (candidate["verdict"], candidate["code"]) == ("UNSUPPORTED", "ep-missing")
    assert "pip install 'aotpack[qnn]'" in candidate["reason"]
    done = aotpack("run", package, "--emulate", python=without_qnn)
    assert done.status == 1
    assert "pip install 'aotpack[qnn]'" in done.error


def wait_until_it_runs(build: subprocess.Popen[str]) -> None:
    assert build.stderr is not None
    said = list(itertools.takewhile(lambda line: not line.startswith("running main"), build.stderr))
    assert build.poll() is None, said


def test_of_two_builds_into_one_file_the_second_is_told(
    real_model: Callable[[str], Path], package: Path
) -> None:
    silero = real_model("silero_vad_16k_sequence")
    first = start("build", silero, "-o", package, *SHAPES, "-t", "qnn-htp-v73", "--no-reuse")
    wait_until_it_runs(first)
    # Stopped, so that it cannot end before the second one has looked.
    first.send_signal(signal.SIGSTOP)
    try:
        second = aotpack("build", silero, "-o", package, *SHAPES)
    finally:
        first.send_signal(signal.SIGCONT)
    assert (second.status, second.out) == (1, "")
    assert second.error == f"{package}: another build is writing it (wait for it, or write elsewhere)"
    assert finish(first).status == 0
    assert aotpack("verify", package).status == 0
    assert [path.name for path in package.parent.iterdir()] == [package.name]


@pytest.mark.parametrize("signal_sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
def test_an_interrupted_build_leaves_the_old_package(
    real_model: Callable[[str], Path], package: Path, tmp_path: Path, signal_sent: signal.Signals
) -> None:
    package.write_bytes(OLD_PACKAGE)
    cache = tmp_path / "cache"
    silero = real_model("silero_vad_16k_sequence")
    process = start(
        *("build", silero, "-o", package, *SHAPES, "-t", "qnn-htp-v73", "-t", "qnn-htp-v75"),
        env={"AOTPACK_CACHE": str(cache)},
    )
    wait_until_it_runs(process)
    time.sleep(0.5)
    process.send_signal(signal_sent)
    done = finish(process, timeout=30)
    assert done.status == {signal.SIGINT: 130}.get(signal_sent, -signal_sent)
    assert "Traceback" not in done.err
    assert package.read_bytes() == OLD_PACKAGE
    if signal_sent == signal.SIGINT:
        assert list((cache / "builds").iterdir()) == []
    again = aotpack("build", silero, "-o", package, *SHAPES, env={"AOTPACK_CACHE": str(cache)})
    assert again.status == 0, again.err
    assert list((cache / "builds").iterdir()) == [], "what was left is swept"
    assert aotpack("verify", package).status == 0
