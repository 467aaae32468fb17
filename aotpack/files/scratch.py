"""Temporary folders that are gone when their process is, however it ends.

``<temporary folder>/aotpack-<purpose>-<random>`` holds a file ``.aotpack-scratch``, which its process has
locked. A process that was killed leaves the folder without the lock, and the next one that needs a folder
removes it. A folder of another user, or one that holds files but not that one, is never touched: any program
may give a folder such a name.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from aotpack.errors import OutputError
from aotpack.files.regular import discard, open_regular

if sys.platform != "win32":
    import fcntl

__all__ = ["MARK", "scratch_folder"]

#: The file by which a folder is known.
MARK = ".aotpack-scratch"

_NAME = re.compile(r"aotpack-[a-z]+-[a-z0-9_]{8}")

#: Seconds. A folder without its mark is empty: it was just made, or its process was killed at once.
_STALE = 3600


@contextlib.contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """A temporary folder for the block, empty but for the file `MARK`.

    Args:
        purpose: a word of small letters that says what it is for.

    Raises:
        OutputError: no temporary folder can be written.
    """
    folder, fd = _create(purpose)
    try:
        yield folder
    finally:
        if sys.platform == "win32":
            # An open file cannot be removed there.
            os.close(fd)
        with contextlib.suppress(OSError):
            _remove(folder)
        if sys.platform != "win32":
            os.close(fd)


def _create(purpose: str) -> tuple[Path, int]:
    """A folder, and the descriptor that has its mark locked."""
    try:
        root = Path(tempfile.gettempdir())
        _sweep(root)
        while True:
            folder = Path(tempfile.mkdtemp(prefix=f"aotpack-{purpose}-", dir=root))
            fd = os.open(folder / MARK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            if sys.platform == "win32":
                return folder, fd
            # A file system without locks refuses; nothing is swept from it then.
            with contextlib.suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_EX)
            # A sweep may have come between the making and the locking.
            if os.fstat(fd).st_nlink:
                return folder, fd
            os.close(fd)
    except OSError as error:
        raise OutputError(
            f"no temporary folder can be written: {error.strerror or error}",
            hint="set TMPDIR to a folder that can be written",
        ) from None


def _sweep(root: Path) -> None:
    """Remove what dead processes left."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(root)):
            if _NAME.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    _remove_if_dead(Path(entry.path))


def _remove_if_dead(folder: Path) -> None:
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or (sys.platform != "win32" and status.st_uid != os.geteuid()):
        return
    mark = folder / MARK
    if not os.path.lexists(mark):
        if time.time() - status.st_mtime > _STALE:
            # This fails if there is anything in it.
            folder.rmdir()
        return
    if sys.platform == "win32":
        # This fails while its process has it open.
        mark.unlink()
        _remove(folder)
        return
    fd = open_regular(mark, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(folder)
    finally:
        os.close(fd)


def _remove(folder: Path) -> None:
    """Remove a folder, its mark last, so that the next sweep knows what could not be removed."""
    for path in list(folder.iterdir()):
        if path.name != MARK:
            discard(path)
    if all(path.name == MARK for path in folder.iterdir()):
        with contextlib.suppress(FileNotFoundError):
            (folder / MARK).unlink()
        folder.rmdir()
