"""The bytes of a local package: one descriptor, which nobody else may close or take for another file's."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from aotpack.errors import UsageError
from aotpack.sources.file import FileSource


@pytest.fixture
def source(tmp_path: Path) -> Iterator[FileSource]:
    (tmp_path / "file").write_bytes(b"0123456789")
    source = FileSource(tmp_path / "file")
    yield source
    source.close()


def test_a_closed_file_is_not_read(source: FileSource) -> None:
    assert source.read_at(2, 3) == b"234"
    source.close()
    source.close()
    with pytest.raises(UsageError, match=r"file: is closed \(open the package again\)"):
        source.read_at(0, 1)


def test_a_descriptor_is_never_shared(source: FileSource) -> None:
    with pytest.raises(TypeError, match="its path can"):
        pickle.dumps(source)
    with pytest.raises(TypeError, match="its path can"):
        copy.copy(source)
