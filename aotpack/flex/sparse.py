"""FlexAttention in plain ops, a block of queries at a time against only the keys that it can see.

Blocks whose part of the mod is the same, as in a sliding window, are batched: they are folded into the batch
dimension, so all tensors keep four dimensions, and one set of nodes serves them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx

from aotpack.flex.capabilities import Capabilities, Options
from aotpack.flex.emit import Array, Dim, Emitter, numpy_type
from aotpack.flex.mask import Block, BlockMask, Ranges, Region
from aotpack.flex.matmuls import Operands, blind_queries, cast, operands_of, scores_of, values_of
from aotpack.flex.node import FlexNode
from aotpack.flex.program import Program
from aotpack.flex.reordering import Order
from aotpack.flex.tiles import Bank, write_tile

__all__ = ["Tiling", "write_block_sparse"]

#: Copies of fewer keys than this at once are left to Slice.
_LEAST_COPIED = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Tiling:
    """How the scores of a node are cut into tiles, and its mods in those terms."""

    #: Its rows of blocks are the rows of tiles.
    mask: BlockMask
    #: Heads of K and V a tile, a divisor of all of them; the query heads that share them go with them.
    kv_heads: int
    #: As programs; None if the node has none.
    score_mod: Program | None = None
    prob_mod: Program | None = None
    #: Of queries and keys, in which mask and programs are; None for the one they come in.
    order: Order | None = None


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A block of queries and the keys they see."""

    q: tuple[int, int]
    keys: Ranges

    @property
    def sizes(self) -> tuple[int, int]:
        """How many queries, and keys."""
        return self.q[1] - self.q[0], sum(high - low for low, high in self.keys)


def write_block_sparse(
    node: FlexNode, emitter: Emitter, capabilities: Capabilities, options: Options, tiling: Tiling
) -> None:
    """Write `node` block by block.

    Args:
        node: that was read.
        emitter: to write to.
        capabilities: of the target.
        options: of the user.
        tiling: that was chosen.

    """
    score_mod, factor = (None, 1.0) if tiling.score_mod is None else tiling.score_mod.without_leading_scale()
    operands = operands_of(node, emitter, capabilities, factor)
    order, output = tiling.order, node.proto.output[0]
    if order is not None:
        operands = operands.mapped(lambda value: _gathered(emitter, value, order.places))
    mods = [
        (program, None if program is None else _prologue(emitter, program))
        for program in (score_mod, tiling.prob_mod)
    ]
    bank = Bank(emitter, operands.q)
    parts = []
    for first in range(0, node.heads[1], tiling.kv_heads):
        writer = _Writer(node, bank, capabilities, options, tiling, operands, mods, first)
        parts.append(_joined(emitter, [writer.block(rows) for rows in writer.groups()], axis=2))
    values = _joined(emitter, parts, axis=1)
    if order is None:
        emitter.op("Identity", values, output=output)
    else:
        emitter.op("Gather", values, emitter.constant(order.inverse), axis=2, output=output)


