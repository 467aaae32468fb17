"""How a segment is compressed, if that pays: a sample of it tells the level, and whether to shuffle it first.

This is the writer's affair alone; a reader follows what the manifest says of each segment.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import zstandard

from aotpack.container.shuffling import WIDTHS, planes
from aotpack.manifest.values import Width

__all__ = ["Frame", "compress", "compressed"]

#: A segment is stored compressed if that saves this share of it: each reading costs a decompression.
_WORTH_COMPRESSING = 0.03

#: Bytes of a segment of which every way is tried on all, and of the sample from the middle of longer ones.
_TRIED_WHOLE = 512 * 1024
_SAMPLE = 64 * 1024

#: A zstd level is taken where it saves this share more of the sample than `_QUICK` does: it takes up to four
#: times as long, and on weights it gains nothing.
_WORTH_A_LEVEL = 0.02

#: Next to no search for what repeats, and the stage that makes frequent bytes short; noise passes at once.
_QUICK = zstandard.ZstdCompressionParameters(
    window_log=19,
    hash_log=8,
    chain_log=6,
    search_log=1,
    min_match=7,
    target_length=0,
    strategy=zstandard.STRATEGY_FAST,
    write_content_size=True,
    write_checksum=False,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A compressed content."""

    stored: bytes
    #: Bytes of an element by which it was shuffled; None: not at all.
    width: Width | None


def compressed(content: memoryview, level: int) -> Frame | None:
    """A content compressed in the best way; None where that does not pay.

    Args:
        content: of a segment.
        level: of zstd, for what it finds more in than a quick look does.
    """
    whole = len(content) <= _TRIED_WHOLE
    start = 0 if whole else (len(content) - _SAMPLE) // 2
    sample = content if whole else content[start : start + _SAMPLE]
    quick = min((_frame(sample, width, None) for width in (None, *WIDTHS)), key=_length)
    slow = min((_frame(sample, width, level) for width in dict.fromkeys((None, quick.width))), key=_length)
    takes_level = _length(quick) - _length(slow) >= _WORTH_A_LEVEL * len(sample)
    best = slow if takes_level else quick
    if not whole:
        best = _frame(content, best.width, level if takes_level else None)
    return best if _length(best) <= len(content) * (1 - _WORTH_COMPRESSING) else None


def compress(content: bytes | memoryview, level: int) -> bytes:
    """One zstd frame that declares the size of its content, which is not shuffled."""
    return _frame(memoryview(content), None, level).stored


def _frame(content: memoryview, width: Width | None, level: int | None) -> Frame:
    compressor = (
        zstandard.ZstdCompressor(compression_params=_QUICK)
        if level is None
        # No checksum: the content has digests of its own.
        else zstandard.ZstdCompressor(level=level, write_checksum=False, write_content_size=True)
    )
    if width is None:
        return Frame(stored=compressor.compress(content), width=None)
    stored = io.BytesIO()
    with compressor.stream_writer(stored, size=len(content), closefd=False) as stream:
        for plane in planes(content, width):
            stream.write(plane)
            # Blocks of its own for each: what is frequent in one is not in another.
            stream.flush(zstandard.FLUSH_BLOCK)
    return Frame(stored=stored.getvalue(), width=width)


def _length(frame: Frame) -> int:
    return len(frame.stored)
