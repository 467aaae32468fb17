"""FlexAttention in plain ONNX ops: dense for any mod, and block-sparse for pointwise ones with known lengths.

Both follow the schema's order of operations: Q K^T in the type of Q, scores and softmax in the softmax
precision, then V. K and V are never repeated for grouped heads: the queries of a group are stacked instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from aotpack.flex.capabilities import Capabilities, Options
from aotpack.flex.emit import Dim, Emitter, numpy_type
from aotpack.flex.mask import BlockMask, Ranges
from aotpack.flex.node import FlexNode
from aotpack.flex.program import Program
from aotpack.flex.tiles import Bank, write_tile

__all__ = ["write_block_sparse", "write_dense"]


#: The queries and keys of a tile.
_Sizes = tuple[Dim, Dim]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Operands:
    """Q, scaled, K and V as they go into the matrix products."""

    q: str
    k: str
    v: str
    #: The type of the products.
    element_type: int


def write_dense(node: FlexNode, emitter: Emitter, capabilities: Capabilities, options: Options) -> None:
    """Write all scores at once; lengths may be symbolic and mods anything but random."""
    operands = _operands(node, emitter, capabilities)
    sizes = node.q_shape[2], node.k_shape[2]
    scores = _scores(node, emitter, operands, operands.q, operands.k, sizes)
    if node.score_mod is not None:
        scores = emitter.inline(node.score_mod, scores)
    dead = None
    if node.score_mod is not None and options.masked_rows == "zeros":
        dead = _dead(emitter, scores, node.precision)
    probs = emitter.op("Softmax", scores, axis=-1)
    if node.prob_mod is not None:
        probs = emitter.inline(node.prob_mod, probs)
    values = _values(node, emitter, operands, probs, operands.v, sizes)
    if dead is not None:
        values = emitter.op("Where", dead, emitter.constant(numpy_type(node.element_type).type(0)), values)
    emitter.op("Identity", values, output=node.proto.output[0])


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
    """Write a block of queries at a time against the keys it can see."""
    operands = _operands(node, emitter, capabilities)
    bank = Bank(emitter, operands.q)
    outer = {program: _prologue(emitter, program) for program in (score_mod, prob_mod) if program is not None}
    rows = []
    for row in range(mask.states.shape[0]):
        q = (row * mask.block[0], min((row + 1) * mask.block[0], mask.lengths[0]))
        keys = mask.ranges(row, row + 1)
        if not keys:
            rows.append(_unseen(node, emitter, q, options))
            continue
        part_q = _part(emitter, operands.q, (q,), mask.lengths[0])
        part_k = _part(emitter, operands.k, keys, mask.lengths[1])
        part_v = _part(emitter, operands.v, keys, mask.lengths[1])
        sizes = q[1] - q[0], sum(high - low for low, high in keys)
        scores = _scores(node, emitter, operands, part_q, part_k, sizes)
        if score_mod is not None:
            scores = write_tile(score_mod, bank, outer[score_mod], scores, q, keys, mask.block[1])
        dead = None
        if mask.depends_on_data and options.masked_rows == "zeros":
            dead = _dead(emitter, scores, node.precision)
        probs = emitter.op("Softmax", scores, axis=-1)
        if prob_mod is not None:
            probs = write_tile(prob_mod, bank, outer[prob_mod], probs, q, keys, mask.block[1])
        values = _values(node, emitter, operands, probs, part_v, sizes)
        blind = ~mask.seen[..., q[0] : q[1], None]
        if dead is None and options.masked_rows == "zeros" and blind.any():
            dead = emitter.constant(blind)
        if dead is not None:
            values = emitter.op(
                "Where", dead, emitter.constant(numpy_type(node.element_type).type(0)), values
            )
        rows.append(values)
    joined = rows[0] if len(rows) == 1 else None
    output = node.proto.output[0]
    if joined is None:
        emitter.op("Concat", *rows, axis=2, output=output)
    else:
        emitter.op("Identity", joined, output=output)


def _operands(node: FlexNode, emitter: Emitter, capabilities: Capabilities) -> _Operands:
    q, k, v = node.inputs
    element = node.element_type
    if element not in capabilities.element_types:
        element = node.precision
        q, k, v = (_cast(emitter, name, node.element_type, element) for name in (q, k, v))
    if node.scale != 1:
        q = emitter.op("Mul", q, emitter.constant(np.asarray(node.scale, numpy_type(element))))
    return _Operands(q=q, k=k, v=v, element_type=element)


def _scores(node: FlexNode, emitter: Emitter, operands: _Operands, q: str, k: str, sizes: _Sizes) -> str:
    # The keys are the same for all queries of a group of heads, which can therefore be stacked: no copy of K.
    stacked = _stack(node, emitter, q, node.q_shape[3])
    scores = emitter.op("MatMul", stacked, emitter.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = _unstack(node, emitter, scores, q, sizes[0])
    return _cast(emitter, scores, operands.element_type, node.precision)


def _values(node: FlexNode, emitter: Emitter, operands: _Operands, probs: str, v: str, sizes: _Sizes) -> str:
    v = _cast(emitter, v, operands.element_type, node.precision)
    values = emitter.op("MatMul", _stack(node, emitter, probs, sizes[1]), v)
    values = _unstack(node, emitter, values, probs, sizes[0])
    return _cast(emitter, values, node.precision, node.element_type)


def _stack(node: FlexNode, emitter: Emitter, value: str, width: Dim) -> str:
    """(B, Hq, L, width) as (B, Hkv, Hq / Hkv * L, width)."""
    heads, kv_heads = node.heads
    if heads == kv_heads:
        return value
    if isinstance(width, int):
        shape = emitter.ints(0, kv_heads, -1, width)
    else:
        shape = emitter.op(
            "Concat", emitter.ints(0, kv_heads, -1), emitter.op("Shape", value, start=3, end=4), axis=0
        )
    return emitter.op("Reshape", value, shape)


def _unstack(node: FlexNode, emitter: Emitter, value: str, like: str, length: Dim) -> str:
    """(B, Hkv, Hq / Hkv * L, X) as (B, Hq, L, X), with the L of `like`."""
    heads, kv_heads = node.heads
    if heads == kv_heads:
        return value
    if isinstance(length, int):
        shape = emitter.ints(0, heads, length, -1)
    else:
        rows = emitter.op("Shape", like, start=2, end=3)
        shape = emitter.op("Concat", emitter.ints(0, heads), rows, emitter.ints(-1), axis=0)
    return emitter.op("Reshape", value, shape)


def _part(emitter: Emitter, value: str, ranges: Ranges, length: int) -> str:
    """The rows of (B, H, length, X) in `ranges`."""
    if ranges == ((0, length),):
        return value
    ints = emitter.ints
    parts = [emitter.op("Slice", value, ints(low), ints(high), ints(2)) for low, high in ranges]
    return parts[0] if len(parts) == 1 else emitter.op("Concat", *parts, axis=2)


def _unseen(node: FlexNode, emitter: Emitter, q: tuple[int, int], options: Options) -> str:
    kind = numpy_type(node.element_type)
    value = kind.type(0 if options.masked_rows == "zeros" else np.nan)
    v_size = node.v_shape[3]
    assert isinstance(v_size, int)
    shape = emitter.op(
        "Concat",
        emitter.op("Shape", node.inputs[0], start=0, end=2),
        emitter.ints(q[1] - q[0], v_size),
        axis=0,
    )
    return emitter.op("Expand", emitter.constant(np.asarray(value, kind)), shape)


def _dead(emitter: Emitter, scores: str, precision: int) -> str:
    """True for queries whose scores are all -inf."""
    highest = emitter.op("ReduceMax", scores, emitter.ints(-1), keepdims=1)
    return emitter.op("Equal", highest, emitter.constant(np.asarray(-np.inf, numpy_type(precision))))


def _prologue(emitter: Emitter, program: Program) -> Mapping[str, str]:
    names = {name: emitter.constant(array) for name, array in program.prologue_constants.items()}
    names |= {value.name: value.name for value in program.values if value.kind == "data"}
    for node in program.prologue:
        names.update(zip(node.output, emitter.copy(node, names), strict=True))
    return names


def _cast(emitter: Emitter, value: str, have: int, want: int) -> str:
    return value if have == want else emitter.op("Cast", value, to=want)