class _Writer:
    """Writes the tiles of some heads, from `first` of K and V on."""

    def __init__(
        self,
        node: FlexNode,
        bank: Bank,
        capabilities: Capabilities,
        options: Options,
        tiling: Tiling,
        operands: Operands,
        mods: list[tuple[Program | None, Mapping[str, str] | None]],
        first: int,
    ) -> None:
        self.bank, self.emitter, self.mods, self.mask = bank, bank.emitter, mods, tiling.mask
        self.capabilities, self.zeros = capabilities, options.masked_rows == "zeros"
        heads, kv_heads = node.heads
        group, last = heads // kv_heads, first + tiling.kv_heads
        self.heads = (first * group, last * group)
        #: The node as if it had these heads only.
        self.node = replace(
            node,
            q_shape=_with_heads(node.q_shape, tiling.kv_heads * group),
            k_shape=_with_heads(node.k_shape, tiling.kv_heads),
            v_shape=_with_heads(node.v_shape, tiling.kv_heads),
        )
        self.operands = operands
        if tiling.kv_heads < kv_heads:
            self.operands = replace(
                operands,
                q=self._slice(operands.q, *self.heads, axis=1),
                k=self._slice(operands.k, first, last, axis=1),
                v=self._slice(operands.v, first, last, axis=1),
            )

    def groups(self) -> Iterator[list[_Row]]:
        """The rows of blocks in order, equal ones together while their scores fit the working set."""
        group: list[_Row] = []
        for row in self._rows():
            if group and not self._joins(row, group):
                yield group
                group = []
            group.append(row)
        yield group

    def block(self, rows: list[_Row]) -> str:
        """Write equal rows of blocks; returns the name of their part of Y."""
        first, count = rows[0], len(rows)
        if not first.keys:
            return self._unseen(first.q)
        queries, keys = first.sizes
        heads, kv_heads = self.node.heads
        q = self._sliced(self.operands.q, ((first.q[0], rows[-1].q[1]),), self.mask.lengths[0])
        if count == 1:
            first = self._full_first(first)
            k = self._part(self.operands.k, first.keys, self.node.k_shape[3])
            v = self._part(self.operands.v, first.keys, self.node.v_shape[3])
        else:
            q = self._fold(q, count, queries, heads, self.node.q_shape[3])
            k = self._windows(self.operands.k, first, count, kv_heads, self.node.k_shape[3])
            v = self._windows(self.operands.v, first, count, kv_heads, self.node.v_shape[3])
        sizes = queries, keys
        scores = scores_of(self.node, self.emitter, self.operands, q, k, sizes)
        scores = self._modified(0, scores, first, count, self.bank)
        blind = None
        if self.zeros and self.mask.depends_on_data:
            blind = blind_queries(self.emitter, scores, self.node.precision)
        probs = self._modified(1, self.emitter.op("Softmax", scores, axis=-1), first, count, self.bank)
        if self.zeros and blind is None and (known := self._blind(first)).any():
            blind = self.emitter.constant(known)
        values = values_of(self.node, self.emitter, self.operands, probs, v, sizes, blind)
        return values if count == 1 else self._unfold(values, count, queries)

    def _rows(self) -> Iterator[_Row]:
        high = self.mask.block[0]
        for row in range(self.mask.states.shape[0]):
            q = (row * high, min((row + 1) * high, self.mask.lengths[0]))
            yield _Row(q=q, keys=self.mask.ranges(row))

    def _full_first(self, row: _Row) -> _Row:
        """The row with the keys that all its queries see before the others, where that costs nothing.

        Those that a mask hides from some queries are then next to each other: in a window they are both ends.
        """
        if not self.capabilities.updates_in_place:
            return row
        at = row.q[0] // self.mask.block[0]
        some = self.mask.ranges(at, Block.PARTIAL)
        keys = (*self.mask.ranges(at, Block.FULL), *some)
        if len(some) < 2 or not self._gathers(row.keys) or not self._gathers(keys):
            return row
        return replace(row, keys=keys)

    def _joins(self, row: _Row, group: list[_Row]) -> bool:
        """Whether `row` is the next of the equal rows in `group`."""
        first, last = group[0], group[-1]
        queries, keys = first.sizes
        step = row.q[0] - last.q[0]
        batch = self.node.q_shape[0]
        scores = (batch if isinstance(batch, int) else 1) * self.node.heads[0] * queries * keys
        if row.sizes != first.sizes or len(row.keys) != 1 or len(last.keys) != 1 or keys % queries:
            return False
        if row.keys[0][0] != last.keys[0][0] + step:
            return False
        if (
            scores * (len(group) + 1) * numpy_type(self.node.precision).itemsize
            > self.capabilities.working_set
        ):
            return False
        if self.zeros and not np.array_equal(self._blind(row), self._blind(first)):
            return False
        written = self._signature(first)
        return written is not None and written == self._signature(row)

    def _signature(self, row: _Row) -> bytes | None:
        """What the mods write for a row; None if it differs between batches."""
        scratch = Emitter("scratch/")
        bank = Bank(scratch, "q", budget=1 << 62)
        for index in range(2):
            self._modified(index, "value", row, 1, bank)
        if any(len(tensor.dims) == 4 and tensor.dims[0] > 1 for tensor in scratch.initializers):
            return None
        graph = onnx.GraphProto(node=scratch.nodes, initializer=scratch.initializers)
        return bytes(graph.SerializeToString(deterministic=True))

    def _modified(self, index: int, value: str, row: _Row, count: int, bank: Bank) -> str:
        program, outer = self.mods[index]
        if program is None or outer is None:
            return value
        region = Region(heads=self.heads, queries=row.q, keys=row.keys)
        batch = self.node.q_shape[0]
        batch = batch * count if isinstance(batch, int) else None
        return write_tile(program, bank, outer, value, region, self.capabilities, batch)

    def _blind(self, row: _Row) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        seen = self.mask.seen[..., slice(*row.q), None]
        return ~(seen if seen.shape[1] == 1 else seen[:, slice(*self.heads)])

    def _part(self, value: str, ranges: Ranges, width: Dim) -> str:
        """The keys of K or V, (B, Hkv, S, width), in `ranges`."""
        length = self.mask.lengths[1]
        if not self._gathers(ranges):
            return self._sliced(value, ranges, length)
        step = self._step(ranges)
        emitter, heads = self.emitter, self.node.heads[1]
        assert isinstance(width, int)
        pieces = [at for low, high in ranges for at in range(low // step, high // step)]
        split = emitter.op("Reshape", value, emitter.ints(0, heads, length // step, step * width))
        some = emitter.op("Gather", split, emitter.ints(*pieces), axis=2)
        return emitter.op("Reshape", some, emitter.ints(0, heads, len(pieces) * step, width))

    def _gathers(self, ranges: Ranges) -> bool:
        whole = ((0, self.mask.lengths[1]),)
        return self.capabilities.gathers and ranges != whole and self._step(ranges) >= _LEAST_COPIED

    def _step(self, ranges: Ranges) -> int:
        """How many keys are gathered at once."""
        return math.gcd(self.mask.lengths[1], *(bound for part in ranges for bound in part))

    def _sliced(self, value: str, ranges: Ranges, length: int) -> str:
        """The rows of (B, H, length, X) in `ranges`."""
        if ranges == ((0, length),):
            return value
        return _joined(self.emitter, [self._slice(value, low, high, axis=2) for low, high in ranges], axis=2)

    def _slice(self, value: str, low: int, high: int, axis: int) -> str:
        ints = self.emitter.ints
        return self.emitter.op("Slice", value, ints(low), ints(high), ints(axis))

    def _windows(self, value: str, first: _Row, count: int, heads: int, width: Dim) -> str:
        """K or V for `count` rows, each a window one block further on, as (count * B, H, keys, X)."""
        queries, keys = first.sizes
        ((start, _),) = first.keys
        parts = []
        for low in range(start, start + keys, queries):
            part = self._part(value, ((low, low + count * queries),), width)
            parts.append(self._fold(part, count, queries, heads, width))
        return _joined(self.emitter, parts, axis=2)

    def _fold(self, value: str, count: int, queries: int, heads: int, width: Dim) -> str:
        """(B, H, count * queries, X) as (count * B, H, queries, X)."""
        emitter = self.emitter
        assert isinstance(width, int)
        split = emitter.op("Reshape", value, emitter.ints(0, heads, count, queries, width))
        turned = emitter.op("Transpose", split, perm=[2, 0, 1, 3, 4])
        return emitter.op("Reshape", turned, emitter.ints(-1, heads, queries, width))

    def _unfold(self, value: str, count: int, queries: int) -> str:
        """(count * B, Hq, queries, Ev) as (B, Hq, count * queries, Ev)."""
        emitter = self.emitter
        heads, width = self.node.heads[0], self._v_size
        split = emitter.op("Reshape", value, emitter.ints(count, -1, heads, queries, width))
        turned = emitter.op("Transpose", split, perm=[1, 2, 0, 3, 4])
        return emitter.op("Reshape", turned, emitter.ints(-1, heads, count * queries, width))

    def _unseen(self, q: tuple[int, int]) -> str:
        """The part of Y whose queries see no key."""
        number = np.asarray(0 if self.zeros else np.nan, numpy_type(self.node.precision))
        batch = self.emitter.op("Shape", self.node.inputs[0], start=0, end=1)
        sizes = self.emitter.ints(self.node.heads[0], q[1] - q[0], self._v_size)
        shape = self.emitter.op("Concat", batch, sizes, axis=0)
        values = self.emitter.op("Expand", self.emitter.constant(number), shape)
        # After that: not every target has an Expand of every type.
        return cast(self.emitter, values, self.node.precision, self.node.element_type)

    @property
    def _v_size(self) -> int:
        size = self.node.v_shape[3]
        assert isinstance(size, int)
        return size


def _with_heads(shape: tuple[Dim, ...], heads: int) -> tuple[Dim, ...]:
    return (shape[0], heads, *shape[2:])


def _joined(emitter: Emitter, parts: list[str], axis: int) -> str:
    return parts[0] if len(parts) == 1 else emitter.op("Concat", *parts, axis=axis)


def _gathered(emitter: Emitter, value: str, places: Array) -> str:
    return emitter.op("Gather", value, emitter.constant(places), axis=2)


def _prologue(emitter: Emitter, program: Program) -> Mapping[str, str]:
    """Write what is computed from captured values once; returns the names of all data."""
    names = {name: emitter.constant(array) for name, array in program.prologue_constants.items()}
    names |= {value.name: value.name for value in program.values if value.kind == "data"}
    for node in program.prologue:
        names.update(zip(node.output, emitter.copy(node, names), strict=True))
    return names
