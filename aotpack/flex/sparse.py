"""FlexAttention in plain ops, a block of queries at a time against only the keys that it can see.

Blocks whose part of the mod is the same, as in a sliding window, are batched: they are folded into the batch
dimension, so all tensors keep four dimensions, and one set of nodes serves them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from aotpack.flex.capabilities import Capabilities, Options
from aotpack.flex.emit import Dim, Emitter, numpy_type
from aotpack.flex.mask import BlockMask, Ranges
from aotpack.flex.node import FlexNode
from aotpack.flex.products import Operands, blind_queries, operands_of, scores_of, values_of
from aotpack.flex.program import Program
from aotpack.flex.tiles import Bank, write_tile

__all__ = ["write_block_sparse"]


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
    node: FlexNode,
    emitter: Emitter,
    capabilities: Capabilities,
    options: Options,
    *,
    mask: BlockMask,
    score_mod: Program | None,
    prob_mod: Program | None,
) -> None:
    """Write `node` block by block.

    Args:
        node: that was read.
        emitter: to write to.
        capabilities: of the target.
        options: of the user.
        mask: of its score mod.
        score_mod: as a program; None if the node has none.
        prob_mod: likewise.

    """
    score_mod, factor = (None, 1.0) if score_mod is None else score_mod.without_leading_scale()
    operands = operands_of(node, emitter, capabilities, factor)
    writer = _Writer(node, emitter, options, mask, operands, (score_mod, prob_mod))
    blocks = [writer.block(rows) for rows in writer.groups(capabilities.working_set)]
    if len(blocks) == 1:
        emitter.op("Identity", blocks[0], output=node.proto.output[0])
    else:
        emitter.op("Concat", *blocks, axis=2, output=node.proto.output[0])


class _Writer:
    def __init__(
        self,
        node: FlexNode,
        emitter: Emitter,
        options: Options,
        mask: BlockMask,
        operands: Operands,
        mods: tuple[Program | None, Program | None],
    ) -> None:
        self.node, self.emitter, self.options, self.mask, self.operands = (
            node,
            emitter,
            options,
            mask,
            operands,
        )
        self.mods = [(program, None if program is None else _prologue(emitter, program)) for program in mods]
        self.bank = Bank(emitter, operands.q)
        self.zeros = options.masked_rows == "zeros"

    def groups(self, working_set: int) -> Iterator[list[_Row]]:
        """The rows of blocks in order, equal ones together while their scores fit `working_set` bytes."""
        group: list[_Row] = []
        for row in self._rows():
            if group and not self._joins(row, group, working_set):
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
        q = self._part(self.operands.q, ((first.q[0], rows[-1].q[1]),), self.mask.lengths[0])
        if count == 1:
            k = self._part(self.operands.k, first.keys, self.mask.lengths[1])
            v = self._part(self.operands.v, first.keys, self.mask.lengths[1])
        else:
            heads, kv_heads = self.node.heads
            q = self._fold(q, count, queries, heads, self.node.q_shape[3])
            k = self._windows(self.operands.k, first, count, kv_heads, self.node.k_shape[3])
            v = self._windows(self.operands.v, first, count, kv_heads, self.node.v_shape[3])
        sizes = queries, keys
        scores = self._modified(
            0, scores_of(self.node, self.emitter, self.operands, q, k, sizes), first, self.bank
        )
        blind = None
        if self.zeros and self.mask.depends_on_data:
            blind = blind_queries(self.emitter, scores, self.node.precision)
        probs = self._modified(1, self.emitter.op("Softmax", scores, axis=-1), first, self.bank)
        values = values_of(self.node, self.emitter, self.operands, probs, v, sizes)
        if self.zeros and blind is None and (known := self._blind(first)).any():
            blind = self.emitter.constant(known)
        if blind is not None:
            zero = self.emitter.constant(np.asarray(0, numpy_type(self.node.element_type)))
            values = self.emitter.op("Where", blind, zero, values)
        return values if count == 1 else self._unfold(values, count, queries)

    def _rows(self) -> Iterator[_Row]:
        high = self.mask.block[0]
        for row in range(self.mask.states.shape[0]):
            q = (row * high, min((row + 1) * high, self.mask.lengths[0]))
            yield _Row(q=q, keys=self.mask.ranges(row, row + 1))

    def _joins(self, row: _Row, group: list[_Row], working_set: int) -> bool:
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
        if scores * (len(group) + 1) * numpy_type(self.node.precision).itemsize > working_set:
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
            self._modified(index, "value", row, bank)
        if any(len(tensor.dims) == 4 and tensor.dims[0] > 1 for tensor in scratch.initializers):
            return None
        graph = onnx.GraphProto(node=scratch.nodes, initializer=scratch.initializers)
        return bytes(graph.SerializeToString(deterministic=True))

    def _modified(self, index: int, value: str, row: _Row, bank: Bank) -> str:
        program, outer = self.mods[index]
        if program is None or outer is None:
            return value
        return write_tile(program, bank, outer, value, row.q, row.keys, self.mask.block[1])

    def _blind(self, row: _Row) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        return ~self.mask.seen[..., row.q[0] : row.q[1], None]

    def _part(self, value: str, ranges: Ranges, length: int) -> str:
        """The rows of (B, H, length, X) in `ranges`."""
        if ranges == ((0, length),):
            return value
        ints = self.emitter.ints
        parts = [self.emitter.op("Slice", value, ints(low), ints(high), ints(2)) for low, high in ranges]
        return parts[0] if len(parts) == 1 else self.emitter.op("Concat", *parts, axis=2)

    def _windows(self, value: str, first: _Row, count: int, heads: int, width: Dim) -> str:
        """K or V for `count` rows, each a window one block further on, as (count * B, H, keys, X)."""
        queries, keys = first.sizes
        ((start, _),) = first.keys
        parts = []
        for low in range(start, start + keys, queries):
            part = self._part(value, ((low, low + count * queries),), self.mask.lengths[1])
            parts.append(self._fold(part, count, queries, heads, width))
        return parts[0] if len(parts) == 1 else self.emitter.op("Concat", *parts, axis=2)

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
        kind = numpy_type(self.node.element_type)
        batch_and_heads = self.emitter.op("Shape", self.node.inputs[0], start=0, end=2)
        shape = self.emitter.op(
            "Concat", batch_and_heads, self.emitter.ints(q[1] - q[0], self._v_size), axis=0
        )
        return self.emitter.op(
            "Expand", self.emitter.constant(np.asarray(0 if self.zeros else np.nan, kind)), shape
        )

    @property
    def _v_size(self) -> int:
        size = self.node.v_shape[3]
        assert isinstance(size, int)
        return size


def _prologue(emitter: Emitter, program: Program) -> Mapping[str, str]:
    """Write what is computed from captured values once; returns the names of all data."""
    names = {name: emitter.constant(array) for name, array in program.prologue_constants.items()}
    names |= {value.name: value.name for value in program.values if value.kind == "data"}
    for node in program.prologue:
        names.update(zip(node.output, emitter.copy(node, names), strict=True))
    return names
