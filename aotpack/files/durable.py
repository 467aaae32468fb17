"""Make files outlive a loss of power: nothing may vouch for bytes that the disk does not have yet."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from aotpack.files.regular import open_regular

if sys.platform != "win32":
    import fcntl

__all__ = ["sync_descriptor", "sync_file", "sync_folder", "sync_tree"]

#: macOS' fsync leaves bytes in the cache of the disk; this command of fcntl.h does not.
_FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None) if sys.platform == "darwin" else None


def sync_descriptor(fd: int) -> None:
    """Wait until an open file is on the disk.

    Raises:
        OSError: the disk failed. The system says so once only: the bytes must not be vouched for.
    """
    if sys.platform != "win32" and _FULL_SYNC is not None:
        try:
            fcntl.fcntl(fd, _FULL_SYNC)
            return
        except OSError:
            # Network file systems do not know the command.
            pass
    os.fsync(fd)


def sync_file(path: Path) -> None:
    """Wait until a regular file is on the disk.

    Raises:
        OSError: as for `sync_descriptor`, or the file cannot be opened.
    """
    # Windows flushes only what may be written to.
    fd = open_regular(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        sync_descriptor(fd)
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can sync folders."""
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            sync_descriptor(fd)
        finally:
            os.close(fd)


def sync_tree(root: Path) -> None:
    """Wait until all files in a folder, and the names of all, are on the disk. No link is followed.

    Raises:
        OSError: as for `sync_file`.
    """
    for place, folders, names in os.walk(root, topdown=False):
        for name in names:
            sync_file(Path(place, name))
        for name in folders:
            if Path(place, name).is_symlink():
                raise NotADirectoryError(f"{name} is a link")
        sync_folder(Path(place))
