"""Weights of less than 8 bits, widened exactly for the compilers that do not take them.

Only what feeds a DequantizeLinear is touched: its value is the same integer in a wider type, so the model
computes the same numbers. A low-bit value that something else reads stays what it is: QuantizeLinear, say,
saturates at the bounds of its type.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from aotpack.errors import ModelError

if TYPE_CHECKING:
    import onnx

__all__ = ["LOW_BIT_TYPES", "low_bit_types", "widen_weights"]

#: ONNX's names of the integer types of less than 8 bits (4 bits since opset 21, 2 since 25), and for each one
#: those that hold all of its values.
LOW_BIT_TYPES: Mapping[str, tuple[str, ...]] = {
    "INT2": ("INT4", "INT8"),
    "UINT2": ("UINT4", "UINT8"),
    "INT4": ("INT8",),
    "UINT4": ("UINT8",),
}

_Constants = dict[str, "onnx.TensorProto"]


def low_bit_types(model: onnx.ModelProto) -> frozenset[str]:
    """The low-bit types that constants of `model` have, by ONNX's names."""
    from onnx import TensorProto

    found = set()
    for graph in _graphs(model.graph):
        for tensor in _constants(graph, {}).values():
            name = TensorProto.DataType.Name(tensor.data_type)
            if name in LOW_BIT_TYPES:
                found.add(name)
    return frozenset(found)


def widen_weights(model: onnx.ModelProto, types: Mapping[str, str], folder: Path) -> dict[str, int]:
    """Rewrite, in place, the weights of each type in `types` into the type that it maps to.

    Args:
        model: external data may lie outside it.
        types: a name of `LOW_BIT_TYPES` to one of the types that hold it.
        folder: of the model's external data.

    Returns:
        Type to the number of tensors that were rewritten.

    Raises:
        ModelError: a type does not hold another, or external data cannot be read.
    """
    for narrow, wide in types.items():
        if wide not in LOW_BIT_TYPES.get(narrow, ()):
            raise ModelError(f"{wide} does not hold every value of {narrow}")
    counts: dict[str, int] = {}
    _widen_graph(model.graph, {}, types, folder, counts)
    return counts


def _widen_graph(
    graph: onnx.GraphProto,
    outer: _Constants,
    types: Mapping[str, str],
    folder: Path,
    counts: dict[str, int],
) -> None:
    from onnx import TensorProto

    known = _constants(graph, outer)
    made: dict[str, onnx.TensorProto] = {}
    for node in graph.node:
        for nested in _nested(node):
            _widen_graph(nested, known, types, folder, counts)
        if node.op_type != "DequantizeLinear" or node.domain not in ("", "ai.onnx"):
            continue
        # The value and its zero point have one type; a zero point alone is a computed value's.
        if node.input[0] not in known:
            continue
        for index in (0, 2):
            name = node.input[index] if index < len(node.input) else ""
            narrow = TensorProto.DataType.Name(known[name].data_type) if name in known else ""
            if narrow not in types:
                continue
            wide = types[narrow]
            fresh = f"{name}_as_{wide.lower()}"
            if fresh not in made:
                made[fresh] = _widened(known[name], wide, fresh, folder)
                counts[narrow] = counts.get(narrow, 0) + 1
            node.input[index] = fresh
    graph.initializer.extend(made.values())
    if made:
        _drop_unused(graph, set(types))


def _widened(tensor: onnx.TensorProto, wide: str, name: str, folder: Path) -> onnx.TensorProto:
    import ml_dtypes
    import numpy as np
    from onnx import numpy_helper

    try:
        values = numpy_helper.to_array(tensor, base_dir=str(folder))
    except (OSError, ValueError) as error:
        raise ModelError(f"weights {tensor.name!r} cannot be read: {error}") from error
    # Over int8: the narrow types of ml_dtypes do not all convert into each other.
    wider = values.astype(np.uint8 if wide.startswith("U") else np.int8)
    if wide in ("INT4", "UINT4"):
        wider = wider.astype(ml_dtypes.int4 if wide == "INT4" else ml_dtypes.uint4)
    return numpy_helper.from_array(wider, name)


def _drop_unused(graph: onnx.GraphProto, types: set[str]) -> None:
    from onnx import TensorProto

    used = {name for each in _graphs(graph) for node in each.node for name in node.input}
    used |= {value.name for each in _graphs(graph) for value in each.output}
    for tensor in list(graph.initializer):
        if tensor.name not in used and TensorProto.DataType.Name(tensor.data_type) in types:
            graph.initializer.remove(tensor)
    for node in list(graph.node):
        if node.op_type == "Constant" and not used.intersection(node.output):
            graph.node.remove(node)


def _constants(graph: onnx.GraphProto, outer: _Constants) -> _Constants:
    known = dict(outer)
    known.update((tensor.name, tensor) for tensor in graph.initializer)
    for node in graph.node:
        if node.op_type == "Constant":
            known.update((node.output[0], item.t) for item in node.attribute if item.name == "value")
    return known


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for nested in _nested(node):
            yield from _graphs(nested)


def _nested(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
