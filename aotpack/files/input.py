"""Read a small file that somebody else may have written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from aotpack.errors import AotpackError

__all__ = ["read_input"]

# O_NONBLOCK: opening a named pipe must not wait for its writer. Windows has O_BINARY instead.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def read_input(path: Path, limit: int, *, expected: str, error: type[AotpackError]) -> bytes:
    """All bytes of a regular file of at most `limit` bytes.

    Args:
        path: of the file.
        limit: bytes.
        expected: what the file should be, such as ``a build file``.
        error: raised where it cannot be read, is no regular file (a pipe, a device) or is longer.
    """
    try:
        descriptor = os.open(path, _FLAGS)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise error("is not a file", where=path, expected=expected)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(limit + 1)
        finally:
            os.close(descriptor)
    except AotpackError:
        raise
    except OSError as failure:
        raise error(failure.strerror or str(failure), where=path, expected=expected) from None
    except ValueError:
        # A NUL, or a character that no file name has here.
        raise error("is no path of a file", where=repr(str(path)), expected=expected) from None
    if len(data) > limit:
        raise error("is too large", where=path, expected=f"{expected} of at most {limit} bytes")
    return data
