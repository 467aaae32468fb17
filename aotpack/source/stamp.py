"""What the cache notes beside the files of a variant, to know them again at the cost of a stat.

A stamp holds each file's size, inode and time of change: where these are as they were, the file was not
written since it was checked. It holds the xxh3 of each segment too, so that the bytes themselves can be
checked without the package. It is no defence against somebody who may write to the cache.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import xxhash
from pydantic import Field, ValidationError

from aotpack._values import Count, Value, Xxh3
from aotpack.manifest import MAX_SEGMENT_SIZE, File, Manifest

__all__ = ["FileStamp", "Stamp", "is_right"]


#: So much is read into memory at once, also where a stamp is as rotten as any file can be.
_SegmentSize = Annotated[int, Field(ge=1, le=MAX_SEGMENT_SIZE)]


class FileStamp(Value):
    """One file as it was when it was checked."""

    path: str
    size: Count
    inode: int
    mtime_ns: int
    #: (size in bytes, xxh3-128 in hex) of each segment, in order.
    segments: tuple[tuple[_SegmentSize, Xxh3], ...]

    def is_unchanged(self, folder: Path) -> bool:
        """Whether nobody has written the file since; costs one stat."""
        try:
            status = (folder / self.path).stat(follow_symlinks=False)
        except OSError:
            return False
        return (status.st_size, status.st_ino, status.st_mtime_ns) == (self.size, self.inode, self.mtime_ns)


class Stamp(Value):
    """A variant as it was put into the cache."""

    package: str
    component: str
    variant: str
    target: str
    files: tuple[FileStamp, ...]

    @classmethod
    def read(cls, path: Path) -> Stamp | None:
        """The stamp in a file; None if there is none that can be read."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None

    def to_json(self) -> str:
        """As it stands in its file."""
        return json.dumps(self.model_dump(), separators=(",", ":"))

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def stamp_file(folder: Path, file: File, manifest: Manifest) -> FileStamp:
    """The stamp of a file in `folder` that was just checked."""
    status = (folder / file.path).stat(follow_symlinks=False)
    return FileStamp(
        path=file.path,
        size=file.size,
        inode=status.st_ino,
        mtime_ns=status.st_mtime_ns,
        segments=tuple(segments_of(file, manifest)),
    )


def segments_of(file: File, manifest: Manifest) -> Iterator[tuple[int, str]]:
    """(size, xxh3) of each segment of a file."""
    for index in file.segments:
        segment = manifest.segments[index]
        yield segment.size, segment.xxh3


def is_right(path: Path, segments: Iterator[tuple[int, str]] | tuple[tuple[int, str], ...]) -> bool:
    """Whether a file holds what its segments' xxh3 say, and no more. A link is never right."""
    if not hasattr(os, "O_NOFOLLOW") and path.is_symlink():
        return False
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
    except OSError:
        return False
    with os.fdopen(fd, "rb", buffering=0) as file:
        try:
            for size, xxh3 in segments:
                data = file.read(size)
                if len(data) != size or xxhash.xxh3_128_hexdigest(data) != xxh3:
                    return False
            return not file.read(1)
        except OSError:
            return False
