"""Variants that were compiled on this machine because no packaged one fitted it.

::

    <cache>/compiled/<key>/variant.json   the variant, and the stamps of its files
    <cache>/compiled/<key>/files/...      the files

A key is made of the package's digest, the component and the machine's key, so another driver, EP or
onnxruntime makes the variant stale. A folder gets its name when it is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from aotpack._values import Value
from aotpack.errors import OutputError
from aotpack.machine import Machine
from aotpack.manifest import File, Variant

__all__ = ["LocalVariants"]

_BLOCK = 4 * 1024 * 1024

#: Each one that fails is one in which another process kept its variant.
_ATTEMPTS = 100


class _Entry(Value):
    variant: Variant
    #: (size in bytes, inode, mtime_ns) of each file when it was written.
    stamps: tuple[tuple[int, int, int], ...]


class LocalVariants:
    """The compiled variants in a cache's folder. Any number of processes may use it at once."""

    def __init__(self, cache_root: Path) -> None:
        self._root = cache_root / "compiled"

    def find(self, digest: str, component: str, machine: Machine) -> tuple[Variant, Path] | None:
        """The variant for this machine and the folder of its files; None if there is none that is whole."""
        folder = self._root / _key(digest, component, machine)
        try:
            entry = _Entry.model_validate_json((folder / "variant.json").read_bytes())
        except (OSError, ValidationError):
            return None
        for file, stamp in zip(entry.variant.files, entry.stamps, strict=True):
            path = folder / "files" / file.path
            with contextlib.suppress(OSError):
                if _stamp(path) == stamp or _sha256(path) == file.sha256:
                    continue
            return None
        return entry.variant, folder / "files"

    def keep(
        self,
        digest: str,
        component: str,
        machine: Machine,
        variant: Variant,
        files: Iterable[tuple[str, Path]],
    ) -> tuple[Variant, Path]:
        """Take the files of a variant in, in place of an earlier one.

        Raises:
            OutputError: the cache cannot be written.
        """
        folder = self._root / _key(digest, component, machine)
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(prefix=".", dir=self._root))
        except OSError as error:
            raise OutputError(error.strerror or str(error), where=self._root) from None
        try:
            kept, stamps = [], []
            for name, source in files:
                dest = work / "files" / name
                dest.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, dest)
                stamps.append(_stamp(dest))
                kept.append(File(path=name, size=dest.stat().st_size, sha256=_sha256(dest), segments=()))
            variant = variant.model_copy(update={"files": tuple(kept)})
            entry = _Entry(variant=variant, stamps=tuple(stamps))
            (work / "variant.json").write_text(entry.model_dump_json(), encoding="utf-8")
            _take_place(work, folder)
        except OSError as error:
            raise OutputError(error.strerror or str(error), where=folder) from None
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return variant, folder / "files"


def _take_place(work: Path, folder: Path) -> None:
    """Give `work` the name `folder`, which others may be doing as well."""
    for attempt in range(_ATTEMPTS):
        with contextlib.suppress(FileNotFoundError):
            # First out of sight in one step, so that nobody finds a half of it.
            folder.rename(work / f"former-{attempt}")
        try:
            work.rename(folder)
            break
        except OSError:
            # Another one took the place in between.
            if attempt == _ATTEMPTS - 1:
                raise
    for former in folder.glob("former-*"):
        shutil.rmtree(former, ignore_errors=True)


def _key(digest: str, component: str, machine: Machine) -> str:
    return hashlib.sha256(f"{digest}\n{component}\n{machine.key()}".encode()).hexdigest()


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat(follow_symlinks=False)
    return status.st_size, status.st_ino, status.st_mtime_ns


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
