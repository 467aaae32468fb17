"""Read a few fields of protobuf messages, with bounds, from bytes that may lie.

Large models must not be read into memory, and the libraries that know ONNX take longer to import than a
session takes to load, so this walks over the wire format (protobuf.dev, "Encoding") and skips what nobody
asked for. It is stricter than protobuf where that leaves no doubt what another reader finds: groups,
lengths beyond their message and field numbers of zero are refused.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Container, Iterator
from typing import NamedTuple, Protocol

from aotpack.errors import FormatError, LimitExceeded

__all__ = ["MAX_DEPTH", "MAX_FIELDS", "ByteRange", "Field", "Reader"]

#: Messages inside messages. protobuf itself, and so ONNX Runtime, reads no deeper.
MAX_DEPTH = 100
#: Fields in all. A language model of some 100,000 nodes has two million; each takes a microsecond.
MAX_FIELDS = 16_777_216
#: Bytes that are read at once and held in memory.
_WINDOW = 262_144
#: Of a varint: 64 bits, 7 to a byte.
_MAX_VARINT = 10

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5


@functools.cache
def _run_of(tag: int) -> re.Pattern[bytes]:
    """What matches fields with this tag of one byte, one after the other; with a length only short ones."""
    shapes = {
        VARINT: rb"[\x80-\xff]{0,9}[\x00-\x7f]",
        FIXED32: rb".{4}",
        FIXED64: rb".{8}",
        LENGTH: b"|".join(re.escape(bytes((size,))) + b".{%d}" % size for size in range(128)),
    }
    return re.compile(b"(?:%s(?:%s))+" % (re.escape(bytes((tag,))), shapes[tag & 7]), re.DOTALL)


class ByteRange(Protocol):
    """Bytes that can be read anywhere."""

    @property
    def size(self) -> int:
        """How many there are."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Bytes ``offset`` to ``offset + size``; fewer at the end."""


class Field(NamedTuple):
    """One field of a message."""

    number: int
    #: VARINT, FIXED64, LENGTH or FIXED32.
    wire: int
    #: Of a varint its value, of all others the place of the first byte.
    start: int
    #: The place behind the last byte.
    end: int


class Reader:
    """Walks over the messages in some bytes.

    Args:
        data: the bytes.
    """

    def __init__(self, data: ByteRange) -> None:
        self._data = data
        self._window = b""
        self._base = 0
        self._left = MAX_FIELDS
        self.size = data.size

    def fields(self, start: int, end: int, wanted: Container[int]) -> Iterator[Field]:
        """The fields with the `wanted` numbers of the message that stands from `start` to `end`, in order.

        Raises:
            FormatError: it is malformed.
            LimitExceeded: there were more than `MAX_FIELDS` fields in all.
        """
        position, last = start, 0
        while position < end:
            self._left -= 1
            if self._left < 0:
                raise LimitExceeded("has too many fields", expected=f"<= {MAX_FIELDS}")
            # Nearly all tags and lengths are one byte; a call for each would take twice the time of all else.
            window, index = self._window, position - self._base
            near = 0 <= index < len(window) - 1
            tag = window[index] if near else 128
            if tag < 128:
                position += 1
            else:
                tag, position = self._varint(position, end)
                near = False
            number, wire = tag >> 3, tag & 7
            if number == 0 or tag >> 32:
                raise FormatError("is malformed: a field has no number", where=f"byte {position}")
            if wire == LENGTH:
                length = window[index + 1] if near and position < end else 128
                if length < 128:
                    position += 1
                else:
                    length, position = self._varint(position, end)
                value, position = position, position + length
            elif wire == VARINT:
                value, position = self._varint(position, end)
            elif wire in (FIXED32, FIXED64):
                value, position = position, position + (4 if wire == FIXED32 else 8)
            else:
                raise FormatError(f"is malformed: wire type {wire}", where=f"byte {position}")
            if position > end:
                raise FormatError(
                    "is malformed: a field is longer than its message", where=f"byte {position}"
                )
            if number in wanted:
                yield Field(number, wire, value, position)
            elif tag == last and tag < 128 and self._base <= position < self._base + len(self._window):
                # Trees and vocabularies are lists of millions, each element a field.
                stop = min(len(self._window), end - self._base)
                if run := _run_of(tag).match(self._window, position - self._base, stop):
                    position = self._base + run.end()
            last = tag

    def read(self, field: Field, limit: int) -> bytes | None:
        """The bytes of a field with a length; None if there are more than `limit`."""
        size = field.end - field.start
        if size > limit:
            return None
        self._reach(field.start, size)
        return self._window[field.start - self._base : field.end - self._base]

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        if not self._base <= position < self._base + len(self._window) - _MAX_VARINT:
            self._reach(position, _MAX_VARINT)
        if position >= end:
            raise FormatError("is malformed: a message ends inside a field", where=f"byte {position}")
        window, index = self._window, position - self._base
        try:
            byte = window[index]
            if byte < 128:
                return byte, position + 1
            value = byte & 127
            for count in range(1, _MAX_VARINT):
                byte = window[index + count]
                value |= (byte & 127) << (7 * count)
                if byte < 128:
                    if value >> 64 or position + count >= end:
                        break
                    return value, position + count + 1
        except IndexError:
            pass
        raise FormatError("is malformed: a number has no end", where=f"byte {position}")

    def _reach(self, position: int, size: int) -> None:
        """Have at least `size` bytes from `position` on in the window, or all that there are."""
        if position < self._base or position + size > self._base + len(self._window):
            self._window = self._data.read_at(position, max(size, _WINDOW))
            self._base = position
