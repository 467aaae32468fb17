"""Put a file of a package together on the disk: each byte checked, in as few copies as the system allows.

A segment's bytes may lie on this disk already: raw in the package, or in a file that was put together before.

1. Where the file system can let two files share their blocks (XFS, btrfs, bcachefs), whole pages are cloned,
   which copies nothing. What then stands in the new file is read back and checked.
2. Otherwise blocks are read, hashed and written while they are in the processor's cache. They have to pass
   through it for their digest, so a copy inside the kernel would save nothing: it was measured.

The bytes that are hashed are always those that the new file gets, whatever happens to the place that they
came from. Nobody sees the file before its last byte is checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from aotpack.errors import OutputError
from aotpack.files.positional import read_at, write_at
from aotpack.manifest.values import ALIGNED_FROM, PAGE_SIZE, File, Segment

if TYPE_CHECKING:
    from aotpack.container.reader import PackageReader

if sys.platform == "linux":
    import fcntl

__all__ = ["StoredRange", "copy_file"]

#: Bytes that are read, hashed and written at a time: they fit the cache that each core has to itself.
_BLOCK = 512 * 1024

_WORKERS = min(8, os.cpu_count() or 1)

#: FICLONERANGE of Linux's linux/fs.h, and its argument: source file, its offset, length, offset here.
_CLONE_RANGE = 0x4020940D
_CLONE_ARGUMENT = struct.Struct("qQQQ")

_BINARY = getattr(os, "O_BINARY", 0)

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class StoredRange:
    """A place on this disk where, in all likelihood, a segment's bytes lie. They are checked all the same."""

    path: Path
    offset: int

    def fits(self, place: int) -> bool:
        """Whether its pages can be cloned into a file that has the segment at `place`."""
        return (self.offset - place) % PAGE_SIZE == 0


def copy_file(
    reader: PackageReader, file: File, dest: Path, reusable: Mapping[int, StoredRange] | None = None
) -> None:
    """Write a file of a variant to the new file `dest`, several segments at a time.

    Args:
        reader: the package.
        file: one of its files.
        dest: what to write; its folder is there.
        reusable: segment to where else it is found. One that has other bytes, or is gone, is passed over.

    Raises:
        OutputError: `dest` exists or cannot be written.
        DigestMismatch, FormatError: as for `PackageReader.read_segment`. What was written is removed.
    """
    done = False
    try:
        # O_EXCL and O_NOFOLLOW by it: never through a link that somebody put there.
        fd = os.open(dest, os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY, 0o644)
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", where=dest) from None
    try:
        with contextlib.ExitStack() as stack:
            _Copy(reader, file, dest, fd, stack, reusable or {}).run()
        done = True
    except OSError as error:
        # Errors of the tree that inherit OSError say more than we could.
        if error.errno is None:
            raise
        raise OutputError(f"cannot be written: {error.strerror}", where=dest) from None
    finally:
        os.close(fd)
        if not done:
            with contextlib.suppress(OSError):
                dest.unlink()


