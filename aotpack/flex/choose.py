"""Choosing the lowering of a node: every one that the target runs has a cost, and the least is taken."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import onnx

from aotpack.errors import FlexError
from aotpack.flex.capabilities import LOWERINGS, Capabilities, FusedOp, Lowering, Options
from aotpack.flex.dense import write_dense
from aotpack.flex.emit import Emitter
from aotpack.flex.function import keep, why_not_kept
from aotpack.flex.fused import fits, meaning_of, write_fused
from aotpack.flex.mask import Block, BlockMask
from aotpack.flex.node import FlexNode
from aotpack.flex.sparse import write_block_sparse
from aotpack.flex.understand import Understanding, understand

__all__ = ["Choice", "choose"]

#: The lowest blocks that are tried.
_FINEST = (64, 64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """One way to lower a node, not yet written."""

    lowering: Lowering
    cost: float
    why: str
    skipped: float
    write: Callable[[Emitter], None]


@dataclass(frozen=True, kw_only=True)
class _Target:
    opsets: Mapping[str, int]
    capabilities: Capabilities
    options: Options


def choose(node: FlexNode, opsets: Mapping[str, int], capabilities: Capabilities, options: Options) -> Choice:
    """The cheapest lowering of a node that the target runs.

    Args:
        node: that was read.
        opsets: of its model, by domain.
        capabilities: of the target.
        options: of the user.

    Raises:
        FlexError: the lowering that was asked for does not fit the node.

    """
    known = understand(node, opsets[""], options.block or _FINEST)
    target = _Target(opsets=opsets, capabilities=capabilities, options=options)
    refused: dict[str, str] = {}
    choices: list[Choice] = []
    for lowering in LOWERINGS:
        if options.lowering not in (None, lowering):
            continue
        for item in _CANDIDATES[lowering](node, known, target):
            if isinstance(item, str):
                refused[lowering] = item
            else:
                choices.append(item)
    if not choices:
        asked = options.lowering or "any"
        raise FlexError(
            f"cannot be lowered as {asked}",
            where=node.name,
            found=refused.get(asked, "; ".join(refused.values())),
        )
    return min(choices, key=lambda choice: choice.cost)


def _function(node: FlexNode, known: Understanding, target: _Target) -> Iterator[Choice | str]:
    if target.options.lowering != "function" and not target.capabilities.knows_flex_attention:
        yield "the target does not know the operator"
        return
    wrong = why_not_kept(node)
    if wrong is not None:
        yield wrong
        return
    if target.options.masked_rows == "zeros":
        yield "the schema's body gives NaN for masked rows"
        return
    yield Choice(
        lowering="function",
        # An EP that knows the operator knows best.
        cost=0.0,
        why="the target knows the operator" if target.capabilities.knows_flex_attention else "asked for",
        skipped=0.0,
        write=lambda emitter: emitter.nodes.append(keep(node)),
    )


def _dense(node: FlexNode, known: Understanding, target: _Target) -> Iterator[Choice | str]:
    passes = sum(_passes(graph) for graph in (node.score_mod, node.prob_mod) if graph is not None)
    yield Choice(
        lowering="dense",
        cost=_scores(node) * (1 + passes) * _spill(node) + 8 * target.capabilities.node_cost,
        why=known.why_dense or "all scores at once cost least",
        skipped=0.0,
        write=lambda emitter: write_dense(node, emitter, target.capabilities, target.options),
    )


def _block_sparse(node: FlexNode, known: Understanding, target: _Target) -> Iterator[Choice | str]:
    if known.mask is None or known.why_dense is not None:
        yield known.why_dense or "no block mask"
        return
    programs = [program for program in (known.score_mod, known.prob_mod) if program is not None]
    steps = sum(value.scored and value.kind == "step" for program in programs for value in program.values)
    factors = (1,) if target.options.block is not None else _FACTORS
    for factor in factors:
        mask = known.mask if factor == 1 else known.mask.coarser(factor)
        if factor > 1 and mask.block[0] >= 2 * mask.lengths[0]:
            break
        heads = _scores(node) / (mask.lengths[0] * mask.lengths[1])
        cost = sum(_row_cost(mask, row, heads) for row in range(mask.states.shape[0])) * (1 + _PASS * steps)
        nodes = mask.states.shape[0] * (8 + steps)
        partial = float((mask.states == Block.PARTIAL).mean())
        rows, columns = mask.block
        yield Choice(
            lowering="block-sparse",
            cost=cost + nodes * target.capabilities.node_cost,
            why=f"{mask.skipped:.0%} of the {rows}x{columns} blocks are masked, {partial:.0%} partly",
            skipped=mask.skipped,
            write=functools.partial(
                write_block_sparse,
                node,
                capabilities=target.capabilities,
                options=target.options,
                mask=mask,
                score_mod=known.score_mod,
                prob_mod=known.prob_mod,
            ),
        )


def _fused(node: FlexNode, known: Understanding, target: _Target) -> Iterator[Choice | str]:
    meaning = None
    if known.mask is not None or node.score_mod is None:
        meaning = meaning_of(known.score_mod, known.mask)
    if meaning is None:
        yield "no fused op does what score_mod does"
        return
    if not target.capabilities.fused_ops:
        yield "the target has no fused attention op"
    for op in sorted(target.capabilities.fused_ops, key=lambda op: op.name):
        wrong = fits(op, node, meaning, target.opsets)
        if wrong is not None:
            yield f"{op.name} {wrong}"
            continue
        each = op.cost + op.mask_cost * meaning.causal + op.softcap_cost * (meaning.softcap > 0)
        yield Choice(
            lowering="fused",
            cost=_fused_cost(node, op, each) + 8 * target.capabilities.node_cost,
            why=f"{op.name} does exactly this",
            skipped=0.0,
            write=functools.partial(write_fused, op, node, meaning),
        )


_CANDIDATES = {"function": _function, "dense": _dense, "block-sparse": _block_sparse, "fused": _fused}

# Measured on a CPU with two threads, E = Ev = 64, in units of the time one score takes in plain ops.

#: What one more elementwise op adds.
_PASS = 0.15
#: What a Where adds: with a mask that broadcasts it is not vectorised.
_WHERE = 2.5
#: How many queries' worth of time goes into packing and copying the keys of a block.
_PACKING = 12
#: How much dearer a score is, by the bytes of those of one block of queries: in a core's cache, near, or far.
_CACHES = ((3 << 19, 1.0), (16 << 20, 1.12), (math.inf, 1.25))
#: How much dearer a score is when all of them are more than `_LARGE` bytes; the memory they take counts too.
_SPILL = 1.45
_LARGE = 64 << 20
#: Block heights that are tried, in units of the lowest.
_FACTORS = (1, 2, 4)
#: Stands for a length that is not known.
_TYPICAL = 1024


def _passes(graph: onnx.GraphProto) -> float:
    """What the ops of a mod cost a score; those on positions alone are not told apart here."""
    return sum(
        _WHERE if node.op_type == "Where" else _PASS for node in graph.node if node.op_type not in _CHEAP
    )


#: They make positions and shapes, or are gone before a run.
_CHEAP = frozenset({"Constant", "Gather", "Identity", "Range", "Reshape", "Shape", "Squeeze", "Unsqueeze"})


def _row_cost(mask: BlockMask, row: int, heads: float) -> float:
    """What one block of queries costs, in scores, before its mod."""
    keys = sum(high - low for low, high in mask.ranges(row, row + 1))
    size = heads * mask.block[0] * keys * 4
    far = next(factor for limit, factor in _CACHES if size <= limit)
    return heads * (mask.block[0] + _PACKING) * keys * far


def _fused_cost(node: FlexNode, op: FusedOp, each: float) -> float:
    scores = _scores(node)
    keys = node.k_shape[2] if isinstance(node.k_shape[2], int) else _TYPICAL
    return scores * each * (_spill(node) if op.spills else 1) + op.row_cost * scores / keys


def _spill(node: FlexNode) -> float:
    return _SPILL if _scores(node) * 4 > _LARGE else 1.0


def _scores(node: FlexNode) -> float:
    batch, _, length, _ = node.q_shape
    keys = node.k_shape[2]
    sizes = [batch if isinstance(batch, int) else 1, node.heads[0]]
    sizes += [size if isinstance(size, int) else _TYPICAL for size in (length, keys)]
    return float(math.prod(sizes))
