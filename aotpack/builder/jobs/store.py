"""Files by their sha256: what was sent to this machine for builds that are done elsewhere."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

from aotpack.cache.layout import SENT, claim, ours
from aotpack.cache.variants import Cache
from aotpack.files.regular import make_folder, open_regular

__all__ = ["Store"]


class Store:
    """The files that were sent here. Any number of processes may use them at once.

    Args:
        cache: whose folder and limit they are held in.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache_root = cache.root
        self._root = cache.root / SENT
        self._limit = cache.limit

    def put(self, digest: str, data: bytes) -> None:
        """Keep `data` if it is what `digest` says.

        Raises:
            UsageError: the folder of the cache holds something else.
            OSError: it cannot be written.
        """
        if hashlib.sha256(data).hexdigest() != digest:
            return
        claim(self._cache_root)
        make_folder(self._root)
        with tempfile.NamedTemporaryFile(dir=self._root, prefix=".", delete=False) as partial:
            partial.write(data)
        Path(partial.name).chmod(0o444)
        Path(partial.name).replace(self._root / digest)

    def link(self, digest: str, place: Path) -> bool:
        """Make the file `place` with the bytes of `digest`; False if they are not here whole."""
        place.parent.mkdir(parents=True, exist_ok=True)
        kept = self._root / digest
        try:
            # Copied, for where it is needed may be another file system, and a compiler may write to it.
            with os.fdopen(open_regular(kept), "rb") as file:
                data = file.read()
            os.utime(kept)
        except OSError:
            return False
        if hashlib.sha256(data).hexdigest() != digest:
            return False
        place.write_bytes(data)
        return True

    def trim(self) -> None:
        """Remove the least recently used files beyond the limit."""
        with contextlib.suppress(OSError):
            files = [(path.stat(), path) for path in ours(self._cache_root, SENT)]
            total = sum(status.st_size for status, _ in files)
            for status, path in sorted(files, key=lambda item: item[0].st_mtime):
                if total <= self._limit:
                    break
                path.unlink()
                total -= status.st_size
