"""Choosing the lowering of a node: every one that the target runs has a cost, and the least is taken."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from aotpack.errors import FlexError
from aotpack.flex.capabilities import LOWERINGS, Capabilities, Lowering, Options
from aotpack.flex.emit import Emitter
from aotpack.flex.function import keep, why_not_kept
from aotpack.flex.fused import fits, meaning_of, write_fused
from aotpack.flex.mask import Block
from aotpack.flex.node import FlexNode
from aotpack.flex.plain import write_block_sparse, write_dense
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
    known = understand(node, opsets[""], options.block)
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
    scores = _scores(node)
    steps = sum(len(graph.node) for graph in (node.score_mod, node.prob_mod) if graph is not None)
    # Each op of a mod goes through all scores in memory once more.
    spill = _SPILL if scores * 4 > target.capabilities.working_set else 1.0
    why = known.why_dense or "no block is masked"
    yield Choice(
        lowering="dense",
        cost=scores * (1 + _PASS * steps) * spill + 8 * target.capabilities.node_cost,
        why=why,
        skipped=0.0,
        write=lambda emitter: write_dense(node, emitter, target.capabilities, target.options),
    )


def _block_sparse(node: FlexNode, known: Understanding, target: _Target) -> Iterator[Choice | str]:
    mask = known.mask
    if mask is None or known.why_dense is not None:
        yield known.why_dense or "no block mask"
        return
    steps = sum(
        value.scored and value.kind == "step"
        for program in (known.score_mod, known.prob_mod)
        if program
        for value in program.values
    )
    rows = mask.states.shape[0]
    partial = float((mask.states == Block.PARTIAL).mean())
    nodes = rows * (8 + steps)
    yield Choice(
        lowering="block-sparse",
        cost=_scores(node) * (1 - mask.skipped) * (1 + _PASS * steps) + nodes * target.capabilities.node_cost,
        why=f"{mask.skipped:.0%} of the blocks are masked, {partial:.0%} partly",
        skipped=mask.skipped,
        write=lambda emitter: write_block_sparse(
            node,
            emitter,
            target.capabilities,
            target.options,
            mask=mask,
            score_mod=known.score_mod,
            prob_mod=known.prob_mod,
        ),
    )


def _fused(node: FlexNode, known: Understanding, target: _Target) -> Iterator[Choice | str]:
    meaning = (
        meaning_of(known.score_mod, known.mask) if known.mask is not None or node.score_mod is None else None
    )
    if meaning is None:
        yield "no fused op does what score_mod does"
        return
    for op in sorted(target.capabilities.fused_ops, key=lambda op: (op.cost, op.name)):
        wrong = fits(op, node, meaning, target.opsets)
        if wrong is not None:
            yield f"{op.name} {wrong}"
            continue
        yield Choice(
            lowering="fused",
            cost=_scores(node) * op.cost + 8 * target.capabilities.node_cost,
            why=f"{op.name} does exactly this",
            skipped=0.0,
            write=lambda emitter, op=op: write_fused(op, node, meaning, emitter),  # type: ignore[misc]
        )
    if not target.capabilities.fused_ops:
        yield "the target has no fused attention op"


_CANDIDATES = {"function": _function, "dense": _dense, "block-sparse": _block_sparse, "fused": _fused}

#: Share of a score's cost that one more elementwise op adds; measured on a CPU with two threads.
_PASS = 0.15
#: How much dearer a score is when all of them do not fit a cache.
_SPILL = 1.3
#: Stands for a length or batch that is not known.
_TYPICAL = 1024


def _scores(node: FlexNode) -> float:
    batch, _, length, _ = node.q_shape
    keys = node.k_shape[2]
    sizes = [batch if isinstance(batch, int) else 1, node.heads[0]]
    sizes += [size if isinstance(size, int) else _TYPICAL for size in (length, keys)]
    return float(math.prod(sizes))
