"""The local cache: the files of variants as an EP reads them, put together once for all processes.

`aotpack.cache.layout` shows the folder. A key is a digest of contents, so packages that hold the same
variant share it. A variant's folder gets its name when it is whole, and its stamp when its files are on the
disk: whoever is killed leaves at most a folder in ``work``, which the next one sweeps, and a loss of power
leaves files without a stamp, which are checked. Files are read-only, and checked against the sha256 of their
segments before they are written.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from aotpack.cache import notes, retention
from aotpack.cache.assembly import check_variant_model, put_together, right_files
from aotpack.cache.keys import variant_key
from aotpack.cache.layout import NO_HOME, VARIANTS, check_is_cache, claim, not_written
from aotpack.cache.notes import write_note
from aotpack.cache.retention import CacheEntry
from aotpack.cache.stamp import FileStamp, Stamp, is_whole
from aotpack.cache.variant_folder import STAMP, acquire, is_pinned_folder, locked, pin, remove, unpin
from aotpack.common.sizes import parse_size
from aotpack.container.reader import PackageReader
from aotpack.errors import OutputError, UsageError
from aotpack.files.durable import sync_folder, sync_tree
from aotpack.files.regular import discard
from aotpack.manifest.model_check import Allowance
from aotpack.manifest.values import Component, Manifest, Variant

if TYPE_CHECKING:
    import filelock

__all__ = ["DEFAULT_LIMIT", "Cache", "CacheEntry", "Held"]

#: Bytes. Some dozens of models of the size that runs on a laptop.
DEFAULT_LIMIT = 16 * 1024**3

#: Seconds. What was asked for so lately may not be loaded yet; it is not removed unless that is asked for.
_GRACE = 600

_ELSEWHERE = "set AOTPACK_CACHE to another folder"

_log = logging.getLogger(__name__)


class Held:
    """The files of a variant, which nobody removes for room until `close`.

    Attributes:
        folder: of the files.
        key: of the variant (`Cache.hold_known`).
    """

    def __init__(
        self,
        entry: Path,
        pinned: int,
        files: tuple[FileStamp, ...],
        writing: threading.Thread | None = None,
    ) -> None:
        self.folder = entry / "files"
        self.key = entry.name
        self._entry = entry
        self._pinned = pinned
        self._files = files
        self._writing = writing

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def is_intact(self) -> bool:
        """Whether the files are still those that were looked at; damaged ones may have been replaced."""
        return is_pinned_folder(self._pinned, self._entry) and all(
            file.is_unchanged(self.folder) for file in self._files
        )

    def wait(self) -> None:
        """Wait until files that were just put together are on the disk, and have their stamp."""
        if self._writing is not None:
            self._writing.join()

    def close(self) -> None:
        """Let go of the files, once those that were just put together are on the disk."""
        self.wait()
        unpin(self._pinned)


class Cache:
    """The cache in one folder. Any number of processes and threads may use it at once.

    Args:
        root: the folder; by default ``$AOTPACK_CACHE``, or else the user's cache folder.
        limit: bytes that it may hold, the least recently used go first; by default ``$AOTPACK_CACHE_LIMIT``,
            such as ``500M`` or ``20G``, or else `DEFAULT_LIMIT`.

    Raises:
        UsageError: a variable of the environment makes no sense, or the folder's name is not UTF-8.
    """

    def __init__(self, root: Path | None = None, *, limit: int | None = None) -> None:
        # Absolute, for a program may change its working folder between two loads.
        self.root = (_folder_from_environment() if root is None else root).absolute()
        try:
            str(self.root).encode()
        except UnicodeEncodeError:
            # Its bindings take paths as texts; it would fail on each variant, and not say why.
            raise UsageError(
                "is not UTF-8, so that ONNX Runtime opens no file in it", where=self.root, hint=_ELSEWHERE
            ) from None
        self.limit = _limit_from_environment() if limit is None else limit

    def materialise(
        self,
        reader: PackageReader,
        component: Component,
        variant: Variant,
        allowance: Allowance | None = None,
    ) -> Path:
        """The folder that holds the files of a variant. As `hold`, but nothing keeps them there."""
        with self.hold(reader, component, variant, allowance) as held:
            return held.folder

    def hold(
        self,
        reader: PackageReader,
        component: Component,
        variant: Variant,
        allowance: Allowance | None = None,
    ) -> Held:
        """The files of a variant of the package that `reader` has open, kept until they are let go of.

        A variant that is there costs a stat for each of its files. One whose files were changed since is
        checked byte by byte, and put right from the package. One that is put together is written to the disk
        while its user reads it already; `Held.close` waits for that.

        What its ONNX may ask for (`aotpack.manifest.model_check`) is checked when it is put together: a
        variant that is there was checked with the same `allowance`, which is part of its key.

        Args:
            reader: has the package open.
            component: what the variant is of.
            variant: what is wanted.
            allowance: what its ONNX may have beside what every package may; None where the files are no input
                of a session, and nothing of them is checked but their digests.

        Raises:
            DigestMismatch, FormatError: the package is damaged.
            NotAllowed: its ONNX asks for what it may not. Nothing of it is kept.
            UsageError: the cache's folder holds something else.
            OutputError: the cache cannot be written.
        """
        key = variant_key(variant, reader.manifest, allowance)
        held = self._stamped(key, variant)
        if held is None and not os.access(self.root, os.W_OK):
            held = self._checked(key, variant, reader.manifest, allowance)
        if held is None:
            with self._written():
                claim(self.root)
                held = self._put_together(reader, component, variant, key, allowance)
        return held

    def hold_known(self, key: str, variant: Variant) -> Held | None:
        """The files of a variant by its key alone, kept until let go of; None if they are not whole."""
        held = self._stamped(key, variant)
        if held is not None:
            return held
        entry = self._entry(key)
        pinned = pin(entry)
        if pinned is None:
            return None
        files = None
        stamp = Stamp.read(entry / STAMP)
        if stamp is not None and stamp.is_of(variant):
            with contextlib.suppress(OSError):
                files = tuple(file.now(entry / "files") for file in stamp.files)
        if stamp is None or files is None or not is_whole(entry, files):
            unpin(pinned)
            return None
        with contextlib.suppress(OSError, UsageError), locked(self.root, key, timeout=0):
            self._write_stamp(entry, stamp.replace(files=files))
        return Held(entry, pinned, files)

    def find(self, key: str, variant: Variant) -> Path | None:
        """The folder of a variant's files, by its key; None if it is not there whole."""
        held = self.hold_known(key, variant)
        if held is None:
            return None
        held.close()
        return held.folder

    def entries(self) -> list[CacheEntry]:
        """The variants that the cache holds, the least recently used first.

        Raises:
            UsageError: the folder holds something else.
            OutputError: the cache cannot be read.
        """
        with self._written("read"):
            return retention.entries(self.root) if check_is_cache(self.root) else []

    def size(self) -> int:
        """Bytes of all that the cache holds; files that variants share count once.

        Blocks that a file system lets files share count for each of them: nobody can tell them apart.

        Raises:
            UsageError, OutputError: as for `entries`.
        """
        with self._written("read"):
            return retention.size(self.root) if check_is_cache(self.root) else 0

    def prune(self, limit: int | None = None) -> list[CacheEntry]:
        """Remove the least recently used variants and results of builds until `limit` bytes are left.

        Where that is not enough, notes go too. What dead processes left goes in any case.

        Args:
            limit: bytes; by default the cache's own limit. 0 empties it.

        Returns:
            The variants that were removed. One that is being put together or loaded is left alone.

        Raises:
            UsageError: the folder holds something else.
            OutputError: something that should go cannot be removed; all else was.
        """
        with self._written():
            if not check_is_cache(self.root):
                return []
            claim(self.root)
            chosen = self.limit if limit is None else limit
            try:
                return retention.trim(self.root, chosen, grace=0)
            finally:
                retention.sweep(self.root)
                if chosen == 0:
                    retention.remove_locks(self.root)

    def verify(self) -> list[CacheEntry]:
        """Check every byte of every variant against its xxh3, and remove those that are damaged.

        Notes that cannot be read are removed too.

        Returns:
            The variants that were removed. They are put together again from their packages when they are next
            asked for; what was compiled here is compiled again.

        Raises:
            UsageError: the folder holds something else.
            OutputError: the cache cannot be read, or what is damaged cannot be removed.
        """
        damaged = []
        with self._written():
            if not check_is_cache(self.root):
                return []
            claim(self.root)
            for entry in self.entries():
                with locked(self.root, entry.key):
                    stamp = Stamp.read(entry.path.parent / STAMP)
                    if stamp is None or not is_whole(entry.path.parent, stamp.files):
                        remove(self.root, entry.key, in_use=True)
                        damaged.append(entry)
            for note in notes.damaged(self.root):
                discard(note)
            retention.sweep(self.root)
        return damaged

    def _entry(self, key: str) -> Path:
        return self.root / VARIANTS / key

    def _stamped(self, key: str, variant: Variant) -> Held | None:
        """A variant that is there, and whose files are as its stamp says."""
        entry = self._entry(key)
        pinned = pin(entry)
        if pinned is None:
            return None
        stamp = Stamp.read(entry / STAMP)
        if (
            stamp is None
            or not stamp.is_of(variant)
            or not all(file.is_unchanged(entry / "files") for file in stamp.files)
        ):
            unpin(pinned)
            return None
        # For the order of removal. A cache that can only be read is as good to load from.
        with contextlib.suppress(OSError):
            os.utime(entry / STAMP)
        return Held(entry, pinned, stamp.files)

    def _checked(
        self, key: str, variant: Variant, manifest: Manifest, allowance: Allowance | None
    ) -> Held | None:
        """A variant that is there, each byte checked, in a cache to which no stamp can be written.

        It was copied there, as into the image of a container.
        """
        entry = self._entry(key)
        pinned = pin(entry)
        if pinned is None:
            return None
        files = right_files(entry, variant, manifest)
        if files is None:
            unpin(pinned)
            return None
        try:
            check_variant_model(entry / "files", variant, allowance)
        except BaseException:
            unpin(pinned)
            raise
        return Held(entry, pinned, files)

    def _put_together(
        self,
        reader: PackageReader,
        component: Component,
        variant: Variant,
        key: str,
        allowance: Allowance | None,
    ) -> Held:
        entry = self._entry(key)
        lock = acquire(self.root, key)
        try:
            # Another process may have done it while we waited.
            held = self._stamped(key, variant)
            if held is not None:
                lock.release()
                return held
            stamp = put_together(self.root, reader, component, variant, key, allowance)
            pinned = pin(entry)
            if pinned is None:
                raise OutputError("was removed by another program", where=entry)
        except BaseException:
            lock.release()
            raise
        # The session can be made meanwhile: it reads what the system has in memory.
        writing = threading.Thread(target=self._finish, args=(entry, stamp, lock), name="aotpack-sync")
        try:
            writing.start()
        except RuntimeError:
            # The interpreter is ending.
            self._finish(entry, stamp, lock)
            return Held(entry, pinned, stamp.files)
        return Held(entry, pinned, stamp.files, writing)

    def _finish(self, entry: Path, stamp: Stamp, lock: filelock.BaseFileLock) -> None:
        try:
            self._write_stamp(entry, stamp)
        except OSError as error:
            # The next load checks its bytes.
            _log.warning("%s: cannot be written to the disk: %s [not-synced]", entry, error)
        finally:
            lock.release()
        # What cannot be removed now is no reason not to load.
        with contextlib.suppress(OSError):
            retention.trim(self.root, self.limit, grace=_GRACE)

    def _write_stamp(self, entry: Path, stamp: Stamp) -> None:
        """Vouch for files, once they are on the disk. The caller holds the lock."""
        sync_tree(entry / "files")
        sync_folder(entry)
        write_note(self.root, entry / STAMP, stamp.to_json())

    @contextlib.contextmanager
    def _written(self, verb: str = "written") -> Iterator[None]:
        """Tell errors of the system in the words of the tree."""
        try:
            yield
        except OSError as error:
            # Errors of the tree that inherit OSError say more than we could.
            if error.errno is None:
                raise
            raise not_written(error, self.root, verb=verb) from error


def _folder_from_environment() -> Path:
    chosen = os.environ.get("AOTPACK_CACHE")
    if chosen is None or not chosen.strip():
        import platformdirs

        try:
            return platformdirs.user_cache_path("aotpack")
        except RuntimeError:
            # As in a container under a user without an entry in passwd, where HOME is not set either.
            # Packages are loaded from memory then, and what has to write says why it cannot.
            return NO_HOME
    try:
        return Path(chosen).expanduser()
    except RuntimeError:
        raise UsageError(
            "names a home folder that is not known", where=f"AOTPACK_CACHE {chosen}", hint="give a full path"
        ) from None


def _limit_from_environment() -> int:
    text = os.environ.get("AOTPACK_CACHE_LIMIT")
    return parse_size(text, "AOTPACK_CACHE_LIMIT") if text and text.strip() else DEFAULT_LIMIT
