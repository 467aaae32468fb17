"""Weights of less than 8 bits, widened exactly for the compilers that do not take them.

Only what feeds a DequantizeLinear is touched: its value is the same integer in a wider type or, where a
compiler takes no unsigned ones, the integer less its zero point, so the model computes the same numbers. A
low-bit value that something else reads stays what it is: QuantizeLinear, say, saturates at the bounds of its
type.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aotpack.builder.models.names import fresh
from aotpack.builder.models.traversal import all_graphs, nested_graphs
from aotpack.builder.models.weights import DataFile, read_weights, set_values
from aotpack.errors import ModelError

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    Array = NDArray[Any]

__all__ = ["LOW_BIT_TYPES", "QDQ_DOMAINS", "low_bit_types", "widen_weights"]

#: Where QuantizeLinear and DequantizeLinear are: ONNX, and ONNX Runtime's own of before opset 21.
QDQ_DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})

#: ONNX's names of the integer types of less than 8 bits (4 bits since opset 21, 2 since 25), and for each one
#: those that hold all of its values. A signed one for an unsigned one takes them less their zero point.
LOW_BIT_TYPES: Mapping[str, tuple[str, ...]] = {
    "INT2": ("INT4", "INT8"),
    "UINT2": ("UINT4", "UINT8", "INT4", "INT8"),
    "INT4": ("INT8",),
    "UINT4": ("UINT8", "INT4", "INT8"),
}

#: Of the one signed type that does not hold every difference of two values that may be rewritten into it.
_INT4 = (-8, 7)

_Constants = dict[str, "onnx.TensorProto"]


def low_bit_types(model: onnx.ModelProto) -> frozenset[str]:
    """The low-bit types that constants of `model` have, by ONNX's names."""
    from onnx import TensorProto

    found = set()
    for graph in all_graphs(model):
        for tensor in _constants(graph, {}).values():
            name = TensorProto.DataType.Name(tensor.data_type)
            if name in LOW_BIT_TYPES:
                found.add(name)
    return frozenset(found)


def widen_weights(
    model: onnx.ModelProto, types: Mapping[str, str], folder: Path, data: DataFile | None = None
) -> dict[tuple[str, str], int]:
    """Rewrite, in place, the weights of each type in `types` into the type that it maps to.

    What is rewritten gets its zero point written out where it had none: there are compilers that take a
    missing one for something else than zero. A type that maps to itself is rewritten in that alone. What does
    not fit INT4 less its zero point is INT8.

    Args:
        model: external data may lie outside it.
        types: a name of `LOW_BIT_TYPES` to itself, or to one of those that it is listed with.
        folder: of the model's external data.
        data: takes what large weights become; None: they go into the graph.

    Returns:
        Type, and the one that it became, to the number of weights that were rewritten.

    Raises:
        ModelError: a type does not hold another, or external data cannot be read.
    """
    for narrow, wide in types.items():
        if narrow not in LOW_BIT_TYPES or wide not in (narrow, *LOW_BIT_TYPES[narrow]):
            raise ModelError(f"{wide} does not hold every value of {narrow}")
    taken = {name for graph in all_graphs(model) for node in graph.node for name in node.output}
    taken |= {tensor.name for graph in all_graphs(model) for tensor in graph.initializer}
    widening = _Widening(types, folder, taken, data)
    widening.graph(model.graph, {})
    return {types: len(weights) for types, weights in widening.rewritten.items()}


