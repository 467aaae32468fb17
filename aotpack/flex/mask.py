"""Block masks: which blocks of (queries, keys) a mod hides for certain, found by evaluating it."""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass, replace

import numpy as np

from aotpack.flex.emit import Array, numpy_type
from aotpack.flex.intervals import Interval, anything, evaluate, exactly
from aotpack.flex.program import Program, Value

__all__ = [
    "BLOCK",
    "GRAIN",
    "Block",
    "BlockMask",
    "Ranges",
    "Region",
    "block_mask",
    "keeps_zero",
    "keys_seen",
    "region_of",
]

#: Queries and keys of the blocks that are evaluated.
BLOCK = (64, 64)
#: The keys of those that are told apart.
GRAIN = 16

#: Half-open ranges of positions, in order and apart.
Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Region:
    """Some scores of every batch."""

    #: The first and the one after the last.
    heads: tuple[int, int]
    queries: tuple[int, int]
    #: Their scores stand side by side.
    keys: Ranges


class Block(enum.IntEnum):
    """What a mod does to one block, in all batches and heads together."""

    #: Every pair is masked, whatever scores and data are.
    MASKED = 0
    #: Some pairs are masked, or data decides.
    PARTIAL = 1
    #: No pair can be masked.
    FULL = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockMask:
    """The blocks of a score matrix of L queries by S keys."""

    lengths: tuple[int, int]
    #: Queries and keys a block; the last ones may be smaller.
    block: tuple[int, int]
    #: `Block` values, uint8, of shape (ceil(L / block[0]), ceil(S / block[1])).
    states: Array
    #: Whether a query sees any key at all: booleans of shape (B or 1, Hq or 1, L).
    seen: Array
    #: The first key each query sees in any head, the last one, and how many: int64 of shape (3, L).
    spans: Array
    #: Whether all batches and heads see the same.
    uniform: bool
    #: Whether captured data may mask more pairs than these.
    depends_on_data: bool

    @property
    def skipped(self) -> float:
        """The share of blocks that need not be computed, 0 to 1."""
        return float(np.mean(self.states == Block.MASKED))

    def coarser(self, factor: int) -> BlockMask:
        """The same mask in blocks of `factor` times as many queries."""
        starts = range(0, self.states.shape[0], factor)
        groups = [self.states[start : start + factor] for start in starts]
        states = np.stack(
            [np.where((group == group[0]).all(axis=0), group[0], np.uint8(Block.PARTIAL)) for group in groups]
        )
        return replace(self, block=(self.block[0] * factor, self.block[1]), states=states)

    def ranges(self, row: int, *states: Block) -> Ranges:
        """The keys of a row's blocks that are in one of `states`; by default those that a query may see."""
        seen = np.isin(self.states[row], states or (Block.PARTIAL, Block.FULL))
        edges = np.flatnonzero(np.diff(np.concatenate([[False], seen, [False]]).astype(np.int8)))
        width, length = self.block[1], self.lengths[1]
        return tuple(
            (int(low) * width, min(int(high) * width, length))
            for low, high in zip(edges[::2], edges[1::2], strict=True)
        )


