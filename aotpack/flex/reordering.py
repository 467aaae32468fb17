"""Other orders of queries and keys, in which a mask has fewer blocks with anything to see.

Positions are often places in a grid: an image row by row, or a sequence whose keys are taken at a stride.
In the order they come in, a block of queries is then a strip one row high, and the keys it sees are spread
over many rows. Which grid it is, is not read from a name: grids of every width are tried, and the mask is
evaluated in each order. Queries and keys are gathered into the best one before, the result back after.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from aotpack.flex.emit import Array
from aotpack.flex.mask import BlockMask, keys_seen
from aotpack.flex.program import Program, Value

__all__ = ["Order", "best_orders", "is_scattered", "reordered"]

#: The widest band of columns that is tried: a wider one is hardly squarer than the row.
_WIDEST = 32
#: Orders that are tried: to judge one takes some milliseconds.
_MOST = 64
#: Queries in each of the two blocks that an order is judged by, and keys that are skipped together at least.
_QUERIES = 64
_KEYS = 16


#: The share of the scores in blocks that are seen, above which no order can pay.
_SCATTERED = 0.6


@dataclass(frozen=True, kw_only=True, eq=False)
class Order:
    """The positions read as a grid, one band of columns after the other, each row by row."""

    length: int
    #: Columns of the grid, and of a band.
    width: int
    band: int

    @functools.cached_property
    def places(self) -> Array:
        """Where each position comes from: int64 of shape (S,)."""
        grid = np.arange(self.length).reshape(-1, self.width // self.band, self.band)
        return grid.transpose(1, 0, 2).reshape(-1)

    @functools.cached_property
    def inverse(self) -> Array:
        """Where each position goes to: int64 of shape (S,)."""
        return np.argsort(self.places)

    def __str__(self) -> str:
        columns = "column" if self.band == 1 else f"{self.band} columns"
        return f"{columns} at a time of a grid {self.width} wide"


def is_scattered(mask: BlockMask) -> bool:
    """Whether another order of the positions may have fewer blocks with something to see."""
    length, keys = mask.lengths
    computed = (1 - mask.skipped) * length * keys
    return length == keys and float(mask.spans[2].sum()) < _SCATTERED * computed


def best_orders(program: Program, count: int) -> list[Order]:
    """The orders in which the fewest scores need to be computed, the best first.

    Args:
        program: of a score mod, with as many queries as keys.
        count: how many are wanted.

    """
    found = []
    for at, order in zip(range(_MOST), _orders(program.shape[2]), strict=False):
        other = reordered(program, order)
        if other is None:
            return []
        found.append((_computed(other), at, order))
    return [order for _, _, order in sorted(found, key=lambda item: item[:2])[:count]]


def _computed(program: Program) -> int:
    """Groups of keys that two blocks of queries, far from the ends, have to look at."""
    length = program.shape[2]
    groups = 0
    for middle in (length // 4, 3 * length // 4):
        first = middle // _QUERIES * _QUERIES
        seen = keys_seen(program, (first, min(first + _QUERIES, length)))
        groups += int(np.logical_or.reduceat(seen, np.arange(0, len(seen), _KEYS)).sum())
    return groups


def reordered(program: Program, order: Order) -> Program | None:
    """The program of a mod over queries and keys in another order, or None if captured data have one."""
    values = [_permuted(value, program, order) for value in program.values]
    return None if None in values else replace(program, values=tuple(value for value in values if value))


def _orders(length: int) -> Iterator[Order]:
    """All of them, grids that are nearly square first."""
    widths = [width for width in range(2, length) if length % width == 0]
    for width in sorted(widths, key=lambda width: max(width, length // width)):
        for band in range(1, min(width - 1, _WIDEST) + 1):
            if width % band == 0:
                yield Order(length=length, width=width, band=band)


def _permuted(value: Value, program: Program, order: Order) -> Value | None:
    if value.table or value.kind in ("score", "step"):
        return value
    axes = [
        axis
        for axis, size in ((-1, program.shape[3]), (-2, program.shape[2]))
        if len(value.shape) >= -axis and value.shape[axis] == size > 1
    ]
    if value.array is None:
        return None if axes else value
    array = value.array
    for axis in axes:
        array = array.take(order.places, axis=axis)
    return replace(value, array=array)
