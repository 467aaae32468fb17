from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import shutil
import socket
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from aotpack.cache.variants import DEFAULT_LIMIT, Cache
from aotpack.container.reader import PackageReader
from aotpack.errors import DigestMismatch, OutputError, UsageError
from tests.container.packages import Files, package

WEIGHTS = random.Random(7).randbytes(3_000_000)
FILES: Files = {
    "main": {
        "a": {"model.onnx": b"onnx a", "weights/model.bin": WEIGHTS},
        "b": {"model.onnx": b"onnx b", "weights/model.bin": WEIGHTS},
        "c": {"model.onnx": b"onnx c", "model.bin": WEIGHTS[::-1]},
    }
}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[PackageReader]:
    with PackageReader.open(package(tmp_path, FILES)) as reader:
        yield reader


def load(cache: Cache, reader: PackageReader, variant: str = "a") -> Path:
    component = reader.manifest.components[0]
    return cache.materialise(reader, component, next(v for v in component.variants if v.id == variant))


def read(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_files_are_there(cache: Cache, reader: PackageReader) -> None:
    assert read(load(cache, reader)) == FILES["main"]["a"]


def test_the_second_time_nothing_is_read(cache: Cache, reader: PackageReader) -> None:
    folder = load(cache, reader)
    before = (folder / "model.onnx").stat()
    reader.close()
    assert load(cache, reader) == folder
    assert (folder / "model.onnx").stat().st_ino == before.st_ino


def test_equal_files_of_two_variants_are_stored_once(cache: Cache, reader: PackageReader) -> None:
    a, b = load(cache, reader, "a"), load(cache, reader, "b")
    assert read(b) == FILES["main"]["b"]
    assert (a / "weights/model.bin").samefile(b / "weights/model.bin")
    assert cache.size() == len(WEIGHTS) + 12
    assert [entry.size for entry in cache.entries()] == [len(WEIGHTS) + 6] * 2


@pytest.mark.parametrize("damage", ["flip", "truncate", "append", "remove", "link"])
def test_a_damaged_file_is_put_right(
    cache: Cache, reader: PackageReader, tmp_path: Path, damage: str
) -> None:
    file = load(cache, reader) / "weights/model.bin"
    file.chmod(0o644)
    if damage == "flip":
        with file.open("r+b") as f:
            f.seek(1_000_000)
            f.write(bytes([WEIGHTS[1_000_000] ^ 1]))
    elif damage == "truncate":
        os.truncate(file, 1000)
    elif damage == "append":
        with file.open("ab") as f:
            f.write(b"x")
    else:
        file.unlink()
        if damage == "link":
            (tmp_path / "elsewhere").write_bytes(WEIGHTS)
            file.symlink_to(tmp_path / "elsewhere")
    assert read(load(cache, reader)) == FILES["main"]["a"]
    assert not (load(cache, reader) / "weights/model.bin").is_symlink()


def test_a_file_that_was_only_touched_is_kept(cache: Cache, reader: PackageReader) -> None:
    file = load(cache, reader) / "weights/model.bin"
    inode = file.stat().st_ino
    os.utime(file, ns=(1, 1))
    assert load(cache, reader) / "weights/model.bin" == file
    assert file.stat().st_ino == inode
    assert not list((cache.root / "work").iterdir())


def test_a_lost_stamp_is_made_again(cache: Cache, reader: PackageReader) -> None:
    folder = load(cache, reader)
    (folder.parent / "stamp.json").write_bytes(b"{")
    assert read(load(cache, reader)) == FILES["main"]["a"]


def test_verify_finds_what_is_damaged(cache: Cache, reader: PackageReader) -> None:
    load(cache, reader, "c")
    file = load(cache, reader) / "weights/model.bin"
    status = file.stat()
    file.chmod(0o644)
    with file.open("r+b") as f:
        f.write(bytes([WEIGHTS[0] ^ 1]))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert [entry.variant for entry in cache.verify()] == ["a"]
    assert [entry.variant for entry in cache.entries()] == ["c"]
    assert read(load(cache, reader)) == FILES["main"]["a"]
    assert cache.verify() == []


def test_the_least_recently_used_goes_first(cache: Cache, reader: PackageReader) -> None:
    for age, variant in ((300, "a"), (200, "c"), (100, "b")):
        stamp = load(cache, reader, variant).parent / "stamp.json"
        os.utime(stamp, (stamp.stat().st_atime - age, stamp.stat().st_mtime - age))
    load(cache, reader, "a")
    assert [entry.variant for entry in cache.entries()] == ["c", "b", "a"]
    assert [entry.variant for entry in cache.prune(len(WEIGHTS) + 100)] == ["c"]
    assert [entry.variant for entry in cache.prune(0)] == ["b", "a"]
    assert cache.size() == 0
    assert list((cache.root / "files").iterdir()) == []


def test_what_was_used_in_the_future_goes_too(cache: Cache, reader: PackageReader) -> None:
    stamp = load(cache, reader).parent / "stamp.json"
    os.utime(stamp, (2**32, 2**32))
    assert [entry.variant for entry in cache.prune(0)] == ["a"]


def test_the_limit_holds_while_loading(tmp_path: Path, reader: PackageReader) -> None:
    cache = Cache(tmp_path / "cache", limit=len(WEIGHTS) + 100)
    stamp = load(cache, reader, "a").parent / "stamp.json"
    load(cache, reader, "c")
    # What was used a moment ago may be about to be loaded.
    assert len(cache.entries()) == 2
    os.utime(stamp, (1, 1))
    load(cache, reader, "b")
    assert [entry.variant for entry in cache.entries()] == ["c", "b"]


def test_a_damaged_package_leaves_nothing(cache: Cache, reader: PackageReader, tmp_path: Path) -> None:
    path = tmp_path / "sample.aotpack"
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)
    with PackageReader.open(path) as damaged:
        with pytest.raises(DigestMismatch, match="segments"):
            load(cache, damaged, "c")
        assert read(load(cache, damaged, "a")) == FILES["main"]["a"]
    assert not list((cache.root / "work").iterdir())


