"""Small files in the cache that say something of a package, or of an EP, on this machine.

::

    <root>/compiled/<key>.json                          a variant compiled here for want of one that fits
    <root>/tuning/<machine>/<digest>-<component>.json   what was measured here
    <root>/answers/<key>.json                           what an EP's check said (aotpack.toolchain.answers)

They count towards the cache's limit. When room is needed they go last: each is a few kilobytes and took
seconds or minutes to find out.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["ANSWERS", "COMPILED", "TUNING", "damaged", "notes", "sweep", "write_note"]

#: The folder of what EPs answered.
ANSWERS = "answers"
#: The folder of what was compiled here.
COMPILED = "compiled"
#: The folder of what was measured here.
TUNING = "tuning"

#: Seconds after which what somebody is writing counts as left behind: it takes milliseconds.
_STALE = 3600


def write_note(path: Path, text: str) -> None:
    """Write a note in place of an earlier one. Others who read it meanwhile see the one or the other.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        partial = Path(file.name)
        try:
            file.write(text)
            file.close()
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def notes(root: Path) -> list[tuple[Path, int, float]]:
    """(path, bytes, seconds since the epoch of its last use) of each, the least recently used first."""
    found = []
    for path in _files(root):
        with contextlib.suppress(OSError):
            status = path.stat()
            if path.suffix == ".json":
                found.append((path, status.st_size, status.st_mtime))
    return sorted(found, key=lambda note: (note[2], note[0]))


def damaged(root: Path) -> Iterator[Path]:
    """Those that are not JSON."""
    for path, _, _ in notes(root):
        try:
            json.loads(path.read_bytes())
        except (OSError, ValueError):
            yield path


def sweep(root: Path) -> None:
    """Remove what dead processes left, and what is said of variants that are no longer in the cache."""
    for path in _files(root):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            if path.suffix != ".json":
                gone = time.time() - path.stat().st_mtime > _STALE
            else:
                gone = path.parent.name == COMPILED and not _is_held(root, path)
            if gone:
                path.unlink()


def _is_held(root: Path, note: Path) -> bool:
    return Path(root, "variants", json.loads(note.read_bytes())["key"]).is_dir()


def _files(root: Path) -> Iterator[Path]:
    for folder in (COMPILED, TUNING, ANSWERS):
        yield from (path for path in (root / folder).rglob("*") if path.is_file())
