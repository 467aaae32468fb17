"""Find the bytes that files share: cut them where their content says so, join what always stands together.

This is the writer's affair alone. A reader sees segments and need not know how they were found.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import xxhash

from aotpack.extras import require

__all__ = ["AVERAGE_CHUNK", "Chunk", "average_chunk", "cut", "runs"]

#: Bytes. Half of it is the least that a chunk has, so most are near it and few seams fall into large ones.
#: Measured on compiled weights: 32 KiB adds a tenth to what 5 MB of files hold, and 64 KiB nothing to what
#: 341 MB do.
AVERAGE_CHUNK = 16384
_AVERAGE_OF_MUCH = 4 * AVERAGE_CHUNK
_MUCH = 64 * 1024 * 1024

#: Bytes that are cut at a time, so that memory does not grow with a file.
_WINDOW = 2 * 1024 * 1024

#: (hash of the content, length in bytes)
Chunk = tuple[bytes, int]


def average_chunk(total: int) -> int:
    """The length of chunks, in bytes, for contents of `total` bytes together."""
    return AVERAGE_CHUNK if total < _MUCH else _AVERAGE_OF_MUCH


def cut(
    read: Callable[[int, int, bytearray], memoryview],
    size: int,
    average: int,
    seed: int,
    beside: Callable[[memoryview], object] = len,
) -> list[Chunk]:
    """Cut a content of `size` bytes into chunks, at places that depend on the bytes around them only.

    Args:
        read: gives the bytes at (offset, length), in the memory that it is given or elsewhere.
        size: length of the content, in bytes.
        average: length of a chunk, in bytes; contents are cut alike only where it is the same.
        seed: of the hashes. xxh3 is quick and spreads well but is no defence against somebody who chooses
            the content; a seed that nobody could know beforehand is.
        beside: given all of the content, part by part, by another thread while the part is cut, so that one
            reading serves both.

    Raises:
        ExtraMissing: the extra that cuts is not installed.
    """
    require("build")
    # Late: whoever loads or inspects a package has no need of it.
    from pyfastcdc import FastCDC

    half = average // 2
    cutter = FastCDC(half, min_size=half, max_size=4 * average)
    chunks: list[Chunk] = []
    offset = given = 0
    buffers = [bytearray(min(_WINDOW, size)) for _ in range(2)]
    # What the other thread is at, one for each buffer: neither waits for the other at each window.
    doing: deque[Future[object]] = deque()
    with ThreadPoolExecutor(1) as other:
        while offset < size:
            if len(doing) == len(buffers):
                doing.popleft().result()
            buffers.reverse()
            window = read(offset, min(_WINDOW, size - offset), buffers[0])
            doing.append(other.submit(beside, window[given - offset :]))
            start, given = offset, offset + len(window)
            for chunk in cutter.cut_buf(window):
                end = chunk.offset + chunk.length
                # Where a window ends is no place to cut: that chunk is cut again from the next window.
                if end == len(window) and given < size and chunk.offset:
                    break
                chunks.append((xxhash.xxh3_128_digest(window[chunk.offset : end], seed), chunk.length))
                offset = start + end
        for last in doing:
            last.result()
    return chunks


def runs(
    sequences: Sequence[Sequence[int]], sizes: Sequence[int], longest: int | None = None
) -> tuple[list[list[int]], list[list[int]]]:
    """Join chunks that stand one after the other wherever they occur.

    Args:
        sequences: chunks by number, from 0 in the order of their first occurrence.
        sizes: length of each chunk, in bytes.
        longest: bytes that a run of more than one chunk may have, if there is a limit.

    Returns:
        The runs, each of one or more chunks, in the order of their first occurrence; and each sequence as the
        numbers of its runs.
    """
    before: list[int | None] = [None] * len(sizes)
    after: list[int | None] = [None] * len(sizes)
    for sequence in sequences:
        for chunk, previous, following in zip(sequence, (-1, *sequence), (*sequence[1:], -1), strict=False):
            # -1, an end of a sequence, is a neighbour like any other: one that is never joined.
            before[chunk] = previous if before[chunk] in {None, previous} else -1
            after[chunk] = following if after[chunk] in {None, following} else -1
    joined: list[list[int]] = []
    run_of: list[int] = []
    filled = 0
    for chunk, size in enumerate(sizes):
        continues = (
            chunk > 0
            and before[chunk] == chunk - 1
            and after[chunk - 1] == chunk
            and (longest is None or filled + size <= longest)
        )
        if continues:
            joined[-1].append(chunk)
            filled += size
        else:
            joined.append([chunk])
            filled = size
        run_of.append(len(joined) - 1)
    starts = {run[0] for run in joined}
    return joined, [[run_of[chunk] for chunk in sequence if chunk in starts] for sequence in sequences]
