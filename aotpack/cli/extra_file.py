"""Files that a verb writes on request beside its result: a page to look at, or records."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING

from aotpack.errors import OutputError

if TYPE_CHECKING:
    from aotpack.builder.report import BuildReport

__all__ = ["check_extra_file", "check_page", "write_extra_file", "write_page"]

_PAGE = "a page of `aotpack build`"


def check_extra_file(path: Path, begins: str, what: str) -> None:
    """Nothing, if `path` is an earlier file of its kind, an empty one or none: all else would be lost.

    Asked before the work is done whose result the file is beside: a build or a check can take an hour.

    Args:
        path: of the file to write. A device or a pipe, such as ``/dev/stdout``, is written to.
        begins: how each file of this kind begins.
        what: the kind, for the error.

    Raises:
        OutputError: it is another file or a folder, or its folder is not there.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise OutputError("is a folder", where=path, expected=what)
        if not stat.S_ISREG(mode):
            return
        with path.open("rb") as file:
            head = file.read(len(begins.encode()))
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise OutputError("is no folder", where=path.parent, hint=f"{path.name} is to be there") from None
        return
    except OSError as error:
        raise OutputError(error.strerror or str(error), where=path) from None
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


def check_page(path: Path) -> None:
    """Nothing, if `path` can take a page.

    Raises:
        OutputError: as for `check_extra_file`.
    """
    from aotpack.builder.page import PAGE_BEGINS

    check_extra_file(path, PAGE_BEGINS, _PAGE)


def write_page(report: BuildReport, path: Path | None) -> None:
    """Write the page of a report to `path`, if there is one.

    Raises:
        OutputError: as for `write_extra_file`.
    """
    if path is None:
        return
    from aotpack.builder.page import PAGE_BEGINS, page

    write_extra_file(path, page(report), PAGE_BEGINS, _PAGE)
