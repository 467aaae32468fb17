"""The shuffle filter: all first bytes of a segment's elements, then all second bytes, and so on.

Trained weights have few values in the byte with sign and exponent, and noise in the others. Apart from them
that byte shrinks to a third, and noise by itself costs no time (measured: docs/benchmarks.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from aotpack.manifest.values import Width

__all__ = ["WIDTHS", "planes", "unshuffled"]

#: All widths that there are.
WIDTHS: Final[tuple[Width, ...]] = (2, 4)

#: Bytes that are put in order at a time: they fit the cache that each core has to itself.
_BLOCK = 256 * 1024


def planes(content: memoryview, width: Width) -> Iterator[memoryview]:
    """The shuffled content: of n whole elements the n first bytes, and so on; last what is behind them.

    Each part is good until the next one is asked for.
    """
    # Late: packages are opened, and what is not shuffled is read, without numpy.
    import numpy as np

    count = len(content) // width
    elements = np.frombuffer(content, np.uint8, count * width).reshape(count, width)
    plane = np.empty(count, np.uint8)
    for place in range(width):
        plane[:] = elements[:, place]
        yield plane.data
    yield content[count * width :]


def unshuffled(content: bytes, width: Width) -> Iterator[memoryview]:
    """What `planes` was given, part by part."""
    import numpy as np

    count = len(content) // width
    shuffled = np.frombuffer(content, np.uint8, count * width).reshape(width, count)
    for start in range(0, count, _BLOCK // width):
        part = shuffled[:, start : start + _BLOCK // width]
        elements = np.empty((part.shape[1], width), np.uint8)
        for place in range(width):
            elements[:, place] = part[place]
        yield elements.reshape(-1).data
    yield memoryview(content)[count * width :]
