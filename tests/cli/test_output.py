"""What is in the way of an output: a package is replaced, all else is not."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aotpack.builder.build import build
from aotpack.container.reader import PackageReader
from aotpack.errors import OutputError
from aotpack.runtime import edit
from aotpack.runtime.package import Package
from tests.command_line import ROOT, aotpack, environment
from tests.container.packages import package as made_package

NOTES = b"ten years of work"


@pytest.fixture(scope="module")
def package(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "m.aotpack"
    assert aotpack("build", small_model, "-o", path, "-t", "portable").status == 0
    return path


@pytest.mark.parametrize("verb", ["build", "merge", "prune", "refresh", "add"])
def test_a_file_that_is_not_a_package_is_not_replaced(
    package: Path, small_model: Path, tmp_path: Path, verb: str
) -> None:
    arguments = {
        "build": ("build", small_model, "-t", "portable"),
        "merge": ("merge", package),
        "prune": ("prune", package, "--keep", "portable"),
        "refresh": ("refresh", package),
        "add": ("add", package, "-t", "ort-cpu"),
    }[verb]
    output = tmp_path / "notes.txt"
    output.write_bytes(NOTES)
    done = aotpack(*arguments, "-o", output)
    assert done.error == (
        f"{output}: is a file that is not a package, and would be lost "
        "(write to another file, or give --force (force=True) to replace it)"
    )
    assert output.read_bytes() == NOTES
    assert aotpack(*arguments, "-o", output, "--force").status == 0
    assert aotpack("verify", output).status == 0
    # A package is replaced, and so is an empty file, such as tempfile makes.
    assert aotpack(*arguments, "-o", output).status == 0
    output.write_bytes(b"")
    assert aotpack(*arguments, "-o", output).status == 0
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_so_it_is_in_python(package: Path, small_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "notes.txt"
    output.write_bytes(NOTES)
    with PackageReader.open(package) as reader:
        calls: list[Callable[[], object]] = [
            lambda: build(small_model, targets=["portable"], output=output),
            lambda: edit.merge([reader], output),
            lambda: edit.prune(reader, output, keep=["portable"]),
        ]
        for call in calls:
            with pytest.raises(OutputError, match="is a file that is not a package"):
                call()
        assert output.read_bytes() == NOTES
        edit.merge([reader], output, force=True)
    assert aotpack("verify", output).status == 0


_EXTRACT = """
import sys, time
from pathlib import Path
from aotpack.container.reader import PackageReader
from aotpack.runtime.package import Package

copy = PackageReader.copy_file
def slow(*arguments):
    copy(*arguments)
    print("copied", flush=True)
    time.sleep(60)
PackageReader.copy_file = slow
with PackageReader.open(Path(sys.argv[1])) as reader:
    Package(reader).extract("a", sys.argv[2])
"""


def test_what_a_killed_extract_left_is_swept_by_the_next(tmp_path: Path) -> None:
    path = made_package(tmp_path, {"main": {"a": {"m.onnx": b"a", "m.bin": bytes(100_000)}}})
    parent = tmp_path / "out"
    parent.mkdir()
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", _EXTRACT, path, parent / "a"],
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=ROOT,
                    env=environment({}),
                )
            )
            for _ in range(2)
        ]
        for process in processes:
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "copied\n"
        assert len(list(parent.iterdir())) == 2
        processes[0].kill()
        processes[0].wait()
        with PackageReader.open(path) as reader:
            Package(reader).extract("a", parent / "a")
        # The folder of the one that is alive is left alone.
        assert len(list(parent.iterdir())) == 2
    with PackageReader.open(path) as reader:
        with pytest.raises(OutputError, match="exists already"):
            Package(reader).extract("a", parent / "a")
        Package(reader).extract("a", parent / "b")
