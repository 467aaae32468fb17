"""Files that a verb writes on request beside its result: a page to look at, or records."""

from __future__ import annotations

import stat
from pathlib import Path

from aotpack.errors import OutputError

__all__ = ["check_extra_file", "write_extra_file"]


def check_extra_file(path: Path, begins: str, what: str) -> None:
    """Nothing, if `path` is an earlier file of its kind, an empty one or none: all else would be lost.

    Args:
        path: of the file to write. A device or a pipe, such as ``/dev/stdout``, is written to.
        begins: how each file of this kind begins.
        what: the kind, for the error.

    Raises:
        OutputError: it is another file.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return
        with path.open("rb") as file:
            head = file.read(len(begins.encode()))
    except OSError:
        # Writing it says what is wrong.
        return
    if head and head != begins.encode():
        raise OutputError(
            f"is a file that is not {what}, and would be lost",
            where=path,
            hint="write to another file, or remove this one",
        )


def write_extra_file(path: Path, text: str, begins: str, what: str) -> None:
    """Write the file, if `check_extra_file` lets it.

    Raises:
        OutputError: it is another file, or cannot be written.
    """
    check_extra_file(path, begins, what)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(error.strerror or str(error), where=path) from None
