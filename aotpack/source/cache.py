"""The local cache: the files of variants as an EP reads them, put together once for all processes.

::

    <root>/
      variants/<key>/stamp.json   what is known of the files (aotpack.source.stamp)
      variants/<key>/files/...    the files
      files/<key>                 hard links: a file that several variants have is stored once
      work/<key>/                 a variant that is being put together
      locks/<two digits>.lock     held by whoever puts together, repairs or removes
      compiled/, tuning/, answers/  notes on packages and EPs (aotpack.source.notes)

A key is a digest of contents, so packages that hold the same variant share it. A variant's folder gets its
name when it is whole: whoever is killed leaves at most a folder in ``work``, which the next one sweeps. Files
are read-only, and checked against the sha256 of their segments before they are written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import filelock
import platformdirs

from aotpack._size import parse_size
from aotpack.container.copying import Lender
from aotpack.container.reader import PackageReader
from aotpack.errors import OutputError
from aotpack.manifest import Component, File, Manifest, Variant
from aotpack.model_check import Allowance
from aotpack.model_files import check_model_file
from aotpack.source import notes
from aotpack.source.lending import lenders
from aotpack.source.stamp import Stamp, is_right, segments_of, stamp_file

__all__ = ["DEFAULT_LIMIT", "Cache", "CacheEntry"]

#: Bytes. Some dozens of models of the size that runs on a laptop.
DEFAULT_LIMIT = 16 * 1024**3

#: Seconds. What was asked for so lately may not be loaded yet; it is not removed unless that is asked for.
_GRACE = 600

_ELSEWHERE = "set AOTPACK_CACHE to another folder"

#: Links are made to a file, never to what a link points to; Windows can do no other and refuses to be told.
_ITSELF = {"follow_symlinks": False} if os.link in os.supports_follow_symlinks else {}


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


class Cache:
    """The cache in one folder. Any number of processes and threads may use it at once.

    Args:
        root: the folder; by default ``$AOTPACK_CACHE``, or else the user's cache folder.
        limit: bytes that it may hold, the least recently used go first; by default ``$AOTPACK_CACHE_LIMIT``,
            such as ``500M`` or ``20G``, or else `DEFAULT_LIMIT`.
    """

    def __init__(self, root: Path | None = None, *, limit: int | None = None) -> None:
        chosen = os.environ.get("AOTPACK_CACHE")
        self.root = root or (Path(chosen) if chosen else platformdirs.user_cache_path("aotpack"))
        self.limit = _limit_from_environment() if limit is None else limit
        self._variants = self.root / "variants"
        self._files = self.root / "files"
        self._work = self.root / "work"
        self._locks = self.root / "locks"

    def materialise(
        self,
        reader: PackageReader,
        component: Component,
        variant: Variant,
        allowance: Allowance | None = None,
    ) -> Path:
        """The folder that holds the files of a variant of the package that `reader` has open.

        A variant that is there costs a stat for each of its files. One whose files were changed since is
        checked byte by byte, and put right from the package.

        What its ONNX may ask for (`aotpack.model_check`) is checked when it is put together: a variant that
        is there was checked with the same `allowance`, which is part of its key.

        Args:
            reader: has the package open.
            component: what the variant is of.
            variant: what is wanted.
            allowance: what its ONNX may have beside what every package may; None where the files are no input
                of a session, and nothing of them is checked but their digests.

        Raises:
            DigestMismatch, FormatError: the package is damaged.
            NotAllowed: its ONNX asks for what it may not. Nothing of it is kept.
            OutputError: the cache cannot be written.
        """
        key = _variant_key(variant, reader.manifest, allowance)
        entry = self._variants / key
        if not self._is_there(entry, variant):
            with self._written(), self._lock(key):
                # Another process may have done it while we waited.
                if not self._is_there(entry, variant):
                    self._put_together(reader, component, variant, key, allowance)
            # What cannot be removed now is no reason not to load.
            with contextlib.suppress(OSError):
                self._remove_least_recently_used(self.limit, grace=_GRACE)
        return entry / "files"

    def find(self, key: str, variant: Variant) -> Path | None:
        """The folder of a variant's files, by its name in the cache; None if it is not there whole."""
        entry = self._variants / key
        if self._is_there(entry, variant):
            return entry / "files"
        stamp = Stamp.read(entry / "stamp.json")
        if stamp is None or not _is_whole(entry, stamp):
            return None
        return entry / "files"

    def entries(self) -> list[CacheEntry]:
        """What the cache holds, the least recently used first.

        Raises:
            OutputError: the cache cannot be read.
        """
        found = []
        for folder in _listed(self._variants):
            stamp = Stamp.read(folder / "stamp.json")
            with contextlib.suppress(OSError):
                used = (folder / "stamp.json").stat().st_mtime
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

    def size(self) -> int:
        """Bytes that the cache holds, notes too; files that variants share count once.

        Blocks that a file system lets files share count for each of them: nobody can tell them apart.
        """
        sizes = {
            (status.st_dev, status.st_ino): status.st_size
            for folder in _listed(self._variants)
            for status in _statuses(folder / "files")
        }
        return sum(sizes.values()) + sum(size for _, size, _ in notes.notes(self.root))

    def prune(self, limit: int | None = None) -> list[CacheEntry]:
        """Remove the least recently used variants until `limit` bytes are left, and what dead processes left.

        Where that is not enough, notes go too.

        Args:
            limit: bytes; by default the cache's own limit. 0 empties it.

        Returns:
            What was removed. A variant that is being put together is left alone.

        Raises:
            OutputError: something that should go cannot be removed; all else was.
        """
        with self._written():
            try:
                return self._remove_least_recently_used(self.limit if limit is None else limit, grace=0)
            finally:
                self._sweep()

    def verify(self) -> list[CacheEntry]:
        """Check every byte of every variant against its xxh3, and remove those that are damaged.

        Notes that cannot be read are removed too.

        Returns:
            The variants that were removed. They are put together again from their packages when they are next
            asked for; what was compiled here is compiled again.

        Raises:
            OutputError: the cache cannot be read, or what is damaged cannot be removed.
        """
        damaged = []
        with self._written():
            for entry in self.entries():
                with self._lock(entry.key):
                    stamp = Stamp.read(entry.path.parent / "stamp.json")
                    if stamp is None or not _is_whole(entry.path.parent, stamp):
                        self._remove(entry.key)
                        damaged.append(entry)
            for note in notes.damaged(self.root):
                _remove_file(note)
            self._sweep()
        return damaged

    def _is_there(self, entry: Path, variant: Variant) -> bool:
        stamp = Stamp.read(entry / "stamp.json")
        if stamp is None or [file.path for file in stamp.files] != [file.path for file in variant.files]:
            return False
        if not all(file.is_unchanged(entry / "files") for file in stamp.files):
            # Copied here, as into the image of a container, and only to be read: no new stamp can be written.
            return not os.access(self.root, os.W_OK) and _is_whole(entry, stamp)
        # For the order of removal. A cache that can only be read is as good to load from.
        with contextlib.suppress(OSError):
            os.utime(entry / "stamp.json")
        return True

    def _put_together(
        self,
        reader: PackageReader,
        component: Component,
        variant: Variant,
        key: str,
        allowance: Allowance | None,
    ) -> None:
        entry, work = self._variants / key, self._work / key
        manifest, sizes = reader.manifest, {file.path: file.size for file in variant.files}

        def stamp(folder: Path) -> str:
            return Stamp(
                package=manifest.name,
                component=component.name,
                variant=variant.id,
                target=variant.target,
                files=tuple(stamp_file(folder / "files", file, manifest) for file in variant.files),
            ).to_json()

        if all(is_right(entry / "files" / f.path, segments_of(f, manifest)) for f in variant.files):
            # Touched and not changed. A session may have the files open, and Windows moves no such file.
            if allowance is not None:
                model = variant.files[0].path
                check_model_file(entry / "files" / model, model, sizes, allowance)
            notes.write_note(entry / "stamp.json", stamp(entry))
            return
        for folder in (self._variants, self._files, work.parent):
            folder.mkdir(parents=True, exist_ok=True)
        _remove_tree(work)
        lent = lenders(variant, manifest, _listed(self._variants))
        try:
            for index, file in enumerate(variant.files):
                dest = work / "files" / file.path
                dest.parent.mkdir(parents=True, exist_ok=True)
                self._put(reader, file, dest, entry / "files" / file.path, lent)
                if index == 0 and allowance is not None:
                    check_model_file(dest, file.path, sizes, allowance)
            (work / "stamp.json").write_text(stamp(work), encoding="utf-8")
            self._remove(key)
            work.rename(entry)
        finally:
            _remove_tree(work)

    def _put(
        self, reader: PackageReader, file: File, dest: Path, former: Path, lent: Mapping[int, Lender]
    ) -> None:
        """Make the file `dest`, by a link to the same bytes if the cache has them."""
        shared = self._files / _file_key(file, reader.manifest)
        for twin in (shared, former):
            if is_right(twin, segments_of(file, reader.manifest)):
                with contextlib.suppress(OSError):
                    os.link(twin, dest, **_ITSELF)
                    return
        reader.copy_file(file, dest, lent)
        if os.name != "nt":
            # Windows could not remove it again.
            dest.chmod(0o444)
        # Not every file system has hard links, and an EP needs none.
        with contextlib.suppress(OSError):
            shared.unlink(missing_ok=True)
            os.link(dest, shared, **_ITSELF)

    def _remove_least_recently_used(self, limit: int, *, grace: float) -> list[CacheEntry]:
        removed: list[CacheEntry] = []
        failed: OutputError | None = None
        size = self.size()
        for entry in self.entries():
            if size <= limit or _is_within(grace, entry.used):
                break
            try:
                with self._lock(entry.key, timeout=0):
                    self._remove(entry.key)
                removed.append(entry)
                size = self.size()
            except filelock.Timeout:
                pass
            except OSError as error:
                # Another user's; or, on Windows, one that a session has open. The next one may be free.
                failed = failed or OutputError(
                    f"{entry.component}/{entry.variant} of {entry.package} cannot be removed: "
                    f"{error.strerror or error}",
                    where=self.root,
                )
        self._drop_unshared()
        for path, length, used in notes.notes(self.root):
            if size <= limit or _is_within(grace, used):
                break
            _remove_file(path)
            size -= length
        if failed is not None:
            raise failed
        return removed

    def _remove(self, key: str) -> None:
        # First out of sight in one step, so that nobody finds a half of it.
        with contextlib.suppress(FileNotFoundError):
            gone = self._work / f"{key}.gone"
            _remove_tree(gone)
            gone.parent.mkdir(parents=True, exist_ok=True)
            (self._variants / key).rename(gone)
            _remove_tree(gone)

    def _drop_unshared(self) -> None:
        for path in _listed(self._files):
            with contextlib.suppress(OSError):
                if path.stat(follow_symlinks=False).st_nlink < 2:
                    path.unlink()

    def _sweep(self) -> None:
        for path in _listed(self._work):
            # A lock that is held is an OSError too.
            with contextlib.suppress(OSError), self._lock(path.name, timeout=0):
                _remove_tree(path)
        # Without a stamp nobody finds a variant, and it would lie there for ever.
        for path in filter(_is_unknown, _listed(self._variants)):
            with contextlib.suppress(OSError), self._lock(path.name, timeout=0):
                if _is_unknown(path):
                    self._remove(path.name)
        self._drop_unshared()
        notes.sweep(self.root)

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        """Tell errors of the system in the words of the tree."""
        try:
            yield
        except OSError as error:
            # Errors of the tree that inherit OSError say more than we could.
            if error.errno is None:
                raise
            raise OutputError(
                f"cannot be written: {error.strerror}", where=self.root, hint=_ELSEWHERE
            ) from error

    @contextlib.contextmanager
    def _lock(self, key: str, *, timeout: float = -1) -> Iterator[None]:
        self._locks.mkdir(parents=True, exist_ok=True)
        # A lock file can never be removed safely: so there are 256 of them and not one for each variant.
        with filelock.FileLock(self._locks / f"{key[:2]}.lock", timeout=timeout):
            yield


