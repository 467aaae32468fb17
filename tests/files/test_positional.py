"""Reading and writing at a place, with the system's own calls and without, as on Windows."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aotpack.cache.variants import Cache
from aotpack.container.reader import PackageReader
from aotpack.files import positional
from aotpack.runtime import edit
from tests.container.packages import Files, contents_of, package

NOISE = random.Random(4).randbytes(3_000_000)
FILES: Files = {
    "main": {
        "a": {"m.onnx": b"a", "m.bin": NOISE, "zeros": bytes(300_000)},
        "b": {"m.onnx": b"b", "m.bin": b"another header" + NOISE, "text": b"text " * 100_000},
    }
}


@pytest.fixture(params=["posix", "windows"], autouse=True)
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "windows":
        for name in ("pread", "preadv", "pwrite", "pwritev", "O_NOFOLLOW", "fdatasync"):
            monkeypatch.delattr(os, name)


def test_a_package_is_written_read_edited_and_put_together(tmp_path: Path) -> None:
    path = package(tmp_path, FILES)
    assert contents_of(path) == FILES
    with PackageReader.open(path) as reader:
        reader.verify()
        edit.merge([reader, reader], tmp_path / "merged.aotpack")
        assert (tmp_path / "merged.aotpack").read_bytes() == path.read_bytes()
        (component,) = reader.manifest.components
        cache = Cache(tmp_path / "cache")
        for variant in component.variants:
            folder = cache.materialise(reader, component, variant)
            assert {p.name: p.read_bytes() for p in folder.iterdir()} == FILES["main"][variant.id]
        assert cache.verify() == []


def test_threads_that_share_a_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    places = list(range(0, len(NOISE), 5_000))
    random.Random(8).shuffle(places)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda at: positional.write_at(fd, at, NOISE[at : at + 5_000]), places))
        assert positional.read_at(fd, 0, len(NOISE)) == NOISE

        def read(at: int) -> bytes:
            buffer = memoryview(bytearray(5_000))
            assert positional.read_into(fd, at, buffer) == 5_000
            return bytes(buffer)

        for how in (lambda at: positional.read_at(fd, at, 5_000), read):
            parts = dict(zip(places, pool.map(how, places), strict=True))
            assert b"".join(parts[at] for at in sorted(parts)) == NOISE
    os.close(fd)


def test_what_lies_behind_the_end_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    assert positional.read_at(fd, 8, 5) == b"89"
    assert positional.read_at(fd, 20, 5) == b""
    buffer = bytearray(5)
    assert positional.read_into(fd, 8, memoryview(buffer)) == 2
    assert buffer == b"89\0\0\0"
    os.close(fd)


def test_more_is_moved_than_fits_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positional, "_AT_ONCE", 1000)
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    positional.write_at(fd, 7, NOISE[:4_500])
    buffer = bytearray(4_500)
    assert positional.read_at(fd, 7, 4_500) == NOISE[:4_500]
    assert positional.read_into(fd, 7, memoryview(buffer)) == 4_500
    assert buffer == NOISE[:4_500]
    os.close(fd)
