"""What a target can run, as far as the lowering of FlexAttention has to know, and what the user wants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import onnx

from aotpack.errors import FlexError

__all__ = ["LOWERINGS", "Capabilities", "FusedOp", "Lowering", "Options"]

#: The ways to lower a node.
Lowering = Literal["function", "dense", "block-sparse", "fused"]
#: All of them, in the order in which they are tried.
LOWERINGS: tuple[Lowering, ...] = ("function", "dense", "block-sparse", "fused")

_T = onnx.TensorProto


@dataclass(frozen=True, kw_only=True)
class FusedOp:
    """A fused attention op that a target has a kernel for."""

    #: ``""`` for ONNX's own.
    domain: str
    #: ``Attention``, ``MultiHeadAttention`` or ``GroupQueryAttention``.
    name: str
    #: The opsets of its domain at which the kernel exists.
    opsets: tuple[int, int]
    #: ``TensorProto`` types of Q, K and V.
    element_types: frozenset[int] = frozenset({_T.FLOAT})
    #: Time of one score, in units of what plain ops take for it; what a mask and a softcap add to that.
    cost: float = 1.0
    #: Fixed time of one query in one head, in scores.
    row_cost: float = 0.0
    mask_cost: float = 0.0
    softcap_cost: float = 0.0
    #: Whether it writes all scores to memory, as plain ops do.
    spills: bool = False


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a target's compiler or kernels take.

    The defaults are what every EP runs: plain ONNX ops in float32.
    """

    #: It knows the node itself, and reads the function only where it does not.
    knows_flex_attention: bool = False
    fused_ops: frozenset[FusedOp] = frozenset()
    #: Types that MatMul and Softmax run in; others are computed in the softmax precision.
    element_types: frozenset[int] = frozenset({_T.FLOAT, _T.DOUBLE})
    #: Fixed time of one node, in scores: what keeps blocks from being too small.
    node_cost: float = 8_000.0
    #: Bytes of scores that equal blocks are batched up to; a GPU or NPU wants more than a CPU's cache holds.
    working_set: int = 1 << 20
    #: Whether Gather copies keys with all threads where Slice takes one.
    gathers: bool = False
    #: Whether TensorScatter writes into its input: a mask then passes over the keys that it hides only.
    updates_in_place: bool = False


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user chooses.

    Args:
        lowering: one that every node must get, or None for the cheapest that the target runs.
        masked_rows: what a query that sees no key gives. The schema's softmax gives NaN; PyTorch gives zeros.
        block: queries and keys a block; None for what costs least.
        kv_heads: heads of K and V a tile, a divisor of all of them; None for what costs least.

    """

    lowering: Lowering | None = None
    masked_rows: Literal["nan", "zeros"] = "nan"
    block: tuple[int, int] | None = None
    kv_heads: int | None = None

    def __post_init__(self) -> None:
        if self.lowering is not None and self.lowering not in LOWERINGS:
            raise FlexError(
                "is no lowering", where="options.lowering", found=self.lowering, expected=", ".join(LOWERINGS)
            )
        if self.masked_rows not in ("nan", "zeros"):
            raise FlexError(
                "is no choice", where="options.masked_rows", found=self.masked_rows, expected="nan or zeros"
            )
        if self.block is not None and min(self.block) < 1:
            raise FlexError("is not positive", where="options.block", found=self.block)
        if self.kv_heads is not None and self.kv_heads < 1:
            raise FlexError("is not positive", where="options.kv_heads", found=self.kv_heads)
