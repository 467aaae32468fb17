"""Small files in the cache that say something of a package, or of an EP, on this machine.

::

    <root>/compiled/<key>.json                          a variant compiled here for want of one that fits
    <root>/tuning/<machine>/<digest>-<component>.json   what was measured here
    <root>/answers/<key>.json                           what an EP's check said (toolchains.kept_answers)
    <root>/results/history/<key>.json                   what went into a build (aotpack.builder.results)

They count towards the cache's limit. When room is needed they go last: each is a few kilobytes and took
seconds or minutes to find out.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from aotpack.cache.layout import ANSWERS, COMPILED, RESULTS, TUNING, VARIANTS, claim, ours, partial_name
from aotpack.files.regular import discard, discard_if_not_regular, is_folder, make_folder, read_regular

__all__ = ["MAX_NOTE", "damaged", "notes", "read_note", "sweep", "write_note"]

#: Where they lie (`aotpack.cache.layout.ours`).
_FOLDERS = (COMPILED, ANSWERS, f"{TUNING}/*", f"{RESULTS}/history")

#: Bytes. A variant with all its files and settings has some hundred kilobytes at most.
MAX_NOTE = 16 * 1024 * 1024

#: Seconds after which what somebody is writing counts as left behind: it takes milliseconds.
_STALE = 3600


def read_note(path: Path, limit: int = MAX_NOTE) -> bytes:
    """A note of at most `limit` bytes; what is not a regular file is none.

    Raises:
        OSError: it is not there, is larger, or cannot be read.
    """
    return read_regular(path, limit)


def write_note(root: Path, path: Path, text: str, *, used_ns: int | None = None) -> None:
    """Write a note in place of an earlier one. Others who read it meanwhile see the one or the other.

    Args:
        root: of the cache; it is made and marked if it is new.
        path: of the note in it.
        text: what it says.
        used_ns: when it was last used, in nanoseconds since the epoch; by default now.

    Raises:
        UsageError: the folder is not a cache of aotpack.
        OSError: it cannot be written.
    """
    claim(root)
    partial = path.with_name(partial_name())
    try:
        try:
            _write(root, partial, text)
        except FileNotFoundError:
            # A sweep removed the folder, which was empty.
            _write(root, partial, text)
        if used_ns is not None:
            os.utime(partial, ns=(used_ns, used_ns))
        if is_folder(path):
            # All else is replaced.
            discard(path)
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def _write(root: Path, path: Path, text: str) -> None:
    for folder in reversed([each for each in path.parents if root in each.parents]):
        make_folder(folder)
    path.write_text(text, encoding="utf-8")


def notes(root: Path) -> list[tuple[Path, int, float]]:
    """(path, bytes, seconds since the epoch of its last use) of each, the least recently used first."""
    found = []
    for path in _all(root):
        with contextlib.suppress(OSError):
            status = os.lstat(path)
            if path.suffix == ".json":
                found.append((path, status.st_size, status.st_mtime))
    return sorted(found, key=lambda note: (note[2], note[0]))


def damaged(root: Path) -> Iterator[Path]:
    """Those that are not JSON, or not even regular files."""
    for path, _, _ in notes(root):
        try:
            json.loads(read_note(path))
        except (OSError, ValueError, RecursionError):
            yield path


def sweep(root: Path) -> None:
    """Remove what dead processes left, and what is said of variants that are no longer in the cache."""
    for path in _all(root):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            discard_if_not_regular(path)
            if path.suffix != ".json":
                gone = time.time() - os.lstat(path).st_mtime > _STALE
            else:
                gone = path.parent.name == COMPILED and not _is_held(root, path)
            if gone:
                path.unlink()
    for folder in ours(root, TUNING):
        # There is one for each state of this machine, such as each driver. This fails if it is not empty.
        with contextlib.suppress(OSError):
            folder.rmdir()


def _is_held(root: Path, note: Path) -> bool:
    return is_folder(Path(root, VARIANTS, json.loads(read_note(note))["key"]))


def _all(root: Path) -> Iterator[Path]:
    for folder in _FOLDERS:
        yield from ours(root, folder)
