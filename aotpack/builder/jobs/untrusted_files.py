"""Read what a worker left in its folder: regular files with one link, inside of it, of a bounded size.

A vendor's library may leave a FIFO, a device, a link to a file of the user's, or a sparse file of terabytes
in place of what is expected. Nothing here waits for one, follows one, or changes one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from aotpack.errors import CompileError

__all__ = ["ResultFolder", "copy_contents", "written_bytes"]

_CHUNK = 8 * 1024 * 1024
#: Entries of a folder that are counted: more than that are not worth the time, 20 times a second.
_MAX_COUNTED = 10_000
#: Windows has neither; nor does it have FIFOs and devices in folders.
_NO_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NO_FOLLOWING = getattr(os, "O_NOFOLLOW", 0)
_HAS_FOLDER_DESCRIPTORS = os.open in os.supports_dir_fd


class ResultFolder:
    """A folder that a worker writes to, held open from before it starts, so that it cannot be exchanged.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder = (
            os.open(path, os.O_RDONLY | os.O_DIRECTORY | _NO_FOLLOWING | _NO_WAITING)
            if _HAS_FOLDER_DESCRIPTORS
            else None
        )

    def __enter__(self) -> ResultFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._folder is not None:
            os.close(self._folder)

    def read(self, place: str, limit: int) -> bytes:
        """The bytes of a file.

        Args:
            place: its path, relative to the folder or absolute inside of it.
            limit: bytes that it may have.

        Raises:
            CompileError: it is not there, not such a file, or too large.
        """
        with self._opened(place, limit) as (file, size):
            data = file.read(size + 1)
        if len(data) > limit:
            raise _too_large(place, len(data), limit)
        return data

    def copy(self, place: str, destination: Path, limit: int) -> int:
        """Make the new file `destination`, read-only, of a file's bytes; gives how many there are.

        Args:
            place: as for `read`.
            destination: does not exist yet.
            limit: bytes that the file may have; holes count.

        Raises:
            CompileError: as `read`.
            OSError: `destination` cannot be written.
        """
        with self._opened(place, limit) as (file, _), destination.open("xb") as made:
            size = copy_contents(file, made, limit)
            if size > limit:
                raise _too_large(destination.name, size, limit)
            if hasattr(os, "fchmod"):
                os.fchmod(made.fileno(), 0o444)
        return size

    @contextlib.contextmanager
    def _opened(self, place: str, limit: int) -> Iterator[tuple[BinaryIO, int]]:
        parts = self._inside(place)
        place = "/".join(parts)
        try:
            descriptor = self._descriptor(parts)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENOTDIR}:
                raise CompileError("is a link, or lies behind one", where=place, expected=_EXPECTED) from None
            if error.errno == errno.ENOENT:
                raise CompileError("was not written", where=place) from None
            # A socket, or a device without a driver.
            raise CompileError(error.strerror or str(error), where=place, expected=_EXPECTED) from None
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise CompileError("is no regular file", where=place, expected=_EXPECTED)
            if status.st_nlink != 1:
                raise CompileError(
                    "has another name too", where=place, found=f"{status.st_nlink} links", expected=_EXPECTED
                )
            if status.st_size > limit:
                raise _too_large(place, status.st_size, limit)
            yield file, status.st_size

    def _inside(self, place: str) -> tuple[str, ...]:
        """The parts of a path relative to the folder."""
        if "\0" in place:
            raise CompileError("is no path", where=repr(place))
        joined = self.path / place
        # A compiler may have resolved the links on the way to the folder.
        for base in (os.fspath(self.path), os.path.realpath(self.path)):
            with contextlib.suppress(ValueError):  # another drive of Windows
                parts = Path(os.path.relpath(joined, base)).parts
                if parts and ".." not in parts:
                    return parts
        raise CompileError("lies outside the folder that was given", where=place, expected=_EXPECTED)

    def _descriptor(self, parts: tuple[str, ...]) -> int:
        if self._folder is None:
            path = self.path.joinpath(*parts)
            if path.resolve() != self.path.resolve().joinpath(*parts):
                raise OSError(errno.ELOOP, "is a link")
            return os.open(path, os.O_RDONLY | _NO_WAITING)
        folder = os.dup(self._folder)
        try:
            for part in parts[:-1]:
                flags = os.O_RDONLY | os.O_DIRECTORY | _NO_FOLLOWING | _NO_WAITING
                inner = os.open(part, flags, dir_fd=folder)
                os.close(folder)
                folder = inner
            return os.open(parts[-1], os.O_RDONLY | _NO_FOLLOWING | _NO_WAITING, dir_fd=folder)
        finally:
            os.close(folder)


_EXPECTED = "a regular file with one name, in the folder that was given"


def _too_large(place: str, size: int, limit: int) -> CompileError:
    return CompileError(
        "is too large", where=place, found=f"{size} bytes", expected=f"at most {limit} for this model"
    )


def copy_contents(source: BinaryIO, destination: BinaryIO, limit: int | None = None) -> int:
    """Copy an open file into an empty one; gives the bytes copied, at most one chunk more than `limit`.

    Blocks are shared where the file system can (copy_file_range(2) does so on Btrfs and XFS), and copied in
    the kernel where it cannot.
    """
    total = 0
    whole = hasattr(os, "copy_file_range")
    while limit is None or total <= limit:
        if whole:
            try:
                # Both at their own position.
                count = os.copy_file_range(source.fileno(), destination.fileno(), 128 * 1024 * 1024)
            except OSError as error:
                if error.errno not in {
                    errno.EXDEV,
                    errno.EINVAL,
                    errno.ENOSYS,
                    errno.EOPNOTSUPP,
                    errno.EPERM,
                }:
                    raise
                whole = False
                continue
        else:
            block = os.read(source.fileno(), _CHUNK)
            count = len(block)
            with memoryview(block) as left:
                while left:
                    left = left[os.write(destination.fileno(), left) :]
        if not count:
            break
        total += count
    return total


def written_bytes(folder: Path) -> int:
    """Bytes on disk of all that lies in a folder, links not followed; of the first 10,000 entries."""
    total, counted = 0, 0
    waiting = [os.fspath(folder)]
    while waiting and counted < _MAX_COUNTED:
        # Files come and go while they are counted.
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                counted += 1
                if counted >= _MAX_COUNTED:
                    break
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        status = entry.stat(follow_symlinks=False)
                        total += getattr(status, "st_blocks", status.st_size // 512) * 512
    return total
