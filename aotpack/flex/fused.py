"""Fused attention ops, for mods that are exactly what such an op does.

What a mod masks is known from its evaluation; only the change it makes to a score that is not masked is
matched by its ops: none, or a tanh softcap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from aotpack.flex.capabilities import FusedOp
from aotpack.flex.emit import Array, Emitter
from aotpack.flex.mask import Block, BlockMask
from aotpack.flex.node import FlexNode
from aotpack.flex.program import Program

__all__ = ["Meaning", "fits", "meaning_of", "write_fused"]


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """A score mod in the words of the fused ops."""

    causal: bool = False
    #: Keys a query sees, itself among them; None for all before it.
    window: int | None = None
    #: 0 for none.
    softcap: float = 0.0


def meaning_of(program: Program | None, mask: BlockMask | None) -> Meaning | None:
    """What a score mod means to a fused op, or None if no such op can say it."""
    if program is None or mask is None:
        return Meaning()
    softcap = _softcap(program)
    if softcap is None:
        return None
    if (mask.states == Block.FULL).all():
        return Meaning(softcap=softcap)
    first, last, count = mask.spans
    query = np.arange(mask.lengths[0])
    solid = mask.uniform and not mask.depends_on_data and (count == last - first + 1).all()
    if not solid or mask.lengths[0] != mask.lengths[1] or not (last == query).all():
        return None
    window = int(count.max())
    if (first == 0).all():
        return Meaning(causal=True, softcap=softcap)
    if (first == np.maximum(query - window + 1, 0)).all():
        return Meaning(causal=True, window=window, softcap=softcap)
    return None


def fits(op: FusedOp, node: FlexNode, meaning: Meaning, opsets: Mapping[str, int]) -> str | None:
    """Why `op` can not stand for `node`, or None if it can."""
    heads, kv_heads = node.heads
    version = opsets.get(op.domain, op.opsets[1] if op.domain else 0)
    same_sizes = node.q_shape[3] == node.v_shape[3]
    if node.prob_mod is not None:
        return "has no prob_mod"
    if not op.opsets[0] <= version <= op.opsets[1]:
        return f"has no kernel at opset {version}"
    if node.element_type not in op.element_types or node.precision != onnx.TensorProto.FLOAT:
        return "does not run in these types"
    if op.name == "GroupQueryAttention":
        if not meaning.causal or not same_sizes:
            return "is causal and wants heads of one size"
    elif meaning.window is not None or (meaning.causal and meaning.softcap):
        return "has no window, and no softcap under a mask"
    if op.name == "MultiHeadAttention" and (heads != kv_heads or meaning.softcap):
        return "has neither grouped heads nor a softcap"
    return None


def write_fused(op: FusedOp, node: FlexNode, meaning: Meaning, emitter: Emitter) -> None:
    """Write `node` as one fused op and the transposes it needs."""
    {"Attention": _attention, "MultiHeadAttention": _multi_head, "GroupQueryAttention": _grouped}[op.name](
        node, meaning, emitter
    )


def _attention(node: FlexNode, meaning: Meaning, emitter: Emitter) -> None:
    emitter.op(
        "Attention",
        *node.inputs,
        output=node.proto.output[0],
        scale=node.scale,
        is_causal=int(meaning.causal),
        softcap=meaning.softcap,
        softmax_precision=node.precision,
    )


def _multi_head(node: FlexNode, meaning: Meaning, emitter: Emitter) -> None:
    packed = [_packed(emitter, name) for name in node.inputs]
    heads = node.heads[0]
    values = emitter.op(
        "MultiHeadAttention",
        *packed,
        domain="com.microsoft",
        num_heads=heads,
        scale=node.scale,
        unidirectional=int(meaning.causal),
    )
    _unpacked(emitter, values, heads, node.proto.output[0])


def _grouped(node: FlexNode, meaning: Meaning, emitter: Emitter) -> None:
    heads, kv_heads = node.heads
    q, k, v = (_packed(emitter, name) for name in node.inputs)
    length = emitter.op(
        "Cast", emitter.op("Shape", node.inputs[1], start=2, end=3), to=onnx.TensorProto.INT32
    )
    batch = emitter.op("Shape", node.inputs[1], start=0, end=1)
    last = emitter.op("Sub", length, emitter.constant(np.ones(1, np.int32)))
    values = emitter.op(
        "GroupQueryAttention",
        q,
        k,
        v,
        "",
        "",
        emitter.op("Expand", last, batch),
        emitter.op("Squeeze", length, emitter.ints(0)),
        domain="com.microsoft",
        outputs=3,
        num_heads=heads,
        kv_num_heads=kv_heads,
        scale=node.scale,
        local_window_size=meaning.window or -1,
        softcap=meaning.softcap,
    )
    _unpacked(emitter, values, heads, node.proto.output[0])


def _packed(emitter: Emitter, value: str) -> str:
    """(B, H, L, E) as (B, L, H * E)."""
    turned = emitter.op("Transpose", value, perm=[0, 2, 1, 3])
    return emitter.op("Reshape", turned, emitter.ints(0, 0, -1))


def _unpacked(emitter: Emitter, value: str, heads: int, output: str) -> None:
    split = emitter.op("Reshape", value, emitter.ints(0, 0, heads, -1))
    emitter.op("Transpose", split, output=output, perm=[0, 2, 1, 3])


def _softcap(program: Program) -> float | None:
    """The cap under the masks of a program, 0 if scores stay as they are, None if they change otherwise."""
    at = len(program.values) - 1
    while (inner := _unmasked(program, at)) is not None:
        at = inner
    if program.values[at].kind == "score":
        return 0.0
    outer = _scaled(program, at)
    if outer is None:
        return None
    tanh = program.values[outer[0]]
    if tanh.node is None or tanh.node.op_type != "Tanh" or tanh.inputs[0] is None:
        return None
    inner_ = _scaled(program, tanh.inputs[0])
    if (
        inner_ is None
        or program.values[inner_[0]].kind != "score"
        or not np.isclose(inner_[1] * outer[1], 1, rtol=1e-3)
    ):
        return None
    return float(outer[1])


def _unmasked(program: Program, at: int) -> int | None:
    value = program.values[at]
    if value.node is None or not value.scored:
        return None
    if value.node.op_type == "Identity":
        return value.inputs[0]
    if value.node.op_type == "Where":
        condition, then, other = (i for i in value.inputs if i is not None)
        if program.values[condition].scored:
            return None
        if _constant(program, other) == -np.inf:
            return then
        if _constant(program, then) == -np.inf:
            return other
    return None


def _scaled(program: Program, at: int) -> tuple[int, float] | None:
    """The value and the number of a product or quotient."""
    value = program.values[at]
    if value.node is None or value.node.op_type not in {"Mul", "Div"}:
        return None
    first, second = (i for i in value.inputs if i is not None)
    number = _constant(program, second)
    if number is not None and number != 0:
        return first, 1 / number if value.node.op_type == "Div" else number
    number = _constant(program, first)
    return (second, number) if number is not None and value.node.op_type == "Mul" else None


def _constant(program: Program, at: int) -> float | None:
    array: Array | None = program.values[at].array
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None
