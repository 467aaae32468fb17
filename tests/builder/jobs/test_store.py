"""Files by their sha256, as they were sent to this machine."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aotpack.builder.jobs.store import Store
from aotpack.cache.variants import Cache


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_what_was_put_is_linked_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, other: bytes
) -> None:
    folder = tmp_path_factory.mktemp("store")
    store = Store(Cache(folder))
    store.put(sha256(data), data)
    assert store.link(sha256(data), folder / "a" / "copy")
    assert (folder / "a" / "copy").read_bytes() == data
    assert store.link(sha256(other), folder / "other") == (other == data)


def test_data_under_another_digest_are_not_kept(tmp_path: Path) -> None:
    store = Store(Cache(tmp_path))
    store.put(sha256(b"one"), b"two")
    store.put("../outside", b"two")
    assert not store.link(sha256(b"one"), tmp_path / "copy")
    assert not (tmp_path / "outside").exists()


def test_damaged_data_are_as_good_as_none(tmp_path: Path) -> None:
    store = Store(Cache(tmp_path))
    store.put(sha256(b"whole"), b"whole")
    kept = tmp_path / "sent" / sha256(b"whole")
    kept.chmod(0o644)
    kept.write_bytes(b"rotten")
    assert not store.link(sha256(b"whole"), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    store.put(sha256(b"whole"), b"whole")
    assert store.link(sha256(b"whole"), tmp_path / "copy")


def test_who_writes_to_a_linked_file_changes_nothing(tmp_path: Path) -> None:
    store = Store(Cache(tmp_path))
    store.put(sha256(b"whole"), b"whole")
    store.link(sha256(b"whole"), tmp_path / "copy")
    (tmp_path / "copy").write_bytes(b"written over")
    assert store.link(sha256(b"whole"), tmp_path / "again")


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    store = Store(Cache(tmp_path, limit=250))
    contents = [bytes([number]) * 100 for number in range(4)]
    for age, data in enumerate(contents):
        store.put(sha256(data), data)
        os.utime(tmp_path / "sent" / sha256(data), (age, age))
    # It was put first and used last.
    assert store.link(sha256(contents[0]), tmp_path / "used")
    store.trim()
    kept = [number for number, data in enumerate(contents) if store.link(sha256(data), tmp_path / "x")]
    assert kept == [0, 3]


def test_many_may_put_the_same_at_once(tmp_path: Path) -> None:
    data = os.urandom(100_000)
    threads = [
        threading.Thread(target=Store(Cache(tmp_path)).put, args=(sha256(data), data)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in (tmp_path / "sent").iterdir()] == [sha256(data)]