class _Copy:
    """One file that is being put together."""

    def __init__(
        self,
        reader: PackageReader,
        file: File,
        dest: Path,
        fd: int,
        stack: contextlib.ExitStack,
        reusable: Mapping[int, StoredRange],
    ) -> None:
        self._reader = reader
        self._dest = dest
        self._size = file.size
        self._fd = fd
        #: Segment to all places in the file at which it stands.
        self._places: dict[int, list[int]] = {}
        offset = 0
        for index in file.segments:
            self._places.setdefault(index, []).append(offset)
            offset += self._segment(index).size
        fds = {stored.path: _opened(stored.path, stack) for stored in reusable.values()}
        #: (open file, offset in it) for segments that are lent, and for those that are raw in the package.
        self._lent = {
            index: (source, stored.offset)
            for index, stored in reusable.items()
            if index in self._places and (source := fds[stored.path]) is not None
        }
        # Another file may have taken the package's name. Then what is cloned fails, and the package is read.
        package = None if reader.path is None else _opened(reader.path, stack)
        self._raw = {
            index: (package, segment.offset)
            for index in self._places
            if (segment := self._segment(index)).codec == "raw" and package is not None
        }

    def run(self) -> None:
        cloned = _for_all(self._is_cloned, list(self._places))
        rest = [index for index, is_done in zip(self._places, cloned, strict=True) if not is_done]
        needed = sum(self._segment(index).size * len(self._places[index]) for index in rest)
        free = shutil.disk_usage(self._dest.parent).free
        if needed > free:
            raise OutputError(
                "the disk is too small", where=self._dest, found=f"{free} bytes free", expected=str(needed)
            )
        if needed:
            self._allocate()
        _for_all(self._copy, rest)

    def _allocate(self) -> None:
        """Let the file system find room once and not for every block. What was cloned stays as it is."""
        allocate = getattr(os, "posix_fallocate", None)
        if allocate is not None:
            # What is wrong will be told by the writes.
            with contextlib.suppress(OSError):
                allocate(self._fd, 0, self._size)

    def _segment(self, index: int) -> Segment:
        return self._reader.manifest.segments[index]

    def _is_cloned(self, index: int) -> bool:
        if self._segment(index).size < ALIGNED_FROM or len(self._places[index]) > 1:
            return False
        origins = (origins[index] for origins in (self._lent, self._raw) if index in origins)
        return any(self._clone(index, *origin) for origin in origins)

    def _clone(self, index: int, source: int, offset: int) -> bool:
        """Take a segment over from another file, whole pages of it without copying, and check it."""
        segment, place = self._segment(index), self._places[index][0]
        end = place + segment.size
        first, last = place + -place % PAGE_SIZE, end - end % PAGE_SIZE
        if not _clone_range(source, offset + first - place, last - first, self._fd, first):
            return False
        for begin, stop in ((place, first), (last, end)):
            write_at(self._fd, begin, read_at(source, offset + begin - place, stop - begin))
        return _has_digest(segment, _blocks(partial(read_at, self._fd), place, segment.size))

    def _copy(self, index: int) -> None:
        segment, places = self._segment(index), self._places[index]
        if len(places) == 1:
            if index in self._lent:
                source, offset = self._lent[index]
                blocks = _blocks(partial(read_at, source), offset, segment.size)
                if _has_digest(segment, self._written(blocks, places[0])):
                    return
            parts: Iterable[bytes | memoryview] = (
                _blocks(self._reader.source.read_at, segment.offset, segment.size)
                if index in self._raw
                else self._reader.segment_parts(index)
            )
            if not _has_digest(segment, self._written(parts, places[0])):
                raise self._reader.damaged(index)
            return
        content = self._reader.read_segment(index)
        for place in places:
            write_at(self._fd, place, content)

    def _written(self, parts: Iterable[bytes | memoryview], place: int) -> Iterator[bytes | memoryview]:
        """The parts, each written after it was looked at, which moves it into the processor's cache."""
        for part in parts:
            yield part
            write_at(self._fd, place, part)
            place += len(part)


def _opened(path: Path, stack: contextlib.ExitStack) -> int | None:
    try:
        # O_NONBLOCK: should it have become a named pipe, nobody waits for its writer.
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _BINARY)
    except OSError:
        return None
    stack.callback(os.close, fd)
    return fd


def _clone_range(source: int, offset: int, length: int, dest: int, place: int) -> bool:
    """Let a part of the file `dest` share the blocks of `source`, both open; False where that cannot be.

    It cannot where `offset`, `place` or `length` is not a multiple of the file system's block size.
    """
    if sys.platform != "linux":
        return False
    try:
        fcntl.ioctl(dest, _CLONE_RANGE, _CLONE_ARGUMENT.pack(source, offset, length, place))
    except OSError:
        return False
    return True


def _blocks(read: Callable[[int, int], bytes], offset: int, size: int) -> Iterator[bytes]:
    for start in range(offset, offset + size, _BLOCK):
        yield read(start, min(_BLOCK, offset + size - start))


def _has_digest(segment: Segment, parts: Iterable[bytes | memoryview]) -> bool:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest() == segment.sha256


def _for_all(work: Callable[[int], _Result], items: Sequence[int]) -> list[_Result]:
    """What `work` gives for each item, several at a time; the first error stops what has not begun."""
    if len(items) < 2:
        return [work(item) for item in items]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(_WORKERS, len(items))) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
