"""Plan which bytes a package stores: each piece once, however many files hold it."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from aotpack.container import chunking
from aotpack.container.chunking import Chunk
from aotpack.container.content import Content, Extent, StoredExtent, extents

__all__ = ["Piece", "Plan", "plan"]


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes that become one segment."""

    extent: Extent
    offset: int
    length: int

    @property
    def stored(self) -> StoredExtent | None:
        """The segment of an open package that this piece is the whole of, if it is one."""
        if isinstance(self.extent, StoredExtent) and self.length == self.extent.size:
            return self.extent
        return None

    def read(self) -> bytes:
        """The bytes."""
        return self.extent.read(self.offset, self.length)


@dataclass(frozen=True, slots=True)
class Plan:
    """The pieces to store, and each file as the numbers of its pieces."""

    pieces: tuple[Piece, ...]
    files: tuple[tuple[int, ...], ...]


def plan(contents: Sequence[Content], pool: Executor) -> Plan:
    """Find what `contents` share.

    Segments of open packages are split where sharing asks for it and never joined, so that whatever stays
    whole can be copied as it is stored.

    Args:
        contents: the files, in the order in which their bytes shall lie in the package.
        pool: where they are read and cut.
    """
    files = [list(extents(content)) for content in contents]
    cuts = _cut_all({extent: None for file in files for extent in file}, pool)
    numbers: dict[Chunk, int] = {}
    places: list[tuple[Extent, int]] = []
    breaks: set[int] = set()
    numbered: list[list[int]] = []
    for file in files:
        numbered.append([])
        for extent in file:
            offset = 0
            for position, chunk in enumerate(cuts[extent]):
                number = numbers.setdefault(chunk, len(numbers))
                if number == len(places):
                    places.append((extent, offset))
                if position == 0 and isinstance(extent, StoredExtent):
                    breaks.add(number)
                numbered[-1].append(number)
                offset += chunk[1]
    sizes = [size for _, size in numbers]
    joined, used = chunking.runs(numbered, sizes, breaks)
    pieces = (Piece(*places[run[0]], sum(sizes[chunk] for chunk in run)) for run in joined)
    return Plan(tuple(pieces), tuple(map(tuple, used)))


def _cut_all(every: Iterable[Extent], pool: Executor) -> dict[Extent, list[Chunk]]:
    distinct = list(every)
    stored = [extent for extent in distinct if isinstance(extent, StoredExtent)]
    if len(stored) == len(distinct) and len({extent.reader.digest for extent in stored}) <= 1:
        # All come from one package: what they share is known, and nothing needs to be read for it.
        return {extent: [(bytes.fromhex(extent.segment.sha256), extent.size)] for extent in stored}
    seed = secrets.randbits(64)
    results = pool.map(lambda extent: chunking.cut(extent.read, extent.size, seed), distinct)
    return dict(zip(distinct, results, strict=True))
