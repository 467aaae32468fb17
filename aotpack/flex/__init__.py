"""FlexAttention: write it, read it, understand its mods, lower it for a target, and see what it masks."""

from aotpack.extras import require

require("build")

from aotpack.flex.buckets import at_sizes, buckets, choose_bucket
from aotpack.flex.capabilities import Capabilities, FusedOp, Options
from aotpack.flex.extract import extract
from aotpack.flex.library import (
    alibi,
    causal,
    dilated_window,
    document,
    first_keys,
    natten1d,
    natten2d,
    prefix_lm,
    quantize,
    relative_bias,
    sink_logits,
    sliding_window,
    softcap,
)
from aotpack.flex.lower import lower, read
from aotpack.flex.mask import Block, BlockMask
from aotpack.flex.mod import Mask, Mod, from_graph, mask, mod
from aotpack.flex.node import FlexNode, has_flex
from aotpack.flex.picture import caption, to_png, to_text
from aotpack.flex.reference import reference
from aotpack.flex.trace import Capture, Table, Tensor, maximum, minimum, where
from aotpack.flex.understand import Understanding, understand
from aotpack.flex.write import attention, make_node

__all__ = [
    "Block",
    "BlockMask",
    "Capabilities",
    "Capture",
    "FlexNode",
    "FusedOp",
    "Mask",
    "Mod",
    "Options",
    "Table",
    "Tensor",
    "Understanding",
    "alibi",
    "at_sizes",
    "attention",
    "buckets",
    "caption",
    "causal",
    "choose_bucket",
    "dilated_window",
    "document",
    "extract",
    "first_keys",
    "from_graph",
    "has_flex",
    "lower",
    "make_node",
    "mask",
    "maximum",
    "minimum",
    "mod",
    "natten1d",
    "natten2d",
    "prefix_lm",
    "quantize",
    "read",
    "reference",
    "relative_bias",
    "sink_logits",
    "sliding_window",
    "softcap",
    "to_png",
    "to_text",
    "understand",
    "where",
]
