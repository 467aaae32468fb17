"""Plan which bytes a package stores: each piece once, however many files hold it.

1. Cut every file into chunks; equal chunks are one (`aotpack.container.chunking`).
2. Where a shared chunk stands beside one that is not, some of the latter is shared too: sharing rarely ends
   where a chunk does. Find how far it goes, and split the chunks on both sides there.
3. Join chunks that stand together wherever they occur.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import xxhash

from aotpack.container import chunking
from aotpack.container.chunking import Chunk
from aotpack.container.content import Content, Extent, StoredExtent, StoredFile, extents

__all__ = ["Piece", "Plan", "plan"]

#: Bytes that are looked at on either side of a seam: chunking is in step again after a few chunks.
_REACH = 8 * chunking.AVERAGE_CHUNK

#: Splitting shows more chunks to be shared, and so more seams. The third time finds next to none.
_ROUNDS = 3

#: Fewer shared bytes are not worth an entry in the manifest, which takes some 60 bytes of a package.
_MIN_GAIN = 256


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
    """What a package stores."""

    pieces: tuple[Piece, ...]
    #: Each file as the numbers of its pieces.
    files: tuple[tuple[int, ...], ...]
    #: sha256 of each file, hex.
    digests: tuple[str, ...]


def plan(contents: Sequence[Content], pool: Executor) -> Plan:
    """Find what `contents` share.

    Segments of open packages are split where sharing asks for it and never joined, so that whatever stays
    whole can be copied as it is stored.

    Args:
        contents: the files, in the order in which their bytes shall lie in the package.
        pool: where they are read and cut.
    """
    files = [list(extents(content)) for content in contents]
    distinct = list(dict.fromkeys(extent for file in files for extent in file))
    stored = [extent for extent in distinct if isinstance(extent, StoredExtent)]
    # Of the files on the disk; the digests of those in packages are in their manifests.
    hashes = {extent: hashlib.sha256() for extent in distinct if not isinstance(extent, StoredExtent)}
    if len(stored) == len(distinct) and len({extent.reader.digest for extent in stored}) <= 1:
        # All come from one package: what they share is known, and nothing needs to be read for it.
        cuts: dict[Extent, list[Chunk]] = {
            extent: [(bytes.fromhex(extent.segment.sha256), extent.size)] for extent in stored
        }
    else:
        seed = secrets.randbits(64)
        results = pool.map(lambda extent: _cut(extent, seed, hashes.get(extent)), distinct)
        cuts = dict(zip(distinct, results, strict=True))
        for _ in range(_ROUNDS):
            cuts = _split(_Numbered(cuts), seed)
    digests = (
        content.file.sha256 if isinstance(content, StoredFile) else hashes[file[0]].hexdigest()
        for content, file in zip(contents, files, strict=True)
    )
    return Plan(*_joined(files, _Numbered(cuts)), tuple(digests))


def _cut(extent: Extent, seed: int, digest: hashlib._Hash | None) -> list[Chunk]:
    if digest is None:
        return chunking.cut(extent.read, extent.size, seed)
    return chunking.cut(extent.read, extent.size, seed, digest.update)


class _Numbered:
    """Chunks numbered in the order of their first occurrence, and where that is."""

    def __init__(self, cuts: Mapping[Extent, Sequence[Chunk]]) -> None:
        self.cuts = cuts
        self.sizes: list[int] = []
        self.places: list[tuple[Extent, int]] = []
        self.chunks: dict[Extent, list[int]] = {}
        #: Where each chunk of an extent starts, and last where the extent ends.
        self.starts: dict[Extent, list[int]] = {}
        numbers: dict[Chunk, int] = {}
        for extent, chunks in cuts.items():
            offset = 0
            self.chunks[extent], self.starts[extent] = here, starts = [], [0]
            for chunk in chunks:
                number = numbers.setdefault(chunk, len(numbers))
                if number == len(self.places):
                    self.places.append((extent, offset))
                    self.sizes.append(chunk[1])
                here.append(number)
                offset += chunk[1]
                starts.append(offset)


def _split(numbered: _Numbered, seed: int) -> dict[Extent, list[Chunk]]:
    """Split the chunks at both sides of each seam where sharing really ends."""
    splits: defaultdict[int, set[int]] = defaultdict(set)

    def split(extent: Extent, position: int) -> None:
        starts = numbered.starts[extent]
        index = bisect.bisect_right(starts, position) - 1
        if position > starts[index]:
            splits[numbered.chunks[extent][index]].add(position - starts[index])

    def share(one: Extent, at: int, other: Extent, there: int, length: int) -> None:
        # Both sides are cut wherever either is, so that they end up in equal chunks.
        for extent, start, twin, twin_start in ((one, at, other, there), (other, there, one, at)):
            starts = numbered.starts[extent]
            inside = starts[bisect.bisect_left(starts, start) : bisect.bisect_right(starts, start + length)]
            for position in (start, *inside, start + length):
                split(twin, twin_start + position - start)

    for extent, chunks in numbered.chunks.items():
        starts = numbered.starts[extent]
        is_new = [
            numbered.places[chunk] == (extent, start) for chunk, start in zip(chunks, starts, strict=False)
        ]
        index = 0
        for new, group in itertools.groupby(is_new):
            first, index = index, index + len(list(group))
            if not new:
                continue
            begin, end = starts[first], starts[index]
            if first > 0:
                source, offset = numbered.places[chunks[first - 1]]
                offset += numbered.sizes[chunks[first - 1]]
                reach = min(_REACH, end - begin, source.size - offset)
                same = _common_prefix(extent.read(begin, reach), source.read(offset, reach))
                if same >= _MIN_GAIN:
                    share(extent, begin, source, offset, same)
                    begin += same
            if index < len(chunks):
                source, offset = numbered.places[chunks[index]]
                reach = min(_REACH, end - begin, offset)
                same = _common_suffix(extent.read(end - reach, reach), source.read(offset - reach, reach))
                if same >= _MIN_GAIN:
                    share(extent, end - same, source, offset - same, same)
    parts: dict[Chunk, list[Chunk]] = {}
    for number, positions in splits.items():
        extent, offset = numbered.places[number]
        content = extent.read(offset, numbered.sizes[number])
        edges = itertools.pairwise((0, *sorted(positions), len(content)))
        pieces = [(xxhash.xxh3_128_digest(content[a:b], seed), b - a) for a, b in edges]
        parts[xxhash.xxh3_128_digest(content, seed), len(content)] = pieces
    return {
        extent: [part for chunk in chunks for part in parts.get(chunk, (chunk,))]
        for extent, chunks in numbered.cuts.items()
    }


def _common_prefix(one: bytes, other: bytes) -> int:
    if one == other:
        return len(one)
    same, differs = 0, len(one)
    while differs - same > 1:
        middle = (same + differs) // 2
        if one[same:middle] == other[same:middle]:
            same = middle
        else:
            differs = middle
    return same


def _common_suffix(one: bytes, other: bytes) -> int:
    return _common_prefix(one[::-1], other[::-1])


def _joined(
    files: Sequence[Sequence[Extent]], numbered: _Numbered
) -> tuple[tuple[Piece, ...], tuple[tuple[int, ...], ...]]:
    breaks = {chunks[0] for extent, chunks in numbered.chunks.items() if isinstance(extent, StoredExtent)}
    chunked = [[chunk for extent in file for chunk in numbered.chunks[extent]] for file in files]
    joined, used = chunking.runs(chunked, numbered.sizes, breaks)
    pieces = (Piece(*numbered.places[run[0]], sum(numbered.sizes[chunk] for chunk in run)) for run in joined)
    return tuple(pieces), tuple(map(tuple, used))
