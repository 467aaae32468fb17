"""Read and write an open file at a place, from several threads at once, on every system.

Windows has neither ``pread`` nor ``pwrite``. There a file is moved to the place and then read or written, and
a lock keeps other threads away between the two.
"""

from __future__ import annotations

import os
import threading

__all__ = ["read_at", "read_into", "write_at"]

#: Files share locks, so that none has to be made or kept for a file; two files rarely have the same.
_LOCKS = tuple(threading.Lock() for _ in range(64))

#: Bytes. Linux moves 2 GiB less a page at a time and Windows refuses to be asked for more.
_AT_ONCE = 1 << 30


def read_at(fd: int, offset: int, length: int) -> bytes:
    """Bytes ``offset`` to ``offset + length`` of a file; fewer only where it ends before that."""
    data = _read(fd, offset, length)
    if len(data) == length or not data:
        return data
    # One call may give less than there is: above `_AT_ONCE`, and on some network file systems.
    parts, done = [data], len(data)
    while done < length and (data := _read(fd, offset + done, length - done)):
        parts.append(data)
        done += len(data)
    return b"".join(parts)


def read_into(fd: int, offset: int, buffer: memoryview) -> int:
    """Fill memory with the bytes at `offset` of a file; gives how many, fewer only where it ends before that.

    Memory that is used again stays with the process; new large memory is fetched from the system each time,
    which takes longer than to fill it.
    """
    done = 0
    while done < len(buffer):
        part = buffer[done : done + _AT_ONCE]
        if hasattr(os, "preadv"):
            count = os.preadv(fd, [part], offset + done)
        else:
            data = _read(fd, offset + done, len(part))
            count = len(data)
            part[:count] = data
        if not count:
            break
        done += count
    return done


def write_at(fd: int, offset: int, content: bytes | memoryview) -> None:
    """Write all of `content` at `offset` of a file.

    Raises:
        OSError: the disk is full, or whatever else the system says.
    """
    view = memoryview(content)
    while view:
        done = _write(fd, offset, view[:_AT_ONCE])
        view, offset = view[done:], offset + done


def _read(fd: int, offset: int, length: int) -> bytes:
    length = min(length, _AT_ONCE)
    if hasattr(os, "pread"):
        return os.pread(fd, length, offset)
    with _LOCKS[fd % len(_LOCKS)]:
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, length)


def _write(fd: int, offset: int, content: memoryview) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(fd, content, offset)
    with _LOCKS[fd % len(_LOCKS)]:
        os.lseek(fd, offset, os.SEEK_SET)
        return os.write(fd, content)
