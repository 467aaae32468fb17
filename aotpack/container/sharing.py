"""Plan which bytes a package stores: each piece once, however many files hold it.

1. Cut every file into chunks; equal chunks are one (`aotpack.container.chunking`).
2. Join chunks that stand together wherever they occur, which leaves a few hundred of some ten thousand.
3. Where a shared one stands beside one that is not, some of the latter is shared too: sharing rarely ends
   where a chunk does. Find how far it goes, and split the chunks on both sides there.
4. Join again, and divide what is long, at pages of the file where it can be.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import xxhash

from aotpack.container import chunking
from aotpack.container.chunking import Chunk
from aotpack.container.content import Content, Extent, StoredExtent, StoredFile, extents
from aotpack.container.unpacked import Unpacked
from aotpack.manifest.values import PAGE_SIZE

__all__ = ["LONGEST", "Piece", "Plan", "plan"]

#: Bytes that are looked at on either side of a seam: chunking is in step again after a few chunks.
_REACH = 16 * chunking.AVERAGE_CHUNK

#: Bytes of a piece. Some MiB keep the manifest short, and let several be read and checked at a time.
LONGEST = 4 * 1024 * 1024

#: Bytes. So much, at whole pages of a file, is worth a segment for the rest of a page before it: where blocks
#: can be shared between files it is then taken out of the package without copying it.
_WORTH_ALIGNING = 256 * 1024

#: Splitting shows more chunks to be shared, and so more seams. The third time finds next to none.
_ROUNDS = 3
#: Chunks after a round: so many times those before it, and so many more. Usual ones add a few for each seam.
_MOST_GROWTH, _MOST_ADDED = 2, 1024

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

    def read(self, buffer: bytearray | None = None) -> memoryview:
        """The bytes, in `buffer` if it is long enough or in memory of their own."""
        usable = buffer if buffer is not None and len(buffer) >= self.length else None
        return self.extent.read(self.offset, self.length, usable)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a package stores."""

    pieces: tuple[Piece, ...]
    #: Each file as the numbers of its pieces.
    files: tuple[tuple[int, ...], ...]
    #: sha256 of each file, hex.
    digests: tuple[str, ...]


def plan(contents: Sequence[Content], pool: Executor, unpacked: Unpacked | None = None) -> Plan:
    """Find what `contents` share.

    Segments of open packages are split where sharing asks for it and never joined, so that whatever stays
    whole can be copied as it is stored.

    Args:
        contents: the files, in the order in which their bytes shall lie in the package.
        pool: where they are read and cut.
        unpacked: keeps what segments of open packages hold, for as long as the plan is used.
    """
    unpacked = unpacked or Unpacked()
    files = [list(extents(content, unpacked)) for content in contents]
    distinct = list(dict.fromkeys(extent for file in files for extent in file))
    stored = [extent for extent in distinct if isinstance(extent, StoredExtent)]
    # Of the files on the disk; the digests of those in packages are in their manifests.
    hashes = {extent: hashlib.sha256() for extent in distinct if not isinstance(extent, StoredExtent)}
    if len(stored) == len(distinct) and len({extent.reader.digest for extent in stored}) <= 1:
        # All come from one package: what they share is known, and nothing needs to be read for it.
        numbered = _Numbered({e: [(bytes.fromhex(e.segment.sha256), e.size)] for e in stored})
    else:
        seed = secrets.randbits(64)
        average = chunking.average_chunk(sum(extent.size for extent in distinct))
        results = pool.map(lambda extent: _cut(extent, average, seed, hashes.get(extent)), distinct)
        numbered = _Numbered(_joined(_Numbered(dict(zip(distinct, results, strict=True)))))
        for _ in range(_ROUNDS):
            if (split := _split(numbered, seed)) is None:
                break
            numbered = _Numbered(split)
    digests = (
        content.file.sha256 if isinstance(content, StoredFile) else hashes[file[0]].hexdigest()
        for content, file in zip(contents, files, strict=True)
    )
    return Plan(*_pieces(files, numbered), tuple(digests))


def _cut(extent: Extent, average: int, seed: int, digest: hashlib._Hash | None) -> list[Chunk]:
    if digest is None:
        # Nothing is gained by windows: a segment is decompressed as a whole.
        content = extent.read(0, extent.size)
        return chunking.cut(lambda at, size, _: content[at : at + size], extent.size, average, seed)
    return chunking.cut(extent.read, extent.size, average, seed, digest.update)


class _Numbered:
    """Chunks numbered in the order of their first occurrence, and where that is."""

    def __init__(self, cuts: Mapping[Extent, Sequence[Chunk]]) -> None:
        self.cuts = cuts
        self.distinct: list[Chunk] = []
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
                    self.distinct.append(chunk)
                    self.sizes.append(chunk[1])
                here.append(number)
                offset += chunk[1]
                starts.append(offset)

    def length(self, run: Sequence[int]) -> int:
        """Bytes of some chunks."""
        return sum(self.sizes[chunk] for chunk in run)


def _joined(numbered: _Numbered) -> dict[Extent, list[Chunk]]:
    """Chunks that always stand together made one, named after them."""
    joined, used = chunking.runs(list(numbered.chunks.values()), numbered.sizes, LONGEST)
    named = []
    for run in joined:
        names = [numbered.distinct[chunk] for chunk in run]
        whole = xxhash.xxh3_128_digest(b"".join(name for name, _ in names)), numbered.length(run)
        named.append(names[0] if len(names) == 1 else whole)
    return {extent: [named[run] for run in runs] for extent, runs in zip(numbered.chunks, used, strict=True)}


