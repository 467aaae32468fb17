"""The ONNX of a variant, on the disk or in a package, for `aotpack.manifest.model_check`: in small parts."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from aotpack.container.reader import PackageReader
from aotpack.manifest.model_check import NOTHING_MORE, Allowance, check_model
from aotpack.manifest.values import File, Variant

__all__ = ["check_model_file", "check_packaged_model"]


def check_model_file(
    path: Path, model: str, files: Mapping[str, int], allowance: Allowance = NOTHING_MORE
) -> frozenset[str]:
    """Check the ONNX of a variant, which lies at `path`.

    Args:
        path: where it is.
        model: its path in the variant.
        files: path to size in bytes of each file of the variant.
        allowance: what it may have beside what every package may.

    Returns:
        As `aotpack.manifest.model_check.check_model`.

    Raises:
        NotAllowed: as for `aotpack.manifest.model_check.check_model`.
        OSError: it cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        return check_model(_OnDisk(file, path.stat().st_size), model, files, allowance)


def check_packaged_model(
    reader: PackageReader, variant: Variant, allowance: Allowance = NOTHING_MORE
) -> None:
    """Check the ONNX of `variant` in the package that `reader` has open; segments of weights are not read.

    Raises:
        NotAllowed: as for `aotpack.manifest.model_check.check_model`.
        DigestMismatch, FormatError: the package is damaged.
    """
    model, sizes = variant.files[0], {file.path: file.size for file in variant.files}
    check_model(_InPackage(reader, model), model.path, sizes, allowance)


class _OnDisk:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self.size = size

    def read_at(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(size)


class _InPackage:
    def __init__(self, reader: PackageReader, file: File) -> None:
        self._reader = reader
        self._segments = file.segments
        sizes = (reader.manifest.segments[index].size for index in file.segments)
        #: Where each segment begins in the file.
        self._starts = list(itertools.accumulate(sizes, initial=0))
        self.size = file.size
        #: The segment that was read last: its place among the file's, and its content.
        self._last = (-1, b"")

    def read_at(self, offset: int, size: int) -> bytes:
        end = min(offset + size, self.size)
        parts = []
        while offset < end:
            place = bisect.bisect_right(self._starts, offset) - 1
            if self._last[0] != place:
                self._last = (place, self._reader.read_segment(self._segments[place]))
            start = self._starts[place]
            parts.append(self._last[1][offset - start : end - start])
            offset = self._starts[place + 1]
        return b"".join(parts)
