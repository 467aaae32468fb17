"""What the cache notes beside the files of a variant, to know them again at the cost of a stat.

A stamp holds each file's size, inode, mtime and ctime. Where these are as they were, the file was not written
since it was checked: mtime can be set back, as by ``rsync --times``, ctime cannot. A new hard link, ``chmod``
and the like change ctime too; then the bytes are checked once and stamped again. A stamp holds the xxh3 of
each segment for that, so that the bytes can be checked without the package. It is no defence against somebody
who may write to the cache.

A stamp is written when the files are on the disk (`aotpack.files.durable`), and need not be there itself:
without it the bytes are checked.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import xxhash
from msgspec import DecodeError, Meta

from aotpack.common.values import Count, Value, Xxh3
from aotpack.files.regular import is_folder, open_regular, read_regular
from aotpack.manifest.values import MAX_SEGMENT_SIZE, File, Manifest, Variant

__all__ = ["FileStamp", "Stamp", "is_right", "is_whole", "segments_of", "stamp_file"]


#: So much is read into memory at once, also where a stamp is as rotten as any file can be.
_SegmentSize = Annotated[int, Meta(ge=1, le=MAX_SEGMENT_SIZE)]


class FileStamp(Value, kw_only=True):
    """One file as it was when it was checked."""

    path: str
    size: Count
    inode: int
    mtime_ns: int
    #: None in a stamp of earlier releases, which did not sync files: they are checked.
    ctime_ns: int | None = None
    #: (size in bytes, xxh3-128 in hex) of each segment, in order.
    segments: tuple[tuple[_SegmentSize, Xxh3], ...]

    def is_unchanged(self, folder: Path) -> bool:
        """Whether nobody has written the file since; costs one stat."""
        try:
            status = os.lstat(folder / self.path)
        except OSError:
            return False
        return stat.S_ISREG(status.st_mode) and self.describes(status)

    def describes(self, status: os.stat_result) -> bool:
        """Whether this is the status of the file as it was when it was checked."""
        return (status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns) == (
            self.size,
            self.inode,
            self.mtime_ns,
            self.ctime_ns,
        )

    def now(self, folder: Path) -> FileStamp:
        """The stamp with the status that the file has now.

        Raises:
            OSError: there is none.
        """
        status = os.lstat(folder / self.path)
        times = {"mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns}
        return self.replace(inode=status.st_ino, **times)


class Stamp(Value, kw_only=True):
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
            return cls.from_json(read_regular(path))
        except (OSError, DecodeError):
            return None

    def is_of(self, variant: Variant) -> bool:
        """Whether it names the files of the variant, in their order."""
        return [file.path for file in self.files] == [file.path for file in variant.files]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def stamp_file(folder: Path, file: File, manifest: Manifest) -> FileStamp:
    """The stamp of a file in `folder` that was just checked."""
    status = os.lstat(folder / file.path)
    return FileStamp(
        path=file.path,
        size=file.size,
        inode=status.st_ino,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
        segments=tuple(segments_of(file, manifest)),
    )


def segments_of(file: File, manifest: Manifest) -> Iterator[tuple[int, str]]:
    """(size, xxh3) of each segment of a file."""
    for index in file.segments:
        segment = manifest.segments[index]
        yield segment.size, segment.xxh3


def is_right(path: Path, segments: Iterator[tuple[int, str]] | tuple[tuple[int, str], ...]) -> bool:
    """Whether this is a regular file that holds what its segments' xxh3 say, and no more."""
    try:
        fd = open_regular(path)
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


def is_whole(entry: Path, files: Iterable[FileStamp]) -> bool:
    """Whether the files in the folder of a variant hold what their stamps say; every byte is read."""
    return is_folder(entry) and all(
        _is_inside(entry / "files", file.path) and is_right(entry / "files" / file.path, file.segments)
        for file in files
    )


def _is_inside(folder: Path, path: str) -> bool:
    """Whether `folder` and all folders from there to a file in it are folders and no links."""
    steps = path.split("/")[:-1]
    return all(is_folder(folder.joinpath(*steps[:count])) for count in range(len(steps) + 1))
