"""A file or a folder that appears whole or not at all: written under another name, synced, renamed.

The other name is ``.<name>.<random>.aotpack-partial`` in the same folder. Whoever writes it holds a lock on
it, be it a file or a folder. A process that was killed leaves it without the lock, so the next one to write
there sweeps it away. Two that write to one output at once do not meet: each has its own partial file and the
last to finish wins.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from aotpack.container.format import MAGIC
from aotpack.errors import OutputError
from aotpack.files.durable import sync_descriptor, sync_folder, sync_tree

if sys.platform != "win32":
    import fcntl

__all__ = [
    "SUFFIX",
    "PartialFile",
    "check_is_package",
    "check_writable",
    "new_folder",
    "replacing",
    "sweep",
    "syncing",
]

#: The end of the name of a file that is being written.
SUFFIX = ".aotpack-partial"

#: Seconds.
_STALE = 24 * 3600

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
        sync_descriptor(partial.fd)
        if sys.platform == "win32":
            # An open file cannot be renamed there. Elsewhere its lock is what keeps it from being swept.
            os.close(partial.fd)
            fd = None
        partial.path.replace(output)
        sync_folder(output.parent)
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


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a new empty folder that takes the name `folder` when the block ends well.

    Raises:
        OutputError: `folder` exists and is not empty, or cannot be made.
    """
    try:
        if not folder.name:
            raise OutputError("cannot be made anew", where=folder, expected="the name of a new folder")
        if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputError("exists already", where=folder, expected="a new or an empty folder")
        if folder.is_symlink():
            folder = folder.resolve()
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        partial, fd = _create_folder(folder)
    except OSError as error:
        if error.errno is None:
            raise
        raise OutputError(f"cannot be made: {error.strerror}", where=folder) from None
    try:
        yield partial
        sync_tree(partial)
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        # Errors of the tree that inherit OSError say more than we could.
        if error.errno is None:
            raise
        raise OutputError(f"cannot be written: {error.strerror}", where=folder) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if fd is not None:
            os.close(fd)


def check_writable(output: Path, *, force: bool = False) -> None:
    """Find out before hours of work that `output` cannot be written.

    Args:
        output: a package to write.
        force: replace a file that is not a package, too.

    Raises:
        OutputError: its folder or its name says so, or there is a file that is not a package.
    """
    check_is_package(output, force=force)
    try:
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    except OSError as error:
        raise OutputError(
            error.strerror or str(error), where=output.parent, hint="choose a folder that can be written"
        ) from None


def check_is_package(output: Path, *, force: bool = False) -> None:
    """Nothing, if `output` is a package, an empty file or nothing: all else is not ours to replace.

    Args:
        output: a package to write.
        force: a file that is not a package may be replaced, too.

    Raises:
        OutputError: it is something else.
    """
    _check_replaceable(output)
    if force:
        return
    try:
        with output.open("rb") as file:
            head = file.read(len(MAGIC))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise OutputError(f"cannot be read: {error.strerror}", where=output) from None
    if head and head != MAGIC:
        raise OutputError(
            "is a file that is not a package, and would be lost",
            where=output,
            hint="write to another file, or give --force (force=True) to replace it",
        )


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


def _create_folder(folder: Path) -> tuple[Path, int | None]:
    """A partial folder and the descriptor that has it locked; None on Windows, which locks no folders."""
    while True:
        path = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}{SUFFIX}")
        path.mkdir()
        if sys.platform == "win32":
            return path, None
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            # A sweep came between the making and the locking.
            continue
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.path.lexists(path):
            return path, fd
        os.close(fd)


def _remove_if_dead(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        _remove_folder_if_dead(path)
        return
    if sys.platform == "win32":
        # An open file cannot be removed there, which is all that is asked.
        path.unlink()
        return
    # O_NONBLOCK: what has the name may be a named pipe.
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    finally:
        os.close(fd)


def _remove_folder_if_dead(path: Path) -> None:
    if sys.platform == "win32":
        # Nothing tells there whether somebody still writes; nobody does for so long.
        if time.time() - path.stat().st_mtime > _STALE:
            shutil.rmtree(path, ignore_errors=True)
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(fd)
