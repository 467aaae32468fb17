"""What the mods of a node mean: evaluated once, and used by every lowering."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aotpack.errors import FlexError
from aotpack.flex.mask import BLOCK, GRAIN, Block, BlockMask, block_mask, keeps_zero
from aotpack.flex.node import FlexNode
from aotpack.flex.pointwise import NotPointwise, read_program
from aotpack.flex.program import OutsideTable, Program

__all__ = ["Understanding", "understand"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Understanding:
    """What is known of a node's mods before it is lowered."""

    #: None if there is no such mod, or if it is not pointwise.
    score_mod: Program | None = None
    prob_mod: Program | None = None
    #: None if lengths are not known or a mod is not pointwise.
    mask: BlockMask | None = None
    #: Why there is no block mask, or why its blocks can not be skipped.
    why_dense: str | None = None


def understand(
    node: FlexNode, opset: int, block: tuple[int, int] = BLOCK, grain: int = GRAIN
) -> Understanding:
    """Evaluate the mods of a node.

    Args:
        node: that was read.
        opset: of the default domain in its model.
        block: queries and keys a block that is evaluated.
        grain: keys a block of the mask, a divisor of `block[1]`.

    Raises:
        FlexError: a mod masks everything, or looks up a place that its table does not have.

    """
    if node.lengths is None:
        return Understanding(why_dense="its lengths are not known")
    batch = node.q_shape[0]
    shape = (batch if isinstance(batch, int) else None, node.heads[0], *node.lengths)
    found: list[Program | None] = []
    for name, graph in (("score_mod", node.score_mod), ("prob_mod", node.prob_mod)):
        try:
            found.append(
                None
                if graph is None
                else read_program(
                    graph,
                    shape,
                    precision=node.precision,
                    opset=opset,
                    constants=node.constants,
                    captured=node.captured,
                )
            )
        except NotPointwise as error:
            return Understanding(why_dense=f"{name}: {error}")
        except OutsideTable as error:
            raise FlexError("looks up what is not there", where=f"{node.name}.{name}", found=error) from None
    score_mod, prob_mod = found
    if score_mod is None:
        mask = _open_mask(node.lengths, (block[0], grain))
    else:
        try:
            mask = block_mask(score_mod, block, grain)
        except OutsideTable as error:
            where = f"{node.name}.score_mod"
            raise FlexError("looks up what is not there", where=where, found=error) from None
    if mask.skipped == 1:
        raise FlexError("masks every key of every query", where=f"{node.name}.score_mod")
    why = None
    if not keeps_zero(prob_mod):
        why = "prob_mod turns a probability of 0 into another"
    return Understanding(score_mod=score_mod, prob_mod=prob_mod, mask=mask, why_dense=why)


def _open_mask(lengths: tuple[int, int], block: tuple[int, int]) -> BlockMask:
    length, keys = lengths
    shape = (-(-length // block[0]), -(-keys // block[1]))
    spans = np.stack([np.zeros(length, np.int64), np.full(length, keys - 1), np.full(length, keys)])
    return BlockMask(
        lengths=lengths,
        block=block,
        states=np.full(shape, Block.FULL, np.uint8),
        seen=np.ones((1, 1, length), np.bool_),
        spans=spans,
        uniform=True,
        depends_on_data=False,
    )