def test_litter_of_the_dead_is_swept(cache: Cache, reader: PackageReader) -> None:
    load(cache, reader)
    litter = cache.root / "work" / ("00" * 32)
    litter.mkdir()
    (litter / "file").write_bytes(b"half")
    cache.prune()
    assert not litter.exists()


def test_a_cache_that_cannot_be_made(tmp_path: Path, reader: PackageReader) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="Not a directory"):
        load(Cache(tmp_path / "file" / "cache"), reader)


@pytest.mark.parametrize("rot", ["size", "cut", "gone"])
def test_a_rotten_stamp_costs_its_variant_and_no_more(cache: Cache, reader: PackageReader, rot: str) -> None:
    load(cache, reader, "c")
    stamp = load(cache, reader).parent / "stamp.json"
    text = stamp.read_text()
    if rot == "size":
        # So many bytes are not there to be read, nor is the memory for them.
        stamp.write_text(text.replace('"segments":[[', '"segments":[[99999999999', 1))
    elif rot == "cut":
        stamp.write_text(text[:100])
    else:
        stamp.unlink()
    cache.verify()
    assert [entry.variant for entry in cache.entries()] == ["c"]
    assert not stamp.parent.exists()
    assert read(load(cache, reader)) == FILES["main"]["a"]


def test_what_cannot_be_removed_stays_and_is_told_by_prune_alone(
    tmp_path: Path, reader: PackageReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path / "cache", limit=len(WEIGHTS) + 100)
    held = load(cache, reader, "a").parent
    os.utime(held / "stamp.json", (1, 1))
    rename = Path.rename

    def as_on_windows(path: Path, to: Path) -> Path:
        if path == held:
            raise PermissionError(13, "is open in another program")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", as_on_windows)
    # Loading another one needs room; that there is none to be had is no reason to fail.
    assert read(load(cache, reader, "c")) == FILES["main"]["c"]
    assert len(cache.entries()) == 2
    with pytest.raises(OutputError, match="main/a of sample cannot be removed: is open in another"):
        cache.prune(0)
    # What could be removed was.
    assert [entry.variant for entry in cache.entries()] == ["a"]


@pytest.mark.parametrize("folder", ["variants", "locks", "files", "work"])
@pytest.mark.parametrize("instead", ["file", "link", "pipe"])
def test_what_stands_in_place_of_a_folder_is_put_right(
    cache: Cache, reader: PackageReader, tmp_path: Path, folder: str, instead: str
) -> None:
    load(cache, reader)
    place, elsewhere = cache.root / folder, tmp_path / "elsewhere"
    shutil.rmtree(place)
    elsewhere.mkdir()
    (elsewhere / ("00" * 32)).write_bytes(b"of the user")
    if instead == "file":
        place.touch()
    elif instead == "link":
        place.symlink_to(elsewhere)
    else:
        os.mkfifo(place)
    for verb in (cache.entries, cache.size, lambda: cache.prune(0), cache.verify):
        verb()
    assert read(load(cache, reader, "c")) == FILES["main"]["c"]
    assert cache.prune(0)
    assert read(elsewhere) == {"00" * 32: b"of the user"}


