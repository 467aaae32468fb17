"""As on Windows: no file that is open can be renamed, replaced or removed, and some modules are not there."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aotpack.cache.variants import Cache
from aotpack.container.reader import PackageReader
from aotpack.errors import OutputError
from aotpack.runtime import edit
from tests.container.packages import Files, contents_of, package

ROOT = Path(__file__).parents[2]
NOISE = random.Random(9).randbytes(600_000)
ONE: Files = {"main": {"a": {"m.onnx": b"a", "m.bin": NOISE}}}
TWO: Files = {"main": {"b": {"m.onnx": b"b", "m.bin": b"b" + NOISE}}}


def is_open(path: Path) -> bool:
    """Whether this process has the file open, or one in the folder."""
    inside = [Path(place, name) for place, _, names in os.walk(path) for name in names] or [path]
    wanted = set()
    for each in inside:
        with contextlib.suppress(OSError):
            status = each.lstat()
            wanted.add((status.st_dev, status.st_ino))
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            status = os.fstat(int(fd.name))
            if (status.st_dev, status.st_ino) in wanted:
                return True
    return False


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rename", "replace", "unlink"):
        real = getattr(os, name)

        def guarded(*paths: Path, _real=real, **options) -> None:
            if any(isinstance(path, str | Path) and is_open(Path(path)) for path in paths):
                raise PermissionError(13, "is being used by another process")
            _real(*paths, **options)

        monkeypatch.setattr(os, name, guarded)
    for name in ("pread", "preadv", "pwrite", "pwritev", "O_NOFOLLOW", "fdatasync"):
        monkeypatch.delattr(os, name)
    monkeypatch.setattr(sys, "platform", "win32")


@pytest.mark.usefixtures("windows")
def test_a_package_is_written_over_one_that_it_is_made_of(tmp_path: Path) -> None:
    one, two = package(tmp_path, ONE, name="one"), package(tmp_path, TWO, name="two")
    alias = tmp_path / "folder" / ".." / "one.aotpack"
    alias.parent.parent.mkdir()
    with PackageReader.open(alias) as first, PackageReader.open(two) as second:
        edit.merge([first, second], one)
    assert contents_of(one) == {"main": {**ONE["main"], **TWO["main"]}}
    with PackageReader.open(one) as both:
        edit.prune(both, one, keep=["b"])
    assert contents_of(one) == TWO
    with PackageReader.open(two), pytest.raises(OutputError, match="is being used by another process"):
        package(tmp_path, ONE, name="one", output=two)
    assert contents_of(two) == TWO
    assert not list(tmp_path.glob(".*"))


@pytest.mark.usefixtures("windows")
def test_a_variant_that_a_session_has_open(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    with PackageReader.open(package(tmp_path, ONE)) as reader:
        (component,) = reader.manifest.components
        (variant,) = component.variants
        folder = cache.materialise(reader, component, variant)
        with (folder / "m.bin").open("rb"):
            assert cache.materialise(reader, component, variant) == folder
            os.utime(folder / "m.onnx", (1, 1))
            assert cache.materialise(reader, component, variant) == folder
            with pytest.raises(OutputError, match="main/a of sample cannot be removed: is being used"):
                cache.prune(0)
        assert [entry.variant for entry in cache.prune(0)] == ["a"]
    shutil.rmtree(cache.root)


def test_every_module_can_be_imported_without_what_windows_lacks() -> None:
    script = """
import importlib, pkgutil, sys

# What others wrote chooses its own way by the platform; let it choose the one that works here.
import filelock, multiprocessing, onnx, platformdirs, psutil, subprocess, typer
from pydantic import BaseModel

sys.platform = "win32"
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None

import aotpack

for module in pkgutil.walk_packages(aotpack.__path__, "aotpack."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print("all")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "all\n", done.stderr
