"""The two matrix products of attention and what stands around them, for all lowerings in plain ops.

The order of operations is the schema's: Q K^T in the type of Q, scores and softmax in the softmax precision,
then V. K and V are never repeated for grouped heads: the queries of a group are stacked instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from aotpack.flex.capabilities import Capabilities
from aotpack.flex.emit import Dim, Emitter, numpy_type
from aotpack.flex.node import FlexNode

__all__ = ["Operands", "Sizes", "blind_queries", "cast", "operands_of", "scores_of", "values_of"]

#: The queries and keys of a tile.
Sizes = tuple[Dim, Dim]


@dataclass(frozen=True, kw_only=True, eq=False)
class Operands:
    """Q, scaled, K and V as they go into the matrix products."""

    q: str
    k: str
    v: str
    #: The type of the products.
    element_type: int

    def mapped(self, change: Callable[[str], str]) -> Operands:
        """The same for each of them."""
        return replace(self, q=change(self.q), k=change(self.k), v=change(self.v))


def operands_of(
    node: FlexNode, emitter: Emitter, capabilities: Capabilities, factor: float = 1.0
) -> Operands:
    """Q, K and V in a type that the target multiplies in; Q times the scale and `factor`."""
    q, k, v = node.inputs
    element = node.element_type
    if element not in capabilities.element_types:
        element = node.precision
        q, k, v = (cast(emitter, name, node.element_type, element) for name in (q, k, v))
    scale = node.scale * factor
    if scale != 1:
        q = emitter.op("Mul", q, emitter.constant(np.asarray(scale, numpy_type(element))))
    return Operands(q=q, k=k, v=v, element_type=element)


def scores_of(node: FlexNode, emitter: Emitter, operands: Operands, q: str, k: str, sizes: Sizes) -> str:
    """The scores, in the softmax precision, of shape (B, Hq, *sizes).

    Grouped heads share their keys, so the queries of a group can be stacked: no copy of K.
    """
    stacked = _stack(node, emitter, q, node.q_shape[3])
    scores = emitter.op("MatMul", stacked, emitter.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = _unstack(node, emitter, scores, q, sizes[0])
    return cast(emitter, scores, operands.element_type, node.precision)


def values_of(
    node: FlexNode,
    emitter: Emitter,
    operands: Operands,
    probs: str,
    v: str,
    sizes: Sizes,
    blind: str | None = None,
) -> str:
    """Probabilities of shape (B, Hq, *sizes) times V, in the type of Q; zeros where `blind`."""
    v = cast(emitter, v, operands.element_type, node.precision)
    values = emitter.op("MatMul", _stack(node, emitter, probs, sizes[1]), v)
    values = _unstack(node, emitter, values, probs, sizes[0])
    if blind is not None:
        # Before the cast: not every target has a Where of every type.
        zero = emitter.constant(np.asarray(0, numpy_type(node.precision)))
        values = emitter.op("Where", blind, zero, values)
    return cast(emitter, values, node.precision, node.element_type)


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


def blind_queries(emitter: Emitter, scores: str, precision: int) -> str:
    """True for queries whose scores are all -inf."""
    highest = emitter.op("ReduceMax", scores, emitter.ints(-1), keepdims=1)
    return emitter.op("Equal", highest, emitter.constant(np.asarray(-np.inf, numpy_type(precision))))


def cast(emitter: Emitter, value: str, have: int, want: int) -> str:
    """`value` in the element type `want`."""
    return value if have == want else emitter.op("Cast", value, to=want)
