"""Temporary folders: gone when their process is, and nobody else's."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from aotpack.errors import OutputError
from aotpack.files.scratch import MARK, scratch_folder
from tests.command_line import ROOT, environment

_HELD = """
import time
from aotpack.files.scratch import scratch_folder
with scratch_folder("test") as folder:
    (folder / "large").mkdir()
    (folder / "large" / "file").write_bytes(bytes(1000))
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def make(root: Path, name: str, *, marked: bool) -> Path:
    """A folder as a process that was killed an hour and more ago left it."""
    folder = root / name
    folder.mkdir()
    (folder / "file").write_bytes(b"x")
    if marked:
        (folder / MARK).touch()
        os.utime(folder / MARK, (1, 1))
    os.utime(folder, (1, 1))
    return folder


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


def test_it_is_empty_and_gone_after_the_block(root: Path) -> None:
    with scratch_folder("test") as folder:
        assert folder.parent == root
        assert names(folder) == {MARK}
        (folder / "a").mkdir()
        (folder / "a" / "b").write_bytes(b"x")
    assert names(root) == set()
    with pytest.raises(ValueError, match="x"), scratch_folder("test"):
        raise ValueError("x")
    assert names(root) == set()


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_has_is_not(root: Path) -> None:
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", _HELD],
                    stdout=subprocess.PIPE,
                    text=True,
                    env=environment({"TMPDIR": str(root)}),
                    cwd=ROOT,
                )
            )
            for _ in range(2)
        ]
        for process in processes:
            stack.callback(process.kill)
        # Both have made theirs, and so have swept, before one of them is killed.
        first, second = (Path(process.stdout.readline().strip()) for process in processes if process.stdout)
        processes[0].kill()
        processes[0].wait()
        with scratch_folder("other") as folder:
            assert names(root) == {second.name, folder.name}
        assert not first.exists()
    assert (second / "large" / "file").exists()
    with scratch_folder("other"):
        assert not second.exists()


def test_nothing_else_is_removed(root: Path) -> None:
    elsewhere = make(root, "elsewhere", marked=True)
    kept = {
        make(root, "aotpack-notes", marked=True).name,
        make(root, "aotpack-test-12345678", marked=False).name,
        make(root, "aotpack-test-1234567", marked=True).name,
        make(root, "mine-aotpack-test-12345678", marked=True).name,
        elsewhere.name,
    }
    link = root / "aotpack-test-abcdefgh"
    link.symlink_to(elsewhere)
    pipe = make(root, "aotpack-test-pipepipe", marked=False)
    os.mkfifo(pipe / MARK)
    with scratch_folder("test"):
        pass
    assert names(root) == kept | {link.name, pipe.name}
    assert (elsewhere / "file").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders away")
def test_nothing_of_another_user_is_removed(root: Path) -> None:
    folder = make(root, "aotpack-test-12345678", marked=True)
    os.chown(folder, 54321, 54321)
    with scratch_folder("test"):
        pass
    assert folder.exists()


def test_no_link_is_followed_out_of_one(root: Path) -> None:
    elsewhere = make(root, "elsewhere", marked=False)
    left = make(root, "aotpack-test-12345678", marked=True)
    (left / "link").symlink_to(elsewhere)
    with scratch_folder("test") as folder:
        (folder / "link").symlink_to(elsewhere)
    assert names(root) == {"elsewhere"}
    assert (elsewhere / "file").exists()


def test_where_none_can_be_made_it_is_said_what_to_set(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(root / "nowhere"))
    with pytest.raises(OutputError, match="set TMPDIR"), scratch_folder("test"):
        pass
