"""Folders and files of a cache, which other processes make and remove at the same time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aotpack.files import regular
from aotpack.files.regular import make_folder


@pytest.mark.parametrize("before", ["nothing", "a file", "a pipe", "a link"])
def test_a_folder_is_made_in_place_of_whatever_is_there(tmp_path: Path, before: str) -> None:
    place = tmp_path / "folder"
    if before == "a file":
        place.touch()
    elif before == "a pipe":
        os.mkfifo(place)
    elif before == "a link":
        (tmp_path / "elsewhere").mkdir()
        place.symlink_to(tmp_path / "elsewhere")
    make_folder(place)
    assert place.is_dir()
    assert not place.is_symlink()


@pytest.mark.parametrize("after", ["is_folder", "unlink"])
def test_another_process_may_make_the_folder_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    """One of 16 processes that loaded from a new cache at once got no variant: "Is a directory"."""
    place = tmp_path / "folder"
    owner = regular if after == "is_folder" else Path
    real = getattr(owner, after)

    def and_then_it_is_made(path: Path, **options: bool) -> object:
        answer = real(path, **options)
        place.mkdir(exist_ok=True)
        return answer

    monkeypatch.setattr(owner, after, and_then_it_is_made)
    make_folder(place)
    assert place.is_dir()


def test_where_no_folder_can_be_made_it_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file/folder"):
        make_folder(tmp_path / "file" / "folder")
