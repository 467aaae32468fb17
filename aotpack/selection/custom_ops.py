"""Libraries of custom operators, which whoever builds or loads a package gives; a package never names one.

A library is code that runs with the rights of the process: ONNX Runtime loads it and calls its
``RegisterCustomOps`` (onnxruntime_c_api.h, ``RegisterCustomOpsLibrary_V2``).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aotpack._text import clipped, printable
from aotpack.common.vendor_text import brief
from aotpack.errors import UsageError

if TYPE_CHECKING:
    import onnxruntime

__all__ = [
    "NO_LIBRARIES",
    "GivenLibraries",
    "Libraries",
    "checked_libraries",
    "missing_library",
    "read_libraries",
    "register",
    "registered_twice",
]

#: Libraries as a caller gives them: a path, or several.
GivenLibraries = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

#: What is said of where a mistake is.
_WHERE = "custom_ops"
_EXPECTED = "the shared library of custom operators"

#: The function that ONNX Runtime calls.
_FUNCTION = "RegisterCustomOps"

#: Domains that a sentence names.
_SHOWN = 5


def checked_libraries(given: GivenLibraries, *, where: str = _WHERE) -> tuple[Path, ...]:
    """The absolute paths of libraries, each file once: ONNX Runtime takes no operator twice.

    A path without a folder is one in the current folder: no system folder is searched.

    Args:
        given: a path, or several.
        where: what errors call them.

    Raises:
        UsageError: one is no path, or there is no such file.
    """
    if isinstance(given, str | os.PathLike):
        given = (given,)
    if not isinstance(given, Iterable):
        kind = type(given).__name__
        raise UsageError("is no list of paths", where=where, found=kind, expected=_EXPECTED)
    found: dict[object, Path] = {}
    for each in given:
        path, status = _checked(each, where)
        # Not every file system has numbers for files.
        found.setdefault((status.st_dev, status.st_ino) if status.st_ino else path, path)
    return tuple(found.values())


def _checked(given: object, where: str) -> tuple[Path, os.stat_result]:
    if not isinstance(given, str | os.PathLike):
        raise UsageError("is no path", where=where, found=type(given).__name__, expected=_EXPECTED)
    text = os.fspath(given)
    if not isinstance(text, str):
        raise UsageError("is no path of text", where=where, found=repr(text), expected=_EXPECTED)
    if not text:
        raise UsageError("is empty", where=where, expected=_EXPECTED)
    try:
        # ONNX Runtime takes it as UTF-8.
        text.encode()
        # Not resolved: a library may find others beside it by the path that it was loaded from.
        path = Path(text).absolute()
        status = path.stat()
    except OSError as error:
        what = error.strerror or str(error)
        raise UsageError(what, where=f"{where}: {text}", expected=_EXPECTED) from None
    except ValueError:
        raise UsageError("is no path of a file", where=f"{where}: {text!r}", expected=_EXPECTED) from None
    if stat.S_ISDIR(status.st_mode):
        raise UsageError("is a folder", where=f"{where}: {text}", expected=_EXPECTED)
    if not stat.S_ISREG(status.st_mode):
        raise UsageError("is not a file", where=f"{where}: {text}", expected=_EXPECTED)
    return path, status


@dataclass(frozen=True, slots=True)
class Libraries:
    """Libraries, and what names their contents."""

    paths: tuple[Path, ...] = ()
    #: sha256 of each, hex. Other libraries that it loads have no part in that.
    digests: tuple[str, ...] = ()


#: None are given.
NO_LIBRARIES = Libraries()


def read_libraries(paths: tuple[Path, ...]) -> Libraries:
    """Libraries with their digests.

    Raises:
        UsageError: one cannot be read.
    """
    digests = []
    for path in paths:
        try:
            with path.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            what = error.strerror or str(error)
            raise UsageError(what, where=f"{_WHERE}: {path}", expected=_EXPECTED) from None
    return Libraries(paths, tuple(digests))


def register(options: onnxruntime.SessionOptions, libraries: Iterable[Path]) -> None:
    """Register libraries for sessions with `options`, which loads them into this process.

    Raises:
        UsageError: one is no shared library for this machine, has no ``RegisterCustomOps``, or that failed.
    """
    for path in libraries:
        try:
            options.register_custom_ops_library(str(path))
        except Exception as error:
            said, where = str(error), f"{_WHERE}: {path}"
            if f"symbol {_FUNCTION}" in said:
                raise UsageError(f"has no function {_FUNCTION}", where=where, expected=_EXPECTED) from error
            # ONNX Runtime names the path twice before it says what is wrong.
            reason = brief(said.rpartition(f"{path}: ")[2])
            raise UsageError("cannot be loaded", where=where, found=reason, expected=_EXPECTED) from error


def registered_twice(error: Exception) -> UsageError | None:
    """What to raise where two libraries are why ONNX Runtime makes no session; None if they are not."""
    said = str(error)
    if "already set in registry" not in said and "Conflicting with a registered kernel" not in said:
        return None
    return UsageError(
        "an operator or its domain is registered twice",
        where=_WHERE,
        found=brief(said),
        hint="give each library once: here, or in session_options",
    )


def missing_library(domains: Sequence[str]) -> str:
    """The sentence on operators of these domains for which nobody gave a library."""
    shown = ", ".join(clipped(printable(each), 80) for each in domains[:_SHOWN])
    more = f" and {len(domains) - _SHOWN} more" if len(domains) > _SHOWN else ""
    what = "domain" if len(domains) == 1 else "domains"
    return (
        f"The model uses operators of the {what} {shown}{more}, which ONNX Runtime does not have: "
        "give custom_ops=[LIBRARY] or --custom-ops LIBRARY."
    )