def _split(numbered: _Numbered, seed: int) -> dict[Extent, list[Chunk]] | None:
    """Split the chunks at both sides of each seam where sharing really ends; None if it does everywhere."""
    splits: defaultdict[int, set[int]] = defaultdict(set)

    def split(extent: Extent, begin: int, end: int, positions: Iterable[int]) -> None:
        starts, chunks = numbered.starts[extent], numbered.chunks[extent]
        first, last = bisect.bisect_right(starts, begin) - 1, bisect.bisect_left(starts, end)
        for index in range(first, last):
            # Also those that stay whole get a name by their content, or the other side's would differ.
            splits[chunks[index]].update(
                position - starts[index]
                for position in positions
                if starts[index] < position < starts[index + 1]
            )

    def share(one: Extent, at: int, other: Extent, there: int, length: int) -> None:
        # Both sides are cut wherever either is, so that they end up in equal chunks.
        edges = {0, length}
        for extent, start in ((one, at), (other, there)):
            starts = numbered.starts[extent]
            inside = starts[bisect.bisect_left(starts, start) : bisect.bisect_right(starts, start + length)]
            edges.update(position - start for position in inside)
        for extent, start in ((one, at), (other, there)):
            split(extent, start, start + length, [start + edge for edge in edges])

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
                same = _common_prefix(bytes(extent.read(begin, reach)), bytes(source.read(offset, reach)))
                if same >= _MIN_GAIN:
                    share(extent, begin, source, offset, same)
                    begin += same
            if index < len(chunks):
                source, offset = numbered.places[chunks[index]]
                reach = min(_REACH, end - begin, offset)
                same = _common_suffix(
                    bytes(extent.read(end - reach, reach)), bytes(source.read(offset - reach, reach))
                )
                if same >= _MIN_GAIN:
                    share(extent, end - same, source, offset - same, same)
    if not splits:
        return None
    parts: dict[Chunk, list[Chunk]] = {}
    for number, positions in splits.items():
        extent, offset = numbered.places[number]
        content = extent.read(offset, numbered.sizes[number])
        edges = itertools.pairwise((0, *sorted(positions), len(content)))
        parts[numbered.distinct[number]] = [
            (xxhash.xxh3_128_digest(content[a:b], seed), b - a) for a, b in edges
        ]
    before = sum(map(len, numbered.cuts.values()))
    after = sum(len(parts.get(chunk, (chunk,))) for chunks in numbered.cuts.values() for chunk in chunks)
    if after > _MOST_GROWTH * before + _MOST_ADDED:
        # A chunk that stands in a content hundreds of times would be split as often: what repeats itself,
        # as equal weights do, would be cut into shreds.
        return None
    return {
        extent: [part for chunk in chunks for part in parts.get(chunk, (chunk,))]
        for extent, chunks in numbered.cuts.items()
    }


def _common_prefix(one: bytes, other: bytes) -> int:
    return _longest(len(one), lambda a, b: one[a:b] == other[a:b])


def _common_suffix(one: bytes, other: bytes) -> int:
    size = len(one)
    return _longest(size, lambda a, b: one[size - b : size - a] == other[size - b : size - a])


def _longest(size: int, is_same: Callable[[int, int], bool]) -> int:
    """How far two contents of `size` bytes are the same, `is_same` telling it of a range of them."""
    if is_same(0, size):
        return size
    same, differs = 0, size
    while differs - same > 1:
        middle = (same + differs) // 2
        if is_same(same, middle):
            same = middle
        else:
            differs = middle
    return same


def _pieces(
    files: Sequence[Sequence[Extent]], numbered: _Numbered
) -> tuple[tuple[Piece, ...], tuple[tuple[int, ...], ...]]:
    """The pieces, and each file as the numbers of its pieces."""
    joined, used = chunking.runs(list(numbered.chunks.values()), numbered.sizes)
    pieces: list[Piece] = []
    pieces_of: list[range] = []
    for run in joined:
        first = len(pieces)
        pieces += _divided(Piece(*numbered.places[run[0]], numbered.length(run)))
        pieces_of.append(range(first, len(pieces)))
    of_extent = {
        extent: [piece for run in runs for piece in pieces_of[run]]
        for extent, runs in zip(numbered.chunks, used, strict=True)
    }
    return tuple(pieces), tuple(tuple(p for extent in file for p in of_extent[extent]) for file in files)


def _divided(piece: Piece) -> Iterator[Piece]:
    """What is long in parts, which begin at pages of the file where that is worth a seam."""
    if piece.stored is not None:
        yield piece
        return
    begin, end = piece.offset, piece.offset + piece.length
    page = begin + -begin % PAGE_SIZE
    if begin < page <= end - _WORTH_ALIGNING:
        yield Piece(piece.extent, begin, page - begin)
        begin = page
    count = -(-(end - begin) // LONGEST)
    part = -(-(end - begin) // count)
    part += -part % PAGE_SIZE
    for start in range(begin, end, part):
        yield Piece(piece.extent, start, min(part, end - start))
