"""Killed at any moment, and on a full disk: the old file or the new one, and nothing else for long."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aotpack.cache.variants import Cache
from aotpack.container.partial import SUFFIX, replacing
from aotpack.container.reader import PackageReader
from aotpack.errors import OutputError
from aotpack.runtime import edit
from aotpack.runtime.package import Package
from tests.container.packages import Files, package
from tests.disks import mounted

NOISE = random.Random(11).randbytes(6_000_000)
FILES: Files = {
    "main": {
        "a": {"m.onnx": b"a", "m.bin": NOISE},
        "b": {"m.onnx": b"b", "m.bin": NOISE[:3_000_000] + b"b" * 1_000_000},
    }
}
OTHER: Files = {"main": {"c": {"m.onnx": b"c", "m.bin": b"c" + NOISE}}}
#: So many of each verb that hit: what was done before its moment came does not count.
KILLS = [25, pytest.param(100, marks=pytest.mark.long)]


def started(work: Callable[[], object]) -> int:
    """The process that does `work`."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            work()
        os._exit(0)
    return child


def is_killed(work: Callable[[], object], seconds: float) -> bool:
    """Do `work` in a process that is killed after so long; whether it was still at it."""
    child = started(work)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def killing(
    work: Callable[[], object], kills: int, prepare: Callable[[], object] = lambda: None
) -> Iterator[int]:
    """Kill `work` at random moments until it was hit so often; gives how often, after each try.

    The moments are spread over the whole of it, so that some come when it is done; those do not count.
    """
    took: list[float] = []

    def measure() -> None:
        prepare()
        start = time.perf_counter()
        # In a process like those that are killed: it takes longer than here, where all is warm.
        os.waitpid(started(work), 0)
        took.append(time.perf_counter() - start)

    for _ in range(5):
        measure()
    pick = random.Random(1)
    killed = 0
    for number in range(10 * kills):
        if number % 10 == 9:
            # On a busy machine it takes longer at times than at others.
            measure()
        prepare()
        killed += is_killed(work, pick.uniform(0, statistics.median(took[-5:])))
        yield killed
        if killed == kills:
            return
    pytest.fail(f"of {10 * kills} moments only {killed} came in time")


def litter(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.endswith(SUFFIX)]


@pytest.mark.parametrize("kills", KILLS)
@pytest.mark.parametrize("verb", ["write", "merge", "prune"])
def test_a_killed_writer_leaves_the_old_package_or_the_new(tmp_path: Path, verb: str, kills: int) -> None:
    one, other = package(tmp_path, FILES, name="one"), package(tmp_path, OTHER, name="other")
    folder = tmp_path / "out"
    folder.mkdir()
    output = folder / "out.aotpack"

    def work() -> None:
        with PackageReader.open(one) as first, PackageReader.open(other) as second:
            if verb == "write":
                package(tmp_path, FILES, name="one", output=output)
            elif verb == "merge":
                edit.merge([first, second], output)
            else:
                edit.prune(first, output, keep=["a"])

    work()
    old, new = other.read_bytes(), output.read_bytes()
    for killed in killing(work, kills, lambda: output.write_bytes(old)):
        assert output.read_bytes() in (old, new)
        assert len(litter(folder)) <= 1
        if killed % 5 == 0:
            work()
            assert output.read_bytes() == new
            assert litter(folder) == []
    work()
    assert litter(folder) == []


@pytest.mark.parametrize("kills", KILLS)
def test_a_killed_materialise_leaves_a_cache_that_works(tmp_path: Path, kills: int) -> None:
    path = package(tmp_path, FILES)
    root = tmp_path / "cache"

    def work() -> None:
        with PackageReader.open(path) as reader:
            component = reader.manifest.components[0]
            for variant in component.variants:
                Cache(root).materialise(reader, component, variant)

    def holds() -> dict[str, dict[str, bytes]]:
        return {
            entry.variant: {str(p.relative_to(entry.path)): p.read_bytes() for p in entry.path.rglob("*")}
            for entry in Cache(root).entries()
        }

    for killed in killing(work, kills, lambda: Cache(root).prune(0)):
        assert holds().items() <= FILES["main"].items()
        if killed % 5 == 0:
            work()
            assert holds() == FILES["main"]
    Cache(root).prune()
    assert list((root / "work").iterdir()) == []
    work()
    assert holds() == FILES["main"]
    assert Cache(root).verify() == []


