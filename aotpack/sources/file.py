"""A package in a local file."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NoReturn

from aotpack.errors import PackageError, PackageNotFound, UsageError
from aotpack.files import positional

__all__ = ["FileSource"]

# O_NONBLOCK: opening a named pipe must not wait for its writer. Windows has O_BINARY instead.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class FileSource:
    """The bytes of a local file.

    The file that was opened stays the one that is read, even when another one takes its name.

    Raises:
        PackageNotFound: there is no such file.
        PackageError: it is not a regular file or cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._fd = os.open(path, _FLAGS)
        except FileNotFoundError:
            raise PackageNotFound("no such package", where=path) from None
        except OSError as error:
            raise PackageError(f"cannot be opened: {error.strerror}", where=path) from None
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            self.close()
            raise PackageError("is not a file", where=path)

    @property
    def name(self) -> str:
        """The path."""
        return str(self._path)

    @property
    def path(self) -> Path:
        """The path."""
        return self._path

    def size(self) -> int:
        """Length in bytes."""
        return os.fstat(self._fd).st_size

    def read_at(self, offset: int, length: int) -> bytes:
        """Bytes ``offset`` to ``offset + length``; fewer only where the file ends before that.

        Raises:
            UsageError: the file was closed.
            PackageError: the disk cannot read it.
        """
        if self._fd < 0:
            raise UsageError("is closed", where=self._path, hint="open the package again")
        try:
            return positional.read_at(self._fd, offset, length)
        except OSError as error:
            raise PackageError(f"cannot be read: {error.strerror}", where=self._path) from None

    def __reduce__(self) -> NoReturn:
        # A copy would close a descriptor that is another file's by then.
        raise TypeError("an open package cannot be copied or pickled; its path can")

    def close(self) -> None:
        """Close the file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
