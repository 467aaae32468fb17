"""The names in a cache folder: which are ours, and whether a folder is a cache of ours at all.

::

    <root>/
      CACHEDIR.TAG                          marks the folder, for aotpack and for programs that make backups
      variants/<key>/stamp.json             what is known of the files (aotpack.cache.stamp)
      variants/<key>/files/...              the files of a variant
      files/<key>                           hard links: a file that several variants have is stored once
      work/<key>[.gone]/                    a variant that is being put together, or removed
      locks/<two digits>.lock               held by whoever puts together, repairs or removes
      compiled/, tuning/, answers/          notes on packages and EPs (aotpack.cache.notes)
      results/, sent/, builds/              results of builds, models sent for them, builds in progress

`AOTPACK_CACHE` may name any folder by mistake, a home or a project. So nothing is written to a folder that is
neither empty nor marked, and nothing is ever removed whose name is not of one of the forms above.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from aotpack.errors import OutputError, UsageError
from aotpack.files.regular import discard_if_not_regular, is_folder, read_regular

__all__ = [
    "ANSWERS",
    "BUILDS",
    "COMPILED",
    "FILES",
    "LOCKS",
    "NO_HOME",
    "RESULTS",
    "SENT",
    "TAG",
    "TUNING",
    "VARIANTS",
    "WORK",
    "check_is_cache",
    "claim",
    "is_marked",
    "not_written",
    "ours",
    "partial_name",
]

#: The cache of a user without a home folder: no system makes a folder in a device.
NO_HOME = Path(os.devnull, "aotpack").absolute()
#: The folder of variants, one folder for each.
VARIANTS = "variants"
#: The folder of contents that variants share.
FILES = "files"
#: The folder of what is being put together or removed.
WORK = "work"
#: The folder of the locks of keys.
LOCKS = "locks"
#: The folder of what EPs answered.
ANSWERS = "answers"
#: The folder of notes on what was compiled here.
COMPILED = "compiled"
#: The folder of what was measured here.
TUNING = "tuning"
#: The folder of results of builds.
RESULTS = "results"
#: The folder of models that were sent here to be built.
SENT = "sent"
#: The folder of builds in progress.
BUILDS = "builds"

_SHA256 = r"[0-9a-f]{64}"
_MD5_SIZED = r"[0-9a-f]{32}"
#: What is being written: by `write_note`, and by Python's tempfile.
_PARTIAL = r"\.[0-9a-f]{12}\.aotpack-partial|tmp[a-z0-9_]{8}"

#: Folder, relative to the root, to the names that aotpack gives to what is directly in it.
_NAMES = {
    VARIANTS: re.compile(_SHA256),
    FILES: re.compile(_SHA256),
    WORK: re.compile(rf"{_SHA256}(\.gone)?"),
    LOCKS: re.compile(r"[0-9a-f]{2}\.lock|\.filelock-probe-[0-9a-f]{32}"),
    COMPILED: re.compile(rf"{_SHA256}\.json|{_PARTIAL}"),
    ANSWERS: re.compile(rf"{_SHA256}\.json|{_PARTIAL}"),
    TUNING: re.compile(_SHA256),
    f"{TUNING}/*": re.compile(rf"{_SHA256}-[A-Za-z0-9][A-Za-z0-9._+-]{{0,127}}\.json|{_PARTIAL}"),
    RESULTS: re.compile(rf"{_SHA256}|history|work"),
    f"{RESULTS}/history": re.compile(rf"{_MD5_SIZED}\.json|\.[0-9]+-{_MD5_SIZED}|{_PARTIAL}"),
    f"{RESULTS}/work": re.compile(_PARTIAL),
    SENT: re.compile(rf"{_SHA256}|\.[a-z0-9_]{{8}}|{_PARTIAL}"),
    BUILDS: re.compile(rf"{_MD5_SIZED}(\.lock)?"),
}

#: The file that marks the folder.
TAG = "CACHEDIR.TAG"
#: The first line by https://bford.info/cachedir/; programs that make backups look for it.
_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"
_TAG_TEXT = _SIGNATURE + (
    b"\n# This folder is a cache of aotpack. `aotpack cache prune --limit 0` empties it.\n"
    b"# About cache directory tags, see https://bford.info/cachedir/\n"
)
#: Bytes that are read of a tag.
_MAX_TAG = 4096

#: What systems and desktops put into any folder, such as the root of a volume that is mounted for a cache.
_IGNORED = {"lost+found", ".DS_Store", "desktop.ini", "Thumbs.db"}


def ours(root: Path, folder: str) -> Iterator[Path]:
    """What lies in a folder of the cache under a name that aotpack gives, in order; nothing else is listed.

    Args:
        root: of the cache.
        folder: such as ``variants`` or ``results/work``; ``tuning/*`` are all folders in ``tuning``.
    """
    if folder == f"{TUNING}/*":
        places = [path for path in ours(root, TUNING) if is_folder(path)]
    else:
        steps = folder.split("/")
        places = [root.joinpath(*steps)]
        if not all(is_folder(root.joinpath(*steps[: index + 1])) for index in range(len(steps))):
            return
    for place in places:
        with contextlib.suppress(OSError):
            yield from (
                place / name
                for name in sorted(path.name for path in place.iterdir())
                if _NAMES[folder].fullmatch(name)
            )


def partial_name() -> str:
    """A name for a file that is being written in one of the folders of the cache."""
    return f".{secrets.token_hex(6)}.aotpack-partial"


def is_marked(root: Path) -> bool:
    """Whether aotpack has marked the folder."""
    try:
        text = read_regular(root / TAG, _MAX_TAG)
    except OSError:
        return False
    return text.startswith(_SIGNATURE) and b"aotpack" in text


def check_is_cache(root: Path) -> bool:
    """Whether there is a cache in the folder `root`; False if there is nothing yet.

    Raises:
        UsageError: the folder holds something else.
        OSError: it cannot be read.
    """
    if is_marked(root):
        return True
    try:
        names = [path.name for path in root.iterdir() if path.name not in _IGNORED]
    except FileNotFoundError:
        return False
    if set(names) <= {TAG} or all(name.startswith(f".{TAG}.") for name in names):
        # Empty but for a tag that somebody made by hand, or that another process is making.
        return False
    # Another process may have marked it since; one of an earlier release had no tag and is known by its
    # names.
    if not is_marked(root) and not _is_unmarked_cache(root, names):
        raise UsageError(
            "is neither empty nor a cache of aotpack",
            where=root,
            hint="set AOTPACK_CACHE to a new or an empty folder",
        )
    return True


def not_written(error: OSError, root: Path, *, verb: str = "written") -> OutputError:
    """What to raise where the system refuses to write to the cache at `root`."""
    if root == NO_HOME:
        hint = "set AOTPACK_CACHE to a folder that can be written, or set HOME"
        return OutputError("the user has no home folder", where="the cache", hint=hint)
    hint = "set AOTPACK_CACHE to another folder"
    return OutputError(f"cannot be {verb}: {error.strerror or error}", where=root, hint=hint)


def claim(root: Path) -> None:
    """Make the folder `root` if there is none, and mark it.

    Raises:
        UsageError: the folder holds something else, or there is a file of its name.
        OSError: it cannot be made or written.
    """
    if is_marked(root):
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UsageError(
            "is a file, or a link that leads nowhere", where=root, hint="set AOTPACK_CACHE to a folder"
        ) from None
    check_is_cache(root)
    partial = root / f".{TAG}.{secrets.token_hex(6)}"
    try:
        partial.write_bytes(_TAG_TEXT)
        discard_if_not_regular(root / TAG)
        partial.replace(root / TAG)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _is_unmarked_cache(root: Path, names: list[str]) -> bool:
    """Whether `root` holds what caches hold and nothing else, and at least one thing."""
    found = 0
    for name in names:
        if name == TAG or name.startswith(f".{TAG}."):
            continue
        if name not in _NAMES or not is_folder(root / name):
            return False
        inside = [path.name for path in (root / name).iterdir()]
        if not all(_NAMES[name].fullmatch(each) for each in inside):
            return False
        found += len(inside)
    return found > 0
