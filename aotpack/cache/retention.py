"""What the cache holds, how many bytes that is, and what goes when there are too many."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from aotpack.cache import notes
from aotpack.cache.layout import BUILDS, FILES, LOCKS, RESULTS, SENT, VARIANTS, WORK, ours
from aotpack.cache.stamp import Stamp
from aotpack.cache.variant_folder import STAMP, VariantInUse, locked, remove
from aotpack.errors import OutputError
from aotpack.files.regular import discard, discard_if_not_regular, is_folder, make_folder

__all__ = ["CacheEntry", "entries", "remove_locks", "size", "sweep", "sweep_builds", "trim"]

#: Seconds after which what a build or a farm is writing counts as left behind: it takes milliseconds to
#: minutes.
_STALE = 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEntry:
    """A variant in the cache."""

    key: str
    package: str
    component: str
    variant: str
    target: str
    #: Bytes of its files, shared ones included.
    size: int
    #: When it was last asked for, in seconds since the epoch.
    used: float
    #: The folder of its files.
    path: Path


@dataclass(frozen=True, slots=True)
class _Item:
    """Something that can be removed by itself."""

    path: Path
    used: float
    #: (device, inode) of each of its files to its bytes.
    files: dict[tuple[int, int], int]
    #: Of a variant.
    entry: CacheEntry | None = None


@dataclass(slots=True)
class _Total:
    """Bytes of items; what several of them link to counts once."""

    bytes: int = 0
    _links: Counter[tuple[int, int]] = field(default_factory=Counter)

    def add(self, item: _Item) -> None:
        for inode, length in item.files.items():
            self.bytes += 0 if self._links[inode] else length
            self._links[inode] += 1

    def subtract(self, item: _Item) -> None:
        for inode, length in item.files.items():
            self._links[inode] -= 1
            self.bytes -= 0 if self._links[inode] else length


def entries(root: Path) -> list[CacheEntry]:
    """The variants in a cache, the least recently used first."""
    found = []
    for folder in ours(root, VARIANTS):
        stamp = Stamp.read(folder / STAMP)
        with contextlib.suppress(OSError):
            used = os.lstat(folder / STAMP).st_mtime
            if stamp is not None:
                found.append(
                    CacheEntry(
                        key=folder.name,
                        package=stamp.package,
                        component=stamp.component,
                        variant=stamp.variant,
                        target=stamp.target,
                        size=stamp.size,
                        used=used,
                        path=folder / "files",
                    )
                )
    return sorted(found, key=lambda entry: (entry.used, entry.key))


def size(root: Path) -> int:
    """Bytes of all that a cache holds."""
    return _total([*_large(root), *_notes(root), *_in_progress(root)]).bytes


def trim(root: Path, limit: int, *, grace: float) -> list[CacheEntry]:
    """Remove the least recently used variants and results of builds until `limit` bytes are left, then notes.

    Args:
        root: of the cache.
        limit: bytes.
        grace: seconds; what was used so lately stays.

    Returns:
        The variants that were removed. One that is being put together, or loaded, stays.

    Raises:
        OutputError: something that should go cannot be removed; all else was.
    """
    removed: list[CacheEntry] = []
    failed: OutputError | None = None
    large, small = _large(root), _notes(root)
    total = _total([*large, *small, *_in_progress(root)])
    for item in (*large, *small):
        if 0 < limit >= total.bytes:
            break
        if abs(time.time() - item.used) < grace:
            # A clock that was wrong once, here or on a server, must not keep a thing for ever.
            continue
        try:
            _remove(root, item)
        except (TimeoutError, VariantInUse):
            continue
        except OSError as error:
            # Another user's; or, on Windows, one that a session has open. The next one may be free.
            failed = failed or OutputError(
                f"{_called(item)} cannot be removed: {error.strerror or error}", where=root
            )
            continue
        total.subtract(item)
        if item.entry is not None:
            removed.append(item.entry)
    _drop_unshared(root)
    if failed is not None:
        raise failed
    return removed


def sweep(root: Path) -> None:
    """Remove what dead processes left."""
    for path in ours(root, WORK):
        # A lock that is held is an OSError too.
        with contextlib.suppress(OSError), locked(root, path.name, timeout=0):
            discard(path)
    # Without a stamp nobody finds a variant, and it would lie there for ever.
    for path in ours(root, VARIANTS):
        if Stamp.read(path / STAMP) is None:
            with contextlib.suppress(OSError), locked(root, path.name, timeout=0):
                if Stamp.read(path / STAMP) is None:
                    remove(root, path.name)
    _drop_unshared(root)
    notes.sweep(root)
    for folder in (SENT, f"{RESULTS}/work"):
        for path in ours(root, folder):
            with contextlib.suppress(OSError):
                if not _is_key(path.name) and time.time() - os.lstat(path).st_mtime > _STALE:
                    discard(path)
    sweep_builds(root)


def remove_locks(root: Path) -> None:
    """Remove the files of locks that nobody holds."""
    for path in ours(root, LOCKS):
        if path.suffix == ".lock":
            with contextlib.suppress(OSError), locked(root, path.stem, timeout=0):
                # Whoever waits for it finds that it has gone, and makes a new one.
                path.unlink()


def sweep_builds(root: Path) -> None:
    """Remove what builds that were killed left, and the files of locks that no build holds."""
    import filelock

    for path in ours(root, BUILDS):
        lock = path if path.suffix == ".lock" else path.with_name(f"{path.name}.lock")
        discard_if_not_regular(lock)
        with contextlib.suppress(OSError), filelock.FileLock(lock, timeout=0):
            # Whoever holds the lock is alive.
            discard(path.with_suffix(""))
            lock.unlink()


def _large(root: Path) -> list[_Item]:
    """Variants, results of builds and models sent for them, the least recently used first."""
    found = [_Item(entry.path.parent, entry.used, _files(entry.path), entry) for entry in entries(root)]
    for path in ours(root, RESULTS):
        if _is_key(path.name):
            found.append(_Item(path, _used(path / "done.json", path), _files(path)))
    found += [_Item(path, _used(path), _files(path)) for path in ours(root, SENT)]
    return sorted(found, key=lambda item: (item.used, item.path))


def _notes(root: Path) -> list[_Item]:
    found = []
    for path, length, used in notes.notes(root):
        found.append(_Item(path, used, {(0, hash(path)): length}))
    return found


def _in_progress(root: Path) -> list[_Item]:
    """What is being put together or built, or was left by a process that was killed."""
    places = (*ours(root, WORK), *ours(root, f"{RESULTS}/work"), *ours(root, BUILDS))
    return [_Item(path, 0, _files(path)) for path in places]


def _total(items: list[_Item]) -> _Total:
    total = _Total()
    for item in items:
        total.add(item)
    return total


def _remove(root: Path, item: _Item) -> None:
    if item.entry is not None:
        with locked(root, item.entry.key, timeout=0):
            remove(root, item.entry.key)
    elif is_folder(item.path):
        # First out of sight in one step, so that nobody finds a half of it.
        gone = root / WORK / f"{item.path.name}.gone"
        make_folder(root / WORK)
        discard(gone)
        item.path.rename(gone)
        discard(gone)
    else:
        item.path.unlink()


def _called(item: _Item) -> str:
    entry = item.entry
    if entry is None:
        return item.path.name
    return f"{entry.component}/{entry.variant} of {entry.package}"


def _drop_unshared(root: Path) -> None:
    for path in ours(root, FILES):
        with contextlib.suppress(OSError):
            if os.lstat(path).st_nlink < 2 or is_folder(path):
                discard(path)


def _is_key(name: str) -> bool:
    return len(name) == 64


def _used(*paths: Path) -> float:
    """When the first of the files that is there was last used."""
    for path in paths:
        with contextlib.suppress(OSError):
            return os.lstat(path).st_mtime
    return 0.0


def _files(path: Path) -> dict[tuple[int, int], int]:
    if not is_folder(path):
        inside: Iterator[Path] = iter([path])
    else:
        inside = (Path(place, name) for place, _, names in os.walk(path) for name in names)
    found = {}
    for each in inside:
        with contextlib.suppress(OSError):
            status = os.lstat(each)
            found[status.st_dev, status.st_ino] = status.st_size
    return found
