"""Copies of models for compilers: of small and large ones, with reflinks and without."""

from __future__ import annotations

from pathlib import Path

import pytest

from aotpack.builder.jobs import model_copies
from aotpack.builder.jobs.model_copies import ModelCopies


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that counts as too large to be copied for each job."""
    monkeypatch.setattr(model_copies, "_COPIED_FOR_EACH", 0)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "w").write_bytes(b"weights")
    path = tmp_path / "source" / "m.onnx"
    path.write_bytes(b"graph")
    return path


def test_jobs_share_a_copy_where_there_are_no_reflinks(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy(source: Path, destination: Path, *, only_cloned: bool) -> None:
        destination.write_bytes(source.read_bytes())
        if only_cloned:
            # As FICLONE fails: the file that it was to fill is there.
            raise OSError("no reflinks")

    monkeypatch.setattr(model_copies, "_copy", copy)
    copies = ModelCopies(tmp_path / "shared")
    given = [copies.give(large, ["w"], tmp_path / f"job-{index}" / "model" / "0") for index in range(2)]
    assert all(each.shared and not each.changed() for each in given)
    assert [each.path.read_bytes() for each in given] == [b"graph"] * 2
    assert [(each.path.parent / "w").read_bytes() for each in given] == [b"weights"] * 2
    assert given[0].path.resolve() == given[1].path.resolve() != large


def test_jobs_get_their_own_copy_on_whatever_file_system_this_is(large: Path, tmp_path: Path) -> None:
    copies = ModelCopies(tmp_path / "shared")
    given = copies.give(large, ["w"], tmp_path / "job" / "0", private=True)
    assert not given.shared
    assert copies.give(large, ["w"], tmp_path / "other" / "0").path.read_bytes() == b"graph"