class _Widening:
    def __init__(
        self, types: Mapping[str, str], folder: Path, taken: set[str], data: DataFile | None
    ) -> None:
        self._types = types
        self._folder = folder
        self._data = data
        self._taken = taken
        #: Of each type and what it became, the names of the weights.
        self.rewritten: dict[tuple[str, str], set[str]] = {}

    def graph(self, graph: onnx.GraphProto, outer: _Constants) -> None:
        known = _constants(graph, outer)
        made: dict[tuple[str, ...], onnx.TensorProto] = {}
        for node in graph.node:
            for nested in nested_graphs(node):
                self.graph(nested, known)
            if node.op_type == "DequantizeLinear" and node.domain in QDQ_DOMAINS and len(node.input) >= 2:
                self._node(node, known, made)
        graph.initializer.extend(made.values())
        if made:
            _drop_unused(graph, set(self._types))

    def _node(
        self, node: onnx.NodeProto, known: _Constants, made: dict[tuple[str, ...], onnx.TensorProto]
    ) -> None:
        weight, scale, zero = (*node.input, "")[:3]
        narrow = _type_name(known[weight]) if weight in known else ""
        # The weight and its zero point have one type: what is computed cannot be rewritten with it.
        if narrow not in self._types or (zero and zero not in known):
            return
        wide = self._types[narrow]
        if narrow.startswith("U") and not wide.startswith("U"):
            wide = self._centre(node, wide, known, made)
            zero = ""
        elif wide != narrow:
            for index, name in enumerate((weight, scale, zero)):
                if name and index != 1:
                    if (name,) not in made:
                        values = read_weights(known[name], self._folder)
                        made[name,] = self._tensor(values, wide, f"{name}_as_{wide.lower()}")
                    node.input[index] = made[name,].name
        if not zero and scale in known:
            if (weight, scale) not in made:
                zeros = np.zeros(tuple(known[scale].dims), np.int8)
                made[weight, scale] = self._tensor(zeros, wide, f"{weight}_zero")
            node.input[:] = [*node.input[:2], made[weight, scale].name]
        elif wide == narrow:
            return
        self.rewritten.setdefault((narrow, wide), set()).add(weight)

    def _centre(
        self,
        node: onnx.NodeProto,
        wide: str,
        known: _Constants,
        made: dict[tuple[str, ...], onnx.TensorProto],
    ) -> str:
        """Take the zero point off the weight of `node`; gives the signed type that holds what is left."""
        weight, _, zero = (*node.input, "")[:3]
        values = read_weights(known[weight], self._folder).astype(np.int16)
        if zero:
            zeros = read_weights(known[zero], self._folder).astype(np.int16)
            try:
                values = values - _spread(zeros, values.shape, node)
            except (ValueError, ZeroDivisionError):
                raise ModelError(f"the zero points {zero!r} do not fit the weights {weight!r}") from None
        if wide == "INT4" and not ((values >= _INT4[0]) & (values <= _INT4[1])).all():
            wide = "INT8"
        tensor = self._tensor(values, wide, f"{weight}_as_{wide.lower()}")
        made[weight, zero, tensor.name] = tensor
        node.input[:] = [tensor.name, node.input[1]]
        return wide

    def _tensor(self, values: Array, wide: str, name: str) -> onnx.TensorProto:
        made = _tensor(values, wide, fresh(name, self._taken))
        # Put away at once: of all that is rewritten one weight is in memory at a time.
        set_values(made, made.data_type, (made.raw_data,), self._data)
        return made


def _spread(zeros: Array, shape: tuple[int, ...], node: onnx.NodeProto) -> Array:
    """The zero points of a DequantizeLinear in a shape that broadcasts to that of its values."""
    if zeros.size == 1:
        return zeros.reshape(())
    attributes = {item.name: item.i for item in node.attribute}
    axis = attributes.get("axis", 1) % len(shape)
    if block := attributes.get("block_size", 0):
        return np.repeat(zeros, block, axis).take(range(shape[axis]), axis)
    return zeros.reshape([-1 if each == axis else 1 for each in range(len(shape))])


def _type_name(tensor: onnx.TensorProto) -> str:
    from onnx import TensorProto

    name: str = TensorProto.DataType.Name(tensor.data_type)
    return name


def _tensor(values: Array, wide: str, name: str) -> onnx.TensorProto:
    import ml_dtypes
    from onnx import numpy_helper

    # Over int8: the narrow types of ml_dtypes do not all convert into each other.
    wider = values.astype(np.uint8 if wide.startswith("U") else np.int8)
    if not wide.endswith("8"):
        wider = wider.astype(getattr(ml_dtypes, wide.lower()))
    return numpy_helper.from_array(wider, name)


def _drop_unused(graph: onnx.GraphProto, types: set[str]) -> None:
    from onnx import TensorProto

    used = {name for each in all_graphs(graph) for node in each.node for name in node.input}
    used |= {value.name for each in all_graphs(graph) for value in each.output}
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
