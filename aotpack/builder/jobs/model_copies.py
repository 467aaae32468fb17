"""Copies of models for compilers, which may change or remove what they are given.

Each job gets copies of its own where that is cheap: where the file system shares blocks (reflinks), or where
the model is small. A large model on another file system is copied once for all jobs of a build. What a job
was given is compared with its stamp afterwards, the time of the last change of the inode included, which no
program can set: a job that changed a shared copy, or ran beside one that did, is done again with a copy of
its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aotpack.builder.jobs.untrusted_files import copy_contents

__all__ = ["FileStamp", "GivenModel", "ModelCopies", "stamp_of"]

#: Bytes of a model that are copied for each job: a tenth of a second, less than a worker takes to start.
_COPIED_FOR_EACH = 256 * 1024 * 1024
#: FICLONE of linux/fs.h: make a file of the blocks of another.
_CLONE = 0x40049409

#: Device, inode, size, and the times of the last change of contents and of the inode.
FileStamp = tuple[int, ...]


def stamp_of(path: Path) -> FileStamp | None:
    """What changes when a file is changed or replaced; None if it is not there."""
    try:
        status = path.stat(follow_symlinks=False)
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class GivenModel:
    """A copy of a model, as one job got it."""

    #: The ONNX file, its external data beside it.
    path: Path
    #: Bytes of all its files.
    size: int
    #: Whether other jobs got the same one.
    shared: bool
    stamps: tuple[tuple[Path, FileStamp | None], ...]

    def changed(self) -> bool:
        """Whether a file of it is no longer what was given."""
        return any(stamp_of(path) != stamp for path, stamp in self.stamps)


class ModelCopies:
    """Makes the copies. For any number of threads.

    Args:
        folder: takes what several jobs share; made when it is needed. None: nothing is shared.
        linked: the models belong to the one job that asks, and may be linked instead of copied.
    """

    def __init__(self, folder: Path | None = None, *, linked: bool = False) -> None:
        self._folder = folder
        self._linked = linked
        self._lock = threading.Lock()
        #: Model to its shared copy.
        self._shared: dict[Path, GivenModel] = {}
        self._count = 0

    def give(self, model: Path, data: Sequence[str], folder: Path, *, private: bool = False) -> GivenModel:
        """Make a model appear in a folder.

        Args:
            model: the ONNX file.
            data: its external data, relative to its folder.
            folder: does not exist yet.
            private: make a copy for this job alone, whatever it costs.

        Raises:
            OSError: the disk is full, or the model is gone.
        """
        names = (model.name, *data)
        size = sum((model.parent / name).stat().st_size for name in names)
        if self._linked or self._folder is None or private or size <= _COPIED_FOR_EACH:
            return self._copied(model, names, folder, size)
        with contextlib.suppress(OSError):
            return self._copied(model, names, folder, size, only_cloned=True)
        # What was begun of it.
        shutil.rmtree(folder, ignore_errors=True)
        with self._lock:
            given = self._shared.get(model)
            if given is None or given.changed():
                self._count += 1
                given = self._copied(model, names, self._folder / str(self._count), size, shared=True)
                self._shared[model] = given
        # A link to the folder, for a link to each file would change their stamps.
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.symlink_to(given.path.parent, target_is_directory=True)
        return GivenModel(path=folder / model.name, size=size, shared=True, stamps=given.stamps)

    def _copied(
        self,
        model: Path,
        names: Sequence[str],
        folder: Path,
        size: int,
        *,
        shared: bool = False,
        only_cloned: bool = False,
    ) -> GivenModel:
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            if self._linked:
                os.link(model.parent / name, path)
            else:
                _copy(model.parent / name, path, only_cloned=only_cloned)
            path.chmod(0o444)
            paths.append(path)
        return GivenModel(
            path=paths[0],
            size=size,
            shared=shared,
            stamps=tuple((path, stamp_of(path)) for path in paths),
        )


def _copy(source: Path, destination: Path, *, only_cloned: bool) -> None:
    with source.open("rb") as read, destination.open("xb") as written:
        if only_cloned:
            if sys.platform != "linux":
                raise OSError("no reflinks")
            import fcntl

            fcntl.ioctl(written.fileno(), _CLONE, read.fileno())
        else:
            copy_contents(read, written)
