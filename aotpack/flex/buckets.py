"""Dynamic lengths as a set of fixed ones: a model for each, and the choice among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx

from aotpack.errors import FlexError

__all__ = ["at_sizes", "buckets", "choose_bucket"]


def at_sizes(model: onnx.ModelProto, sizes: Mapping[str, int]) -> onnx.ModelProto:
    """A copy of a model whose symbolic dimensions have these sizes.

    Args:
        model: to be copied.
        sizes: of symbolic dimensions of its inputs, by name.

    Raises:
        FlexError: no input has such a dimension, or a size is not positive.

    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    used: set[str] = set()
    for value in (*fixed.graph.input, *fixed.graph.output, *fixed.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                used.add(dim.dim_param)
                dim.dim_value = sizes[dim.dim_param]
    for name, size in sizes.items():
        if size < 1:
            raise FlexError("size is not positive", where=f"dimension {name!r}", found=size)
        if name not in used:
            known = {
                dim.dim_param
                for value in model.graph.input
                for dim in value.type.tensor_type.shape.dim
                if dim.dim_param
            }
            raise FlexError(
                "no input has this dimension", where=f"dimension {name!r}", expected=sorted(known)
            )
    return fixed


def buckets(
    model: onnx.ModelProto, dimension: str, sizes: Iterable[int]
) -> tuple[tuple[int, onnx.ModelProto], ...]:
    """The model at each of a set of lengths, smallest first.

    Without buckets a model of symbolic length is lowered dense: blocks can be skipped for known lengths only.

    Args:
        model: with a symbolic dimension.
        dimension: its name; queries and keys that share a name share the length.
        sizes: of it.

    Raises:
        FlexError: there are no sizes, or as in `at_sizes`.

    """
    wanted = sorted(set(sizes))
    if not wanted:
        raise FlexError("has no sizes", where=f"dimension {dimension!r}")
    return tuple((size, at_sizes(model, {dimension: size})) for size in wanted)


def choose_bucket(sizes: Iterable[int], length: int) -> int:
    """The size to run a sequence of `length` at: equal to it, since padding would have to be masked.

    Raises:
        FlexError: there is no such size.

    """
    known = sorted(set(sizes))
    if length not in known:
        raise FlexError("length is not in the package", where="length", found=length, expected=known)
    return length
