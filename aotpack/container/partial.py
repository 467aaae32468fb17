"""A file that appears whole or not at all: written under another name, synced, renamed.

The other name is ``.<name>.<random>.aotpack-partial`` in the same folder. Whoever writes it holds a lock on
it. A process that was killed leaves the file but not the lock, so the next one to write there sweeps it away.
Two that write to one output at once do not meet: each has its own partial file and the last to finish wins.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from aotpack.errors import OutputError

if sys.platform != "win32":
    import fcntl

__all__ = ["SUFFIX", "PartialFile", "check_writable", "replacing", "sweep", "syncing"]

#: The end of the name of a file that is being written.
SUFFIX = ".aotpack-partial"

#: Bytes that are worth a sync of their own.
_SYNC_FROM = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class PartialFile:
    """A file that is being written."""

    path: Path
    fd: int


@contextlib.contextmanager
def replacing(output: Path) -> Iterator[PartialFile]:
    """Give a new empty file that takes the name `output` when the block ends well.

    A link is followed, as by all that writes files: what it points to is replaced.

    Raises:
        OutputError: the file cannot be written, be it for its folder, its rights or a full disk. `output` is
            as it was.
    """
    _check_replaceable(output)
    try:
        if output.is_symlink():
            output = output.resolve()
        sweep(output)
        partial = _create(output)
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", where=output) from None
    fd: int | None = partial.fd
    try:
        yield partial
        os.fsync(partial.fd)
        if sys.platform == "win32":
            # An open file cannot be renamed there. Elsewhere its lock is what keeps it from being swept.
            os.close(partial.fd)
            fd = None
        partial.path.replace(output)
        _sync_folder(output.parent)
    except OSError as error:
        # Errors of the tree that inherit OSError say more than we could.
        if error.errno is None:
            raise
        raise OutputError(f"cannot be written: {error.strerror}", where=output) from error
    finally:
        if fd is not None:
            os.close(fd)
        with contextlib.suppress(OSError):
            partial.path.unlink(missing_ok=True)


def check_writable(output: Path) -> None:
    """Find out before hours of work that `output` cannot be written.

    Raises:
        OutputError: its folder or its name says so.
    """
    _check_replaceable(output)
    try:
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    except OSError as error:
        raise OutputError(
            error.strerror or str(error), where=output.parent, hint="choose a folder that can be written"
        ) from None


def _check_replaceable(output: Path) -> None:
    """Nothing, if what has the name `output` now is a file or nothing.

    Raises:
        OutputError: it is something else. Renaming over ``/dev/null`` takes it from the whole system.
    """
    try:
        mode = output.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", where=output) from None
    if not stat.S_ISREG(mode):
        what = "is a folder" if stat.S_ISDIR(mode) else "is a device or a pipe"
        raise OutputError(what, where=output, expected="a file to write the package to")


@contextlib.contextmanager
def syncing(partial: PartialFile) -> Iterator[Callable[[int], None]]:
    """Send what is written to the disk while more is made, so that little is left for the sync at the end.

    Gives a function to be called with the number of bytes that were written.
    """
    sync = getattr(os, "fdatasync", os.fsync)
    waiting = 0
    running: Future[None] | None = None

    def wrote(size: int) -> None:
        nonlocal waiting, running
        waiting += size
        if waiting >= _SYNC_FROM and (running is None or running.done()):
            if running is not None:
                running.result()
            waiting, running = 0, pool.submit(sync, partial.fd)

    with ThreadPoolExecutor(1) as pool:
        yield wrote
    # The system tells an error of the disk once: it must not be lost.
    if running is not None:
        running.result()


def sweep(output: Path) -> None:
    """Remove what dead processes left of earlier tries to write `output`."""
    prefix = f".{output.name}."
    for entry in list(os.scandir(output.parent)):
        if entry.name.startswith(prefix) and entry.name.endswith(SUFFIX):
            with contextlib.suppress(OSError):
                _remove_if_dead(Path(entry.path))


def _create(output: Path) -> PartialFile:
    while True:
        path = output.with_name(f".{output.name}.{secrets.token_hex(6)}{SUFFIX}")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        if sys.platform == "win32":
            return PartialFile(path, fd)
        fcntl.flock(fd, fcntl.LOCK_EX)
        # A sweep may have come between the making and the locking.
        if os.fstat(fd).st_nlink:
            return PartialFile(path, fd)
        os.close(fd)


def _remove_if_dead(path: Path) -> None:
    if sys.platform == "win32":
        # An open file cannot be removed there, which is all that is asked.
        path.unlink()
        return
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    finally:
        os.close(fd)


def _sync_folder(folder: Path) -> None:
    # So that the new name outlives a loss of power. Not every system can sync a folder.
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
