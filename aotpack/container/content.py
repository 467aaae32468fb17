"""What the writer can put into a package: files on a disk, and files of packages that are open already."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from aotpack.container.reader import PackageReader
from aotpack.container.unpacked import Unpacked
from aotpack.errors import OutputError
from aotpack.files import positional
from aotpack.manifest.values import File, Segment

__all__ = ["Content", "DiskExtent", "Extent", "StoredExtent", "StoredFile", "extents"]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in an open package. Its segments are copied as they are stored, as far as they stay whole."""

    reader: PackageReader
    file: File


#: What a file of a variant can be made of.
Content = Path | StoredFile


class Extent(Protocol):
    """Bytes that lie together."""

    @property
    def size(self) -> int:
        """Length, in bytes."""
        ...

    def read(self, offset: int, length: int, buffer: bytearray | None = None) -> memoryview:
        """All of the bytes ``offset`` to ``offset + length``.

        They may stand in `buffer`, if one is given that is as long; its former content is lost.
        """
        ...


@dataclass(frozen=True, slots=True)
class DiskExtent:
    """A whole file on a disk. Opened for each read: a build can have more files than may be open."""

    path: Path
    size: int
    _stamp: tuple[int, int]

    @classmethod
    def of(cls, path: Path) -> DiskExtent:
        """The file at `path` as it is now; reading it after it changed is an error."""
        try:
            status = path.stat()
        except OSError as error:
            raise OutputError(f"cannot be packed: {error.strerror}", where=path) from None
        return cls(path, status.st_size, (status.st_ino, status.st_mtime_ns))

    def read(self, offset: int, length: int, buffer: bytearray | None = None) -> memoryview:
        """The bytes at `offset`."""
        view = memoryview(bytearray(length) if buffer is None else buffer)[:length]
        with self.path.open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            count = positional.read_into(file.fileno(), offset, view)
        if (status.st_ino, status.st_mtime_ns) != self._stamp or count != length:
            raise OutputError(
                "changed while it was packed", where=self.path, hint="pack files that stand still"
            )
        return view


@dataclass(frozen=True, slots=True)
class StoredExtent:
    """One segment of an open package."""

    reader: PackageReader
    index: int
    #: What was read of it, and of others, before.
    unpacked: Unpacked = field(compare=False, repr=False)

    @property
    def segment(self) -> Segment:
        """What its manifest says of it."""
        return self.reader.manifest.segments[self.index]

    @property
    def size(self) -> int:
        """Length of its content, in bytes."""
        return self.segment.size

    def read(self, offset: int, length: int, buffer: bytearray | None = None) -> memoryview:
        """A part of its content, all of which is checked."""
        del buffer
        return self.unpacked.read(self.reader, self.index, offset, length)

    def read_stored(self) -> bytes:
        """The whole of it as it lies in its package; its content is checked."""
        return self.unpacked.stored(self.reader, self.index)


def extents(content: Content, unpacked: Unpacked) -> Iterator[Extent]:
    """The extents that, one after the other, are the content; segments are read by way of `unpacked`."""
    if isinstance(content, StoredFile):
        for index in content.file.segments:
            yield StoredExtent(content.reader, index, unpacked)
    else:
        yield DiskExtent.of(content)
