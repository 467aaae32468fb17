"""The folder of one variant in the cache: who may change it, who keeps it, and how it is removed.

Three things hold it together while any number of processes use the cache:

- The *lock* of its key (``locks/<two digits>.lock``) is held by the one process that puts the variant
  together, repairs or removes it.
- A *pin* is a shared lock on the folder itself, from before its files are looked at until a session has them
  open. What is pinned is not removed for room. The system lets go of it when a process dies.
- `links_change` keeps the stamps of other variants right where hard links to their files are made or removed,
  which changes the ctime that their stamps hold.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from aotpack.cache.layout import LOCKS, VARIANTS, WORK, ours
from aotpack.cache.notes import write_note
from aotpack.cache.stamp import Stamp
from aotpack.files.regular import discard, discard_if_not_regular, is_folder, make_folder

if TYPE_CHECKING:
    import filelock

if sys.platform != "win32":
    import fcntl

__all__ = [
    "STAMP",
    "VariantInUse",
    "acquire",
    "is_pinned_folder",
    "links_change",
    "locked",
    "pin",
    "remove",
    "unpin",
]

#: In the folder of a variant, beside its ``files``.
STAMP = "stamp.json"

#: Stands for a pin where folders cannot be locked; Windows removes no file that is open, and that is enough.
_NO_PIN = -1


class VariantInUse(OSError):
    """A session is being made of the variant at this moment."""


def acquire(root: Path, key: str, *, timeout: float = -1) -> filelock.BaseFileLock:
    """The lock of a key, acquired. Any thread may release it.

    Args:
        root: of the cache.
        key: of a variant.
        timeout: seconds to wait; below zero there is no limit.

    Raises:
        TimeoutError: another one holds it.
        OSError: it cannot be made.
    """
    # Imported late: a variant that is in the cache needs no lock.
    import filelock

    make_folder(root / LOCKS)
    # One of 256: they stay as long as the cache is in use.
    path = root / LOCKS / f"{key[:2]}.lock"
    discard_if_not_regular(path)
    lock = filelock.FileLock(path, timeout=timeout, thread_local=False)
    lock.acquire()
    return lock


@contextlib.contextmanager
def locked(root: Path, key: str, *, timeout: float = -1) -> Iterator[None]:
    """Hold the lock of a key. As `acquire`."""
    lock = acquire(root, key, timeout=timeout)
    try:
        yield
    finally:
        lock.release()


def pin(folder: Path) -> int | None:
    """Keep the folder of a variant from being removed until `unpin` is called with what this returns.

    Returns:
        None if there is no such folder, or it is being removed.
    """
    if sys.platform == "win32":
        return _NO_PIN if is_folder(folder) else None
    fd = _open_folder(folder)
    if fd is None:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:
        # A network file system without such locks. A loader then notices that files have gone, and tries
        # again.
        pass
    if not is_pinned_folder(fd, folder):
        os.close(fd)
        return None
    return fd


def unpin(pinned: int) -> None:
    """Let go of a folder."""
    if pinned != _NO_PIN:
        os.close(pinned)


def is_pinned_folder(pinned: int, folder: Path) -> bool:
    """Whether the folder that was pinned still has its name."""
    if pinned == _NO_PIN:
        return is_folder(folder)
    try:
        return os.path.samestat(os.fstat(pinned), os.lstat(folder))
    except OSError:
        return False


def remove(root: Path, key: str, *, in_use: bool = False) -> None:
    """Remove the folder of a variant, whose lock the caller holds, if there is one.

    Args:
        root: of the cache.
        key: of the variant.
        in_use: remove it even if it is pinned, since it is damaged.

    Raises:
        VariantInUse: it is pinned.
        OSError: it cannot be removed.
    """
    folder = root / VARIANTS / key
    if not is_folder(folder):
        discard(folder)
        return
    fd = None if sys.platform == "win32" else _open_folder(folder)
    try:
        if fd is not None:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not in_use:
                    raise VariantInUse(f"{folder} is in use") from None
            except OSError:
                pass
        # First out of sight in one step, so that nobody finds a half of it.
        gone = root / WORK / f"{key}.gone"
        make_folder(root / WORK)
        discard(gone)
        with links_change(root, key, _shared_inodes(folder)), contextlib.suppress(FileNotFoundError):
            folder.rename(gone)
            discard(gone)
    finally:
        if fd is not None:
            os.close(fd)


@contextlib.contextmanager
def links_change(root: Path, key: str, inodes: Collection[int]) -> Iterator[None]:
    """Make or remove hard links in the block, and bring the stamps of others with the same files up to date.

    Only the ctime in a stamp is brought up to date, and only where all else is as it was: what others have
    written to a file meanwhile shows in its mtime. A stamp that cannot be written now is not: the bytes are
    then checked.

    Args:
        root: of the cache.
        key: of the variant that gets or loses the files.
        inodes: of the files.
    """
    before: list[tuple[Path, Stamp, set[str]]] = []
    for folder in ours(root, VARIANTS) if inodes else ():
        stamp = Stamp.read(folder / STAMP) if folder.name != key else None
        if stamp is not None:
            files = [file for file in stamp.files if file.inode in inodes]
            unchanged = {file.path for file in files if file.is_unchanged(folder / "files")}
            if unchanged:
                before.append((folder, stamp, unchanged))
    yield
    for folder, stamp, unchanged in before:
        with contextlib.suppress(OSError), locked(root, folder.name, timeout=0):
            _stamp_again(root, folder, stamp, unchanged)


def _stamp_again(root: Path, folder: Path, before: Stamp, paths: Collection[str]) -> None:
    if Stamp.read(folder / STAMP) != before:
        return
    used = os.lstat(folder / STAMP)
    files = []
    for file in before.files:
        status = os.lstat(folder / "files" / file.path)
        moved = file.replace(ctime_ns=status.st_ctime_ns)
        files.append(moved if file.path in paths and moved.describes(status) else file)
    after = before.replace(files=tuple(files))
    write_note(root, folder / STAMP, after.to_json(), used_ns=used.st_mtime_ns)


def _shared_inodes(folder: Path) -> set[int]:
    """Inodes of files that other variants have, too: linked from more than here and ``<root>/files``."""
    found = set()
    for place, _, names in os.walk(folder / "files"):
        for name in names:
            with contextlib.suppress(OSError):
                status = os.lstat(Path(place, name))
                if status.st_nlink > 2:
                    found.add(status.st_ino)
    return found


def _open_folder(folder: Path) -> int | None:
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None
