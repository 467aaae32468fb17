"""Choosing the lowering of a node: every one that the target runs has a cost, and the least is taken."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx

from aotpack.errors import FlexError
from aotpack.flex.capabilities import LOWERINGS, Capabilities, FusedOp, Lowering, Options
from aotpack.flex.dense import write_dense
from aotpack.flex.emit import Emitter
from aotpack.flex.function import keep, why_not_kept
from aotpack.flex.fused import fits, meaning_of, write_fused
from aotpack.flex.mask import Block, Ranges, block_mask
from aotpack.flex.node import FlexNode
from aotpack.flex.program import Program
from aotpack.flex.reordering import best_orders, is_scattered, reordered
from aotpack.flex.sparse import Tiling, write_block_sparse
from aotpack.flex.tiles import PASS, strip_cost
from aotpack.flex.understand import Understanding, understand

__all__ = ["Choice", "choose"]


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
    known = (
        understand(node, opsets[""])
        if options.block is None
        else understand(node, opsets[""], options.block, options.block[1])
    )
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
    mods = ((node.score_mod, known.score_mod), (node.prob_mod, known.prob_mod))
    passes = sum(_passes(graph, program) for graph, program in mods if graph is not None)
    yield Choice(
        lowering="dense",
        cost=_scores(node) * DENSE * (1 + passes) * _spill(node) + 8 * target.capabilities.node_cost,
        why=known.why_dense or "all scores at once cost least",
        skipped=0.0,
        write=lambda emitter: write_dense(node, emitter, target.capabilities, target.options),
    )


def _block_sparse(node: FlexNode, known: Understanding, target: _Target) -> Iterator[Choice | str]:
    if known.mask is None or known.why_dense is not None:
        yield known.why_dense or "no block mask"
        return
    wanted = target.options.kv_heads
    if wanted is not None and node.heads[1] % wanted:
        yield f"{node.heads[1]} heads of K and V are not a multiple of options.kv_heads {wanted}"
        return
    for tiling in _tilings(node, known, target):
        mask = tiling.mask
        partial = float((mask.states == Block.PARTIAL).mean())
        rows, columns = mask.block
        order = "" if tiling.order is None else f", {tiling.order}"
        yield Choice(
            lowering="block-sparse",
            cost=_tiled_cost(node, tiling, target.capabilities),
            why=f"{mask.skipped:.0%} of the {rows}x{columns} blocks are masked, {partial:.0%} partly{order}",
            skipped=mask.skipped,
            write=functools.partial(
                write_block_sparse,
                node,
                capabilities=target.capabilities,
                options=target.options,
                tiling=tiling,
            ),
        )


def _tilings(node: FlexNode, known: Understanding, target: _Target) -> Iterator[Tiling]:
    """The tilings that are weighed against each other."""
    assert known.mask is not None
    bases = [
        Tiling(
            mask=known.mask,
            kv_heads=node.heads[1],
            score_mod=known.score_mod,
            prob_mod=known.prob_mod,
        )
    ]
    if target.options.block is None and known.score_mod is not None and is_scattered(known.mask):
        for order in best_orders(known.score_mod, _ORDERS):
            mods = [
                None if program is None else reordered(program, order)
                for program in (known.score_mod, known.prob_mod)
            ]
            if mods[0] is not None and (mods[1] is not None or known.prob_mod is None):
                mask = block_mask(mods[0])
                bases.append(replace(bases[0], mask=mask, score_mod=mods[0], prob_mod=mods[1], order=order))
    factors = (1,) if target.options.block is not None else _FACTORS
    all_heads = node.heads[1]
    kv_heads = [count for count in range(1, all_heads + 1) if all_heads % count == 0]
    if target.options.kv_heads is not None:
        kv_heads = [target.options.kv_heads]
    for base in bases:
        for factor in factors:
            mask = base.mask if factor == 1 else base.mask.coarser(factor)
            if factor > 1 and mask.block[0] >= 2 * mask.lengths[0]:
                break
            yield from (replace(base, mask=mask, kv_heads=count) for count in kv_heads)


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

# In units of the time one score takes in tiles, E = Ev = 64; `python -m benchmarks.flex_costs` measures them.

#: What a Where adds: with a mask that broadcasts it is not vectorised.
WHERE = 1.5
#: How many queries' worth of time goes into packing and copying the keys of a block.
PACKING = 15
#: What bringing a query, its keys and its result into another order takes, in scores.
_MOVING = 40
#: How much dearer a score is for each doubling of a tile's scores beyond what a core has near.
FAR = 0.02
#: Bytes of that.
NEAR = 1 << 20
#: What a score costs when all of them are computed at once.
DENSE = 0.95
#: How much dearer a score is when all of them are more than `_LARGE` bytes; the memory they take counts too.
SPILL = 1.15
_LARGE = 64 << 20
#: Block heights that are tried, in units of the lowest.
_FACTORS = (1, 2, 4)
#: Other orders of the positions that are weighed.
_ORDERS = 2
#: Stands for a length that is not known.
_TYPICAL = 1024


def _passes(graph: onnx.GraphProto, program: Program | None) -> float:
    """What the ops of a mod cost a score; those on positions alone are left out where they are told apart."""
    nodes = list(graph.node)
    if program is not None:
        nodes = [value.node for value in program.values if value.scored and value.node is not None]
    return sum(WHERE if node.op_type == "Where" else PASS for node in nodes if node.op_type not in _CHEAP)


#: They make positions and shapes, or are gone before a run.
_CHEAP = frozenset({"Constant", "Gather", "Identity", "Range", "Reshape", "Shape", "Squeeze", "Unsqueeze"})


def _tiled_cost(node: FlexNode, tiling: Tiling, capabilities: Capabilities) -> float:
    """What all tiles cost."""
    mask = tiling.mask
    high = mask.block[0]
    tiles = node.heads[1] // tiling.kv_heads
    heads = _scores(node) / (mask.lengths[0] * mask.lengths[1])
    rows = range(mask.states.shape[0])
    keys = np.array([_width(mask.ranges(row)) for row in rows])
    far = 1 + FAR * np.log2(np.maximum(heads / tiles * high * keys * 4 / NEAR, 1))
    programs = [program for program in (tiling.score_mod, tiling.prob_mod) if program is not None]
    steps = sum(value.scored and value.kind == "step" for program in programs for value in program.values)
    passes = steps * keys
    if tiling.score_mod is not None and (mask.states != Block.FULL).any():
        # One of the steps is the mask.
        strips = [_width(mask.ranges(row, Block.PARTIAL)) for row in rows]
        opset = tiling.score_mod.opset
        passes += [
            strip_cost(strip, wide, capabilities, opset) - wide
            for strip, wide in zip(strips, keys, strict=True)
        ]
    scores = float((heads * far * (high * (keys + PASS * passes) + PACKING * keys)).sum())
    if tiling.order is not None:
        scores += heads * mask.lengths[0] * _MOVING
    return scores + tiles * len(keys) * (8 + steps) * capabilities.node_cost


def _width(ranges: Ranges) -> int:
    return sum(high - low for low, high in ranges)


def _fused_cost(node: FlexNode, op: FusedOp, each: float) -> float:
    scores = _scores(node)
    keys = node.k_shape[2] if isinstance(node.k_shape[2], int) else _TYPICAL
    return scores * each * (_spill(node) if op.spills else 1) + op.row_cost * scores / keys


def _spill(node: FlexNode) -> float:
    return SPILL if _scores(node) * 4 > _LARGE else 1.0


def _scores(node: FlexNode) -> float:
    batch, _, length, _ = node.q_shape
    keys = node.k_shape[2]
    sizes = [batch if isinstance(batch, int) else 1, node.heads[0]]
    sizes += [size if isinstance(size, int) else _TYPICAL for size in (length, keys)]
    return float(math.prod(sizes))