@pytest.mark.parametrize("kind", ["folder", "pipe", "socket", "link", "dangling link"])
@pytest.mark.parametrize("where", ["file", "stamp", "lock", "entry", "twin", "tag"])
def test_what_stands_in_place_of_a_file_is_put_right(
    cache: Cache, reader: PackageReader, tmp_path: Path, where: str, kind: str
) -> None:
    entry = load(cache, reader).parent
    (twin,) = (path for path in (cache.root / "files").iterdir() if path.stat().st_size > 100)
    places = {
        "file": entry / "files" / "model.onnx",
        "stamp": entry / "stamp.json",
        "lock": cache.root / "locks" / f"{entry.name[:2]}.lock",
        "entry": entry,
        "twin": twin,
        "tag": cache.root / "CACHEDIR.TAG",
    }
    (tmp_path / "elsewhere").write_bytes(b"of the user")
    if where in ("lock", "twin"):
        # Otherwise nobody looks at them.
        shutil.rmtree(entry)
    place = places[where]
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
    if kind == "folder":
        place.mkdir()
        (place / "file").touch()
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "socket":
        with contextlib.chdir(place.parent), socket.socket(socket.AF_UNIX) as listening:
            listening.bind(place.name)
    else:
        place.symlink_to(tmp_path / ("elsewhere" if kind == "link" else "nowhere"))
    for _ in range(2):
        assert read(load(cache, reader)) == FILES["main"]["a"]
        assert read(load(cache, reader, "b")) == FILES["main"]["b"]
    cache.verify()
    assert {entry.variant for entry in cache.entries()} == {"a", "b"}
    assert (tmp_path / "elsewhere").read_bytes() == b"of the user"
    assert not (tmp_path / "nowhere").exists()
    assert {entry.variant for entry in cache.prune(0)} == {"a", "b"}


def test_a_change_with_its_mtime_put_back_is_seen(cache: Cache, reader: PackageReader) -> None:
    file = load(cache, reader) / "weights/model.bin"
    status = file.stat()
    file.chmod(0o644)
    with file.open("r+b") as f:
        f.write(bytes([WEIGHTS[0] ^ 1]))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert read(load(cache, reader)) == FILES["main"]["a"]


