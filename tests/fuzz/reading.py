"""What is fuzzed: reading a package out of any bytes ends well or with an error of the tree."""

from __future__ import annotations

from pathlib import Path

from aotpack.container.format import Preamble
from aotpack.container.reader import PackageReader
from aotpack.errors import PackageError

#: Files above this are not read, so that the fuzzer spends its time on what is new.
_MAX_READ = 1 << 20


class Memory:
    """A package in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    name = "fuzz"
    path: Path | None = None

    def size(self) -> int:
        return len(self._data)

    def read_at(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]

    def close(self) -> None:
        pass


def read_all(data: bytes) -> bool:
    """Whether `data` is a package; raises what is no error of the tree."""
    try:
        with PackageReader(Memory(data)) as reader:
            for variant in reader.manifest.variants():
                for file in variant.files:
                    if file.size <= _MAX_READ:
                        assert len(reader.read_file(file)) == file.size
    except PackageError as error:
        assert "\n" not in str(error)
        return False
    return True


def read_either_way(data: bytes) -> bool:
    """As a whole package if the first byte is even; else as a manifest whose preamble is right, and segments.

    No fuzzer guesses a sha256, and so without help none would get past the preamble.
    """
    if not data or data[0] % 2 == 0:
        return read_all(data[1:])
    text, _, body = data[1:].partition(b"\0\0")
    return read_all(Preamble.of(text, text, "raw").pack() + text + b"\0\0" + body)