def _file_key(file: File, manifest: Manifest) -> str:
    # Not the file's own sha256: a load checks the segments', and only what was checked may name a content.
    parts = [(manifest.segments[index].size, manifest.segments[index].sha256) for index in file.segments]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _variant_key(variant: Variant, manifest: Manifest, allowance: Allowance | None) -> str:
    # All that its session is made of, so that what was checked for one is never taken for another.
    parts = (
        [(file.path, _file_key(file, manifest)) for file in variant.files],
        (variant.toolchain, variant.ep, variant.device, variant.session.model_dump()),
        allowance and (sorted(allowance.domains), sorted(allowance.attributes)),
    )
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OutputError(f"cannot be read: {error.strerror}", where=folder, hint=_ELSEWHERE) from None


def _statuses(folder: Path) -> Iterator[os.stat_result]:
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                yield Path(place, name).stat(follow_symlinks=False)


def _is_within(seconds: float, used: float) -> bool:
    # A clock that was wrong once, here or on a server, must not keep a thing for ever.
    return abs(time.time() - used) < seconds


def _is_unknown(entry: Path) -> bool:
    return Stamp.read(entry / "stamp.json") is None


def _is_whole(entry: Path, stamp: Stamp) -> bool:
    return all(is_right(entry / "files" / file.path, file.segments) for file in stamp.files)


def _remove_file(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _remove_tree(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _limit_from_environment() -> int:
    text = os.environ.get("AOTPACK_CACHE_LIMIT")
    return parse_size(text, "AOTPACK_CACHE_LIMIT") if text else DEFAULT_LIMIT