def test_links_between_variants_leave_stamps_right(
    cache: Cache, reader: PackageReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(cache, reader, "a")
    b = load(cache, reader, "b")
    (other,) = (entry for entry in cache.entries() if entry.variant == "a")
    # Each has a link to the weights of the other; neither is read again.
    reader.close()
    assert load(cache, reader, "a") == other.path
    assert load(cache, reader, "b") == b
    os.utime(b.parent / "stamp.json", (1, 1))
    assert [entry.variant for entry in cache.prune(len(WEIGHTS) + 6)] == ["b"]
    assert load(cache, reader, "a") == other.path


@pytest.mark.parametrize("names", [["thesis.txt"], ["files/thesis.txt"], ["variants/blue/thesis.txt", "x"]])
def test_a_folder_with_something_else_is_refused(
    tmp_path: Path, reader: PackageReader, names: list[str]
) -> None:
    for name in names:
        (tmp_path / "home" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "home" / name).write_bytes(b"ten years")
    cache = Cache(tmp_path / "home")
    for verb in (lambda: load(cache, reader), lambda: cache.prune(0), cache.verify, cache.entries):
        with pytest.raises(UsageError, match="home: is neither empty nor a cache of aotpack"):
            verb()
    assert read(tmp_path / "home") == dict.fromkeys(names, b"ten years")


def test_what_is_not_of_the_cache_stays_in_it(cache: Cache, reader: PackageReader) -> None:
    load(cache, reader)
    assert (
        (cache.root / "CACHEDIR.TAG").read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55")
    )
    strange = ["mine.txt", "files/mine.txt", "variants/blue/mine", "work/mine/x", "answers/mine.json"]
    for name in strange:
        (cache.root / name).parent.mkdir(parents=True, exist_ok=True)
        (cache.root / name).write_bytes(b"{")
    cache.prune(0)
    cache.verify()
    assert all((cache.root / name).exists() for name in strange)
    assert cache.size() == 0


def test_a_cache_of_an_earlier_release_is_taken_over(cache: Cache, reader: PackageReader) -> None:
    entry = load(cache, reader).parent
    (cache.root / "CACHEDIR.TAG").unlink()
    # A stamp without ctime vouches for nothing; the bytes are right all the same.
    stamp = json.loads((entry / "stamp.json").read_bytes())
    for file in stamp["files"]:
        del file["ctime_ns"]
    (entry / "stamp.json").write_text(json.dumps(stamp))
    inode = (entry / "files/model.onnx").stat().st_ino
    assert [each.variant for each in cache.entries()] == ["a"]
    assert (load(cache, reader) / "model.onnx").stat().st_ino == inode
    assert (cache.root / "CACHEDIR.TAG").is_file()
    assert "ctime_ns" in (entry / "stamp.json").read_text()


def test_what_builds_keep_is_counted_and_removed(cache: Cache, reader: PackageReader) -> None:
    load(cache, reader)
    before = cache.size()
    key, short = "ab" * 32, "cd" * 16
    for name in (
        f"results/{key}/done.json",
        f"results/history/{short}.json",
        f"sent/{key}",
        f"builds/{short}/x",
    ):
        (cache.root / name).parent.mkdir(parents=True, exist_ok=True)
        (cache.root / name).write_bytes(b"{}" * 500)
    (cache.root / "builds" / f"{short}.lock").touch()
    assert cache.size() == before + 4000
    cache.prune(0)
    assert cache.size() == 0
    left = [path for path in cache.root.rglob("*") if path.is_file()]
    assert left == [cache.root / "CACHEDIR.TAG"]


def test_the_environment_chooses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AOTPACK_CACHE", str(tmp_path / "here"))
    monkeypatch.setenv("AOTPACK_CACHE_LIMIT", "20G")
    assert (Cache().root, Cache().limit) == (tmp_path / "here", 20 * 1000**3)
    for text, size in (("1.5MiB", 3 << 19), ("700", 700), ("2 tb", 2 * 1000**4)):
        monkeypatch.setenv("AOTPACK_CACHE_LIMIT", text)
        assert Cache().limit == size
    for text in ("plenty", "-5", "1e3", "1" * 400):
        monkeypatch.setenv("AOTPACK_CACHE_LIMIT", text)
        with pytest.raises(UsageError, match=f"AOTPACK_CACHE_LIMIT {text}: is not a size; expected such as"):
            Cache()
    monkeypatch.delenv("AOTPACK_CACHE_LIMIT")
    assert Cache().limit == DEFAULT_LIMIT


def _load_in_a_process(path: Path, root: Path, barrier: Barrier, answers: multiprocessing.Queue) -> None:
    copied = 0

    class Counting(PackageReader):
        def copy_file(self, *arguments) -> None:
            nonlocal copied
            copied += 1
            super().copy_file(*arguments)

    with Counting.open(path) as reader:
        barrier.wait(60)
        folder = load(Cache(root), reader)
        answers.put((copied, read(folder) == FILES["main"]["a"]))


def test_sixteen_processes_do_the_work_once(tmp_path: Path) -> None:
    path = package(tmp_path, FILES)
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(16), context.Queue()
    processes = [
        context.Process(target=_load_in_a_process, args=(path, tmp_path / "cache", barrier, answers))
        for _ in range(16)
    ]
    for process in processes:
        process.start()
    results = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert all(right for _, right in results)
    assert sorted(copied for copied, _ in results) == [0] * 15 + [2]


def test_the_key_covers_what_a_session_is_made_of(cache: Cache, reader: PackageReader) -> None:
    (component,) = reader.manifest.components
    first = component.variants[0]
    session = first.session
    others = [
        first.replace(session=session.replace(**change))
        for change in (
            {"provider_options": {"a": "1"}},
            {"provider_options": {"a": "2"}},
            {"config": {"a": "1"}},
            {"graph_optimization": "disabled"},
        )
    ] + [first.replace(**change) for change in ({"ep": "x"}, {"device": "npu"}, {"toolchain": "x"})]
    folders = {cache.materialise(reader, component, each) for each in (first, *others, first)}
    assert len(folders) == len(others) + 1
