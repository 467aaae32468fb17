"""FlexAttention in plain ops, all scores at once: for any mod and any length."""

from __future__ import annotations

from aotpack.flex.capabilities import Capabilities, Options
from aotpack.flex.emit import Emitter
from aotpack.flex.matmuls import blind_queries, operands_of, scores_of, values_of
from aotpack.flex.node import FlexNode

__all__ = ["write_dense"]


def write_dense(node: FlexNode, emitter: Emitter, capabilities: Capabilities, options: Options) -> None:
    """Write all scores at once; lengths may be symbolic and mods anything but random."""
    operands = operands_of(node, emitter, capabilities)
    sizes = node.q_shape[2], node.k_shape[2]
    scores = scores_of(node, emitter, operands, operands.q, operands.k, sizes)
    if node.score_mod is not None:
        scores = emitter.inline(node.score_mod, scores)
    blind = None
    if node.score_mod is not None and options.masked_rows == "zeros":
        blind = blind_queries(emitter, scores, node.precision)
    probs = emitter.op("Softmax", scores, axis=-1)
    if node.prob_mod is not None:
        probs = emitter.inline(node.prob_mod, probs)
    values = values_of(node, emitter, operands, probs, operands.v, sizes, blind)
    emitter.op("Identity", values, output=node.proto.output[0])