def block_mask(program: Program, block: tuple[int, int] = BLOCK, grain: int = GRAIN) -> BlockMask:
    """Find the blocks that a score mod masks.

    The whole matrix is evaluated block by block on intervals of positions first. What that leaves open,
    usually the blocks that a mask's edge runs through, is then evaluated element by element, one block at a
    time: memory is bounded by the block, not by L x S.

    Args:
        program: of the score mod.
        block: queries and keys a block.
        grain: keys a block of the result, a divisor of `block[1]`: edges are found more sharply than
            intervals are evaluated.

    """
    _, _, length, keys = program.shape
    rows, columns = -(-length // block[0]), -(-keys // block[1])
    bounds = evaluate(program, lambda value: _reduced(value, program, block))
    states = np.full((rows, columns), Block.PARTIAL, np.uint8)
    low, high = (
        np.broadcast_to(_rank4(bound), (*_rank4(bound).shape[:2], rows, columns)) for bound in bounds[:2]
    )
    states[(high == -np.inf).all(axis=(0, 1))] = Block.MASKED
    states[(low > -np.inf).all(axis=(0, 1))] = Block.FULL
    fine = np.repeat(states, block[1] // grain, axis=1)[:, : -(-keys // grain)]
    seen = np.zeros((1, 1, length), np.bool_)
    spans = np.stack([np.full(length, keys), np.full(length, -1), np.zeros(length, np.int64)])
    uniform, uncertain = True, False
    for row, column in np.argwhere(states != Block.MASKED):
        q = (row * block[0], min((row + 1) * block[0], length))
        k = (column * block[1], min((column + 1) * block[1], keys))
        visible = np.ones((1, 1, 1, 1), np.bool_)
        if states[row, column] == Block.PARTIAL:
            region = Region(heads=(0, program.shape[1]), queries=q, keys=(k,))
            tile = evaluate(program, functools.partial(_sliced, program=program, region=region))
            visible, open_ = _rank4(tile.high) > -np.inf, _rank4(tile.low) > -np.inf
            uncertain |= bool(np.any(visible & ~open_))
            starts = np.arange(0, k[1] - k[0], grain)
            part = slice(k[0] // grain, k[0] // grain + len(starts))
            fine[row, part] = _states(visible, open_, k[1] - k[0], starts)
        some = np.broadcast_to(visible, (*visible.shape[:2], q[1] - q[0], k[1] - k[0]))
        if some.shape[:2] != seen.shape[:2]:
            seen = np.broadcast_to(
                seen, (*np.broadcast_shapes(seen.shape[:2], some.shape[:2]), length)
            ).copy()
        seen[..., slice(*q)] |= some.any(axis=3)
        somewhere: Array = np.asarray(some.any(axis=(0, 1)))
        uniform &= bool((some == somewhere).all())
        _extend(spans[:, slice(*q)], somewhere, k)
    return BlockMask(
        lengths=(length, keys),
        block=(block[0], grain),
        states=fine,
        seen=seen,
        spans=spans,
        uniform=uniform,
        depends_on_data=uncertain and program.uses_data,
    )


def keys_seen(program: Program, queries: tuple[int, int]) -> Array:
    """Which keys any of some queries may see: booleans of shape (S,).

    Args:
        program: of the score mod.
        queries: the first and the one after the last.

    """
    keys = program.shape[3]
    region = Region(heads=(0, program.shape[1]), queries=queries, keys=((0, keys),))
    bounds = evaluate(program, functools.partial(_sliced, program=program, region=region))
    return np.broadcast_to((_rank4(bounds.high) > -np.inf).any(axis=(0, 1, 2)), keys)


def _states(visible: Array, open_: Array, width: int, starts: Array) -> Array:
    """The `Block` values of the parts of a block of `width` keys, each from one start to the next."""
    some = np.logical_or.reduceat(np.broadcast_to(visible.any(axis=(0, 1, 2)), width), starts)
    all_ = np.logical_and.reduceat(np.broadcast_to(open_.all(axis=(0, 1, 2)), width), starts)
    return np.where(all_, Block.FULL, np.where(some, Block.PARTIAL, Block.MASKED)).astype(np.uint8)


def _extend(spans: Array, visible: Array, k: tuple[int, int]) -> None:
    """Take the visible pairs of one block into the spans of its queries."""
    any_ = visible.any(axis=1)
    first = np.where(any_, k[0] + visible.argmax(axis=1), spans[0])
    last = np.where(any_, k[1] - 1 - visible[:, ::-1].argmax(axis=1), spans[1])
    spans[0] = np.minimum(spans[0], first)
    spans[1] = np.maximum(spans[1], last)
    spans[2] += visible.sum(axis=1)


def keeps_zero(program: Program | None) -> bool:
    """Whether a prob mod leaves a probability of 0 at 0 everywhere, so that masked keys may be left out.

    Decided on intervals of whole blocks, hence without a false yes.
    """
    if program is None:
        return True

    def leaf(value: Value) -> Interval:
        if value.kind == "score":
            return exactly(np.zeros((1, 1, 1, 1), numpy_type(value.element_type)))
        return _reduced(value, program, (128, 128))

    bounds = evaluate(program, leaf)
    return bool(np.all(bounds.low == 0) and np.all(bounds.high == 0))


def region_of(array: Array, program: Program, region: Region) -> Array:
    """The part of a broadcast operand that belongs to some scores."""
    _, heads, length, width = program.shape
    if array.ndim >= 3 and array.shape[-3] == heads and heads > 1:
        array = array[..., slice(*region.heads), :, :]
    if array.ndim >= 2 and array.shape[-2] == length and length > 1:
        array = array[..., slice(*region.queries), :]
    if array.ndim >= 1 and array.shape[-1] == width and width > 1:
        parts = [array[..., low:high] for low, high in region.keys]
        array = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
    return array


def _sliced(value: Value, *, program: Program, region: Region) -> Interval:
    if value.array is not None and value.table:
        return exactly(value.array)
    return anything(value) if value.array is None else exactly(region_of(value.array, program, region))


def _reduced(value: Value, program: Program, block: tuple[int, int]) -> Interval:
    if value.array is None:
        return anything(value)
    if value.table:
        return exactly(value.array)
    low = high = value.array
    for axis, size, length in ((-1, block[1], program.shape[3]), (-2, block[0], program.shape[2])):
        if low.ndim >= -axis and low.shape[axis] == length and length > 1:
            starts = np.arange(0, length, size)
            low, high = (
                np.minimum.reduceat(low, starts, axis=axis),
                np.maximum.reduceat(high, starts, axis=axis),
            )
    if np.array_equal(low, high):
        return exactly(low)
    return Interval(exactly(low).low, exactly(high).high)


def _rank4(bound: Array) -> Array:
    return bound.reshape((1,) * (4 - bound.ndim) + bound.shape)
