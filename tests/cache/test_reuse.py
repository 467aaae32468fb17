"""Segments that the cache has already are taken from there, and take no room where blocks can be shared."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from aotpack.cache.reuse import reusable
from aotpack.cache.stamp import Stamp
from aotpack.cache.variants import Cache
from aotpack.container.reader import PackageReader
from tests.container.packages import Files, package
from tests.disks import mounted, taken

SHARED = random.Random(5).randbytes(8_000_000)
HEAD = random.Random(6).randbytes(5000)
#: Three blobs that share their weights: in two they stand at like places of a page, in the third they do not.
FILES: Files = {
    "main": {
        "a": {"m.onnx": b"a", "m.bin": HEAD + SHARED},
        "b": {"m.onnx": b"b", "m.bin": HEAD[::-1] + SHARED},
        "c": {"m.onnx": b"c", "m.bin": b"c" + HEAD + SHARED},
    }
}


def load(cache: Cache, path: Path, variant: str) -> Path:
    with PackageReader.open(path) as reader:
        (component,) = reader.manifest.components
        return cache.materialise(reader, component, next(v for v in component.variants if v.id == variant))


def is_right(folder: Path, variant: str) -> bool:
    return {p.name: p.read_bytes() for p in folder.iterdir()} == FILES["main"][variant]


@pytest.mark.parametrize("compress", [None, 3])
def test_what_the_cache_has_is_not_read_from_the_package(tmp_path: Path, compress: int | None) -> None:
    path, cache = package(tmp_path, FILES, compress=compress), Cache(tmp_path / "cache")
    load(cache, path, "a")
    with PackageReader.open(path) as reader:
        large = [segment for segment in reader.manifest.segments if segment.size > 2_000_000]
    assert large
    with path.open("r+b") as file:
        for segment in large:
            file.seek(segment.offset)
            file.write(bytes(1000))
    for variant in ("b", "c"):
        assert is_right(load(cache, path, variant), variant)


def test_a_range_that_is_not_what_its_stamp_says_is_passed_over(tmp_path: Path) -> None:
    path, cache = package(tmp_path, FILES), Cache(tmp_path / "cache")
    lent = load(cache, path, "a") / "m.bin"
    status = lent.stat()
    lent.chmod(0o644)
    with lent.open("r+b") as file:
        file.seek(4_000_000)
        file.write(b"rotten")
    os.utime(lent, ns=(status.st_atime_ns, status.st_mtime_ns))
    # As where the disk itself has rotted: the stamp is right.
    stamp = Stamp.read(lent.parents[1] / "stamp.json")
    assert stamp is not None
    files = tuple(file.now(lent.parent) for file in stamp.files)
    (lent.parents[1] / "stamp.json").write_text(stamp.replace(files=files).to_json())
    with PackageReader.open(path) as reader:
        other = next(v for v in reader.manifest.variants() if v.id == "b")
        assert reusable(other, reader.manifest, [lent.parents[1]])
    assert is_right(load(cache, path, "b"), "b")
    assert [entry.variant for entry in cache.verify()] == ["a"]


def test_a_file_that_was_changed_is_not_reused(tmp_path: Path) -> None:
    path, cache = package(tmp_path, FILES), Cache(tmp_path / "cache")
    lent = load(cache, path, "a") / "m.bin"
    os.utime(lent, ns=(1, 1))
    with PackageReader.open(path) as reader:
        other = next(v for v in reader.manifest.variants() if v.id == "b")
        assert reusable(other, reader.manifest, [lent.parents[1]]) == {}


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_what_variants_share_is_on_the_disk_once(tmp_path: Path, kind: str) -> None:
    path = package(tmp_path, FILES, compress=None)
    with mounted(kind, 400, tmp_path) as disk:
        cache = Cache(disk / "cache")
        load(cache, path, "a")
        before = taken(disk)
        assert is_right(load(cache, path, "b"), "b")
        assert taken(disk) - before < 1_000_000
        # At another place in a page blocks cannot be shared; it is copied.
        assert is_right(load(cache, path, "c"), "c")
        assert taken(disk) - before > 7_000_000
        assert cache.verify() == []


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_raw_segments_are_shared_with_the_package(tmp_path: Path, kind: str) -> None:
    with mounted(kind, 400, tmp_path) as disk:
        path = package(disk, FILES, compress=None)
        before = taken(disk)
        folder = load(Cache(disk / "cache"), path, "a")
        assert is_right(folder, "a")
        assert taken(disk) - before < 1_000_000
        # What is shared is shared until one of the two is written.
        with path.open("r+b") as file:
            file.seek(1_000_000)
            file.write(bytes(4_000_000))
        assert is_right(folder, "a")


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_a_damaged_raw_segment_is_refused_where_it_could_be_cloned(tmp_path: Path, kind: str) -> None:
    from aotpack.errors import DigestMismatch

    with mounted(kind, 400, tmp_path) as disk:
        path = package(disk, FILES, compress=None)
        with path.open("r+b") as file:
            file.seek(3_000_000)
            file.write(b"damage")
        cache = Cache(disk / "cache")
        with pytest.raises(DigestMismatch, match=r"segments\[\d+\]: differs from its digest"):
            load(cache, path, "a")
        assert cache.entries() == []


def test_a_package_whose_name_was_taken_meanwhile_is_still_read(tmp_path: Path) -> None:
    path, cache = package(tmp_path, FILES, compress=None), Cache(tmp_path / "cache")
    with PackageReader.open(path) as reader:
        (component,) = reader.manifest.components
        for number, other in enumerate((lambda: path.write_bytes(bytes(9_000_000)), lambda: os.mkfifo(path))):
            path.unlink()
            other()
            assert is_right(cache.materialise(reader, component, component.variants[number]), "ab"[number])
