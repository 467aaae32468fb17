"""FlexAttention in numpy, to hold every lowering against: short, slow and unlike all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from aotpack.flex.emit import Array, numpy_type
from aotpack.flex.node import FlexNode

__all__ = ["reference"]


def reference(
    node: FlexNode,
    q: Array,
    k: Array,
    v: Array,
    captured: Mapping[str, Array] | None = None,
    *,
    opset: int = 24,
) -> Array:
    """What `node` gives, with products in float64 and scores in its softmax precision.

    Args:
        node: that was read.
        q: (B, Hq, L, E).
        k: (B, Hkv, S, E).
        v: (B, Hkv, S, Ev).
        captured: the values that its mods capture and the model does not know.
        opset: of the default domain in its model.

    Returns:
        Y (B, Hq, L, Ev) in the type of Q; NaN for queries that see no key.

    """
    precise = numpy_type(node.precision)
    group = node.heads[0] // node.heads[1]
    heads = np.arange(node.heads[0]) // group
    wide_q, wide_k, wide_v = (array.astype(np.float64) for array in (q, k, v))
    outer = {**node.constants, **(captured or {})}
    scores = np.einsum("bhle,bhse->bhls", wide_q, wide_k[:, heads]) * node.scale
    scores = _modified(node.score_mod, scores.astype(precise), outer, opset).astype(np.float64)
    with np.errstate(invalid="ignore"):
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        probs = weights / weights.sum(axis=-1, keepdims=True)
    probs = _modified(node.prob_mod, probs.astype(precise), outer, opset).astype(np.float64)
    values: Array = np.einsum("bhls,bhsv->bhlv", probs, wide_v[:, heads])
    return values.astype(numpy_type(node.element_type))


def _modified(graph: onnx.GraphProto | None, value: Array, outer: Mapping[str, Array], opset: int) -> Array:
    if graph is None:
        return value
    closed = onnx.GraphProto()
    closed.CopyFrom(graph)
    # Captures become initializers: onnx's reference does not look outside of a graph attribute.
    own = {tensor.name for tensor in graph.initializer}
    closed.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in outer.items() if name not in own
    )
    model = helper.make_model(closed, opset_imports=[helper.make_opsetid("", opset)])
    outputs: Any = ReferenceEvaluator(model).run(None, {graph.input[0].name: value})
    return np.asarray(outputs[0])
