"""Regular files and real folders, where something else may stand at their name.

Anything can lie in a cache folder that was restored, shared or tampered with: a folder, a named pipe, a
socket, a device or a symbolic link at the name of a file. Opening a pipe waits for its writer, and a link
leads out of the folder. Everything the cache reads is opened with these functions, which do neither.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path

__all__ = ["discard", "discard_if_not_regular", "is_folder", "make_folder", "open_regular", "read_regular"]

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
#: O_NONBLOCK: opening a named pipe must not wait for its writer. Windows has O_BINARY instead.
_FLAGS = _NOFOLLOW | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOCTTY", 0)

#: Bytes. The largest small file of a cache, the stamp of a variant of 100,000 segments, has about 5 MB.
_MAX_SMALL = 64 * 1024 * 1024


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file and return its descriptor. A link is not followed.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    if not hasattr(os, "O_NOFOLLOW") and path.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    fd = os.open(path, flags | _FLAGS)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    return fd


def read_regular(path: Path, limit: int = _MAX_SMALL) -> bytes:
    """The content of a small regular file. A link is not followed.

    Raises:
        OSError: it cannot be read, is not a regular file, or has more than `limit` bytes.
    """
    with os.fdopen(open_regular(path), "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        # One more, so that one call tells that nothing was added.
        content = file.read(size + 1)
        while content and (more := file.read(limit + 1 - len(content))):
            content += more
            if len(content) > limit:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        return content or b""


def is_folder(path: Path) -> bool:
    """Whether `path` is a folder and not a link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def make_folder(path: Path) -> None:
    """Make the folder `path`, in place of whatever else stands at its name. Its parent is there.

    Raises:
        OSError: it cannot be made.
    """
    if is_folder(path):
        return
    try:
        path.unlink(missing_ok=True)
        path.mkdir()
    except OSError:
        # Another process may have made it between any two of these steps, which is as good.
        if not is_folder(path):
            raise


def discard(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it, if it can be removed. No link is followed."""
    if is_folder(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def discard_if_not_regular(path: Path) -> None:
    """Remove what stands at the name of a file and is none; a regular file stays."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return
    if not stat.S_ISREG(mode):
        discard(path)
