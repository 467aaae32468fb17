"""Segments of open packages while others are made of them: each decompressed once, however often it is read.

Finding what files share reads parts of a segment again and again, and a segment that is split is read once
more for each of its parts. What was decompressed is kept: in memory as far as a fixed amount goes, the rest
in a file without a name, which goes with the process. So memory does not grow with the packages.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections.abc import Hashable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Self

from aotpack.container.reader import PackageReader
from aotpack.errors import OutputError
from aotpack.files import positional

__all__ = ["Unpacked"]

#: Bytes of contents that are kept in memory; those of a model of some tens of MB.
_MAX_MEMORY = 128 * 1024 * 1024


class Unpacked:
    """The contents of segments, for as long as one package is written. Threads may share it.

    Args:
        folder: for the file; by default that of the system.
        max_memory: bytes that may stay in memory.
    """

    def __init__(self, folder: Path | None = None, *, max_memory: int = _MAX_MEMORY) -> None:
        self._folder = folder
        self._left = max_memory
        self._lock = threading.Lock()
        self._files = ExitStack()
        self._file: IO[bytes] | None = None
        self._end = 0
        self._in_memory: dict[Hashable, memoryview] = {}
        self._in_file: dict[Hashable, int] = {}
        #: sha256 of the stored bytes of those that were decompressed and found to be right.
        self._checked: dict[Hashable, bytes] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._in_memory.clear()
        self._files.close()

    def read(self, reader: PackageReader, index: int, offset: int, length: int) -> memoryview:
        """A part of the content of a segment, all of which was checked against its sha256.

        Raises:
            DigestMismatch, FormatError: as for `PackageReader.read_segment`.
            OutputError: there is no room for what does not stay in memory.
        """
        key = (reader, index)
        if (content := self._in_memory.get(key)) is not None:
            return content[offset : offset + length]
        if (place := self._in_file.get(key)) is not None:
            return self._read_back(place + offset, length)
        stored = reader.read_stored(index)
        content = memoryview(reader.content_of(index, stored))
        self._checked[key] = hashlib.sha256(stored).digest()
        self._keep(key, content)
        return content[offset : offset + length]

    def stored(self, reader: PackageReader, index: int) -> bytes:
        """A segment as it lies in its package, its content checked: now, or before if it is unchanged.

        Raises:
            DigestMismatch, FormatError: as for `PackageReader.read_segment`.
        """
        stored = reader.read_stored(index)
        if self._checked.get((reader, index)) != hashlib.sha256(stored).digest():
            reader.content_of(index, stored)
        return stored

    def _keep(self, key: Hashable, content: memoryview) -> None:
        with self._lock:
            if len(content) <= self._left:
                self._left -= len(content)
                self._in_memory[key] = content
                return
            try:
                if self._file is None:
                    file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed with this
                    self._file = self._files.enter_context(file)
                positional.write_at(self._file.fileno(), self._end, content)
            except OSError as error:
                where = self._folder or tempfile.gettempdir()
                raise OutputError(f"cannot be written: {error.strerror}", where=where) from None
            self._in_file[key] = self._end
            self._end += len(content)

    def _read_back(self, place: int, length: int) -> memoryview:
        assert self._file is not None
        view = memoryview(bytearray(length))
        if positional.read_into(self._file.fileno(), place, view) != length:
            raise OutputError("ended before its end", where="a temporary file")
        return view