@pytest.mark.parametrize("kills", KILLS)
def test_a_killed_prune_leaves_a_cache_that_works(tmp_path: Path, kills: int) -> None:
    path = package(tmp_path, FILES)
    root = tmp_path / "cache"

    def fill() -> None:
        with PackageReader.open(path) as reader:
            component = reader.manifest.components[0]
            for variant in component.variants:
                folder = Cache(root).materialise(reader, component, variant)
                found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*")}
                assert found == FILES["main"][variant.id]

    for _ in killing(lambda: Cache(root).prune(0), kills, fill):
        assert Cache(root).verify() == []
    fill()
    Cache(root).prune(0)
    assert Cache(root).size() == 0
    assert list((root / "work").iterdir()) == list((root / "files").iterdir()) == []


def test_a_writer_leaves_the_partial_file_of_a_living_one_alone(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with replacing(output) as first:
        with replacing(output) as second:
            os.write(second.fd, b"second")
        assert first.path.exists()
        assert output.read_bytes() == b"second"
        os.write(first.fd, b"first")
    assert output.read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.write_bytes(b"old")
    with pytest.raises(KeyError), replacing(output) as partial:
        os.write(partial.fd, b"half")
        raise KeyError
    assert output.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_link_points_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").write_bytes(b"old")
    (tmp_path / "link").symlink_to("folder/old")
    (tmp_path / "new").symlink_to("folder/new")
    for name in ("link", "new"):
        with replacing(tmp_path / name) as partial:
            os.write(partial.fd, b"bytes")
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / name).read_bytes() == b"bytes"
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["new", "old"]


def test_an_output_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    for output, match in (
        (tmp_path / "nowhere" / "out", "No such file"),
        (tmp_path / "file" / "out", "Not a directory"),
        (tmp_path / ("x" * 300), "File name too long"),
        (tmp_path, "is a folder"),
        (tmp_path / "pipe", "is a device or a pipe"),
        (tmp_path / "null", "is a device or a pipe"),
    ):
        with pytest.raises(OutputError, match=match), replacing(output):
            pass
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "null").is_char_device()


@contextlib.contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """As on a full disk, each write beyond `size` fails; the kernel's own way to make one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_writes_that_fail_half_way_leave_what_was(tmp_path: Path) -> None:
    path = package(tmp_path, FILES)
    before = path.read_bytes()
    with PackageReader.open(path) as reader:
        with files_no_larger_than(2_000_000), pytest.raises(OutputError, match="File too large"):
            edit.prune(reader, path, keep=["a"])
        assert path.read_bytes() == before
        assert litter(tmp_path) == []
        component = reader.manifest.components[0]
        cache = Cache(tmp_path / "cache")
        with files_no_larger_than(2_000_000), pytest.raises(OutputError, match="File too large"):
            cache.materialise(reader, component, component.variants[0])
        assert cache.entries() == []
        assert list((cache.root / "work").iterdir()) == []
        cache.materialise(reader, component, component.variants[0])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB."""
    with mounted("tmpfs", 3, tmp_path) as folder:
        yield folder


def test_a_full_disk(tmp_path: Path, small_disk: Path) -> None:
    path = package(tmp_path, FILES)
    old = small_disk / "out.aotpack"
    package(tmp_path, {"main": {"a": {"m.onnx": b"old"}}}, name="old", output=old)
    before = old.read_bytes()
    with PackageReader.open(path) as reader, PackageReader.open(old) as small:
        for verb in (
            lambda: package(tmp_path, FILES, output=old),
            lambda: edit.prune(reader, old, keep=["a"]),
            lambda: edit.merge([reader, reader], old),
        ):
            with pytest.raises(OutputError, match="No space left on device"):
                verb()
            assert old.read_bytes() == before
        with pytest.raises(OutputError, match="the disk is too small"):
            Package(reader).extract("a", small_disk / "a")
        assert list(small_disk.iterdir()) == [old]
        small.verify()
        component = reader.manifest.components[0]
        cache = Cache(small_disk / "cache")
        with pytest.raises(OutputError, match="the disk is too small"):
            cache.materialise(reader, component, component.variants[0])
        assert cache.entries() == []
        assert cache.size() == 0
