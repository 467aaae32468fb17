"""What a graph says of the values of its inputs: what they index, and what they are compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from aotpack.builder.numerics.inputs import Hint

if TYPE_CHECKING:
    import onnx

__all__ = ["hints_of", "probabilities_of", "rounds_to_integers"]

#: Operators whose output holds the values of their first input, moved about or of another type.
_SAME_VALUES = frozenset(
    {
        "Cast",
        "Concat",
        "Expand",
        "Flatten",
        "Identity",
        "Reshape",
        "Slice",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
#: Operators whose second input indexes the axis `axis` of the first.
_GATHERS = frozenset({"Gather", "GatherElements"})
#: Operators that take or make quantised values.
_ROUNDING = frozenset(
    {
        "ConvInteger",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "DynamicQuantizeMatMul",
        "GatherBlockQuantized",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "QuantizeLinear",
    }
)
#: Operators whose outputs are between 0 and 1.
_BOUNDED = frozenset({"HardSigmoid", "Sigmoid", "Softmax"})
#: Operators whose output lies between the least and the greatest of the values of their first input.
_BETWEEN = _SAME_VALUES | {
    "AveragePool",
    "Gather",
    "MaxPool",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "Split",
}
#: Values further than this from the input say little of it.
_STEPS = 8
#: Between an output and the sigmoid that it comes from.
_MOST_NODES = 16
#: Of a constant that an input is compared with, in elements.
_MOST_CHOICES = 16
#: Of the vocabulary of a map.
_MOST_KEYS = 4096


def hints_of(model: onnx.ModelProto, folder: Path | None = None) -> dict[str, Hint]:
    """Input name to what `model` says of it; inputs of which it says nothing are left out.

    Args:
        model: external data may be left where it is: only shapes of tables are read.
        folder: of the model, for constants that are external data.
    """
    found: dict[str, Hint] = {}
    graph = model.graph
    known = {tensor.name: tensor for tensor in graph.initializer}
    known |= {
        node.output[0]: attribute.t
        for each in _graphs(graph)
        for node in each.node
        if node.op_type == "Constant" and node.output
        for attribute in node.attribute
        if attribute.name == "value"
    }
    for value in graph.input:
        if value.name not in known:
            hint = _hint(value.name, graph, known)
            if hint != Hint():
                found[value.name] = hint
    return found


def probabilities_of(model: onnx.ModelProto) -> set[str]:
    """The outputs of which every element comes out of a sigmoid or a softmax, and is only moved or averaged.

    An output that joins such values with others, as YOLO's scores beside boxes, is not among them.
    """
    made_by = {name: node for node in model.graph.node for name in node.output}
    return {value.name for value in model.graph.output if _is_probability(value.name, made_by, _MOST_NODES)}


def _is_probability(name: str, made_by: Mapping[str, onnx.NodeProto], left: int) -> bool:
    node = made_by.get(name)
    if node is None or left <= 0:
        return False
    if node.op_type in _BOUNDED:
        return True
    if node.op_type == "If":
        index = list(node.output).index(name)
        branches = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
        return all(
            _is_probability(
                branch.output[index].name,
                # A branch sees what stands around it.
                {**made_by, **{inner: each for each in branch.node for inner in each.output}},
                left - 1,
            )
            for branch in branches
        )
    if node.op_type not in _BETWEEN:
        return False
    sources = node.input if node.op_type == "Concat" else node.input[:1]
    return all(_is_probability(source, made_by, left - 1) for source in sources)


def rounds_to_integers(model: onnx.ModelProto) -> bool:
    """Whether a model has quantised weights or activations."""
    nodes = [node for each in _graphs(model.graph) for node in each.node]
    nodes += [node for function in model.functions for node in function.node]
    return any(
        node.op_type in _ROUNDING or node.op_type.startswith(("QLinear", "QAttention")) for node in nodes
    )


def _hint(name: str, graph: onnx.GraphProto, known: dict[str, onnx.TensorProto]) -> Hint:
    names = {name}
    below: list[int] = []
    choices: list[int | float] = []
    keys: list[int | str] = []
    for _ in range(_STEPS):
        grown = set(names)
        for each in _graphs(graph):
            for node in each.node:
                inputs = list(node.input)
                if node.op_type in _SAME_VALUES and names.intersection(inputs[:1]):
                    grown.update(node.output[:1])
        if grown == names:
            break
        names = grown
    for each in _graphs(graph):
        for node in each.node:
            inputs = list(node.input)
            if node.op_type in _GATHERS and len(inputs) > 1 and inputs[1] in names and inputs[0] in known:
                axis = next((item.i for item in node.attribute if item.name == "axis"), 0)
                below.append(known[inputs[0]].dims[axis])
            elif node.op_type == "EmbedLayerNormalization":
                # input_ids, segment_ids, and behind them the tables of words, positions and segments.
                for ids, table in ((0, 2), (1, 4)):
                    if len(inputs) > table and inputs[ids] in names and inputs[table] in known:
                        below.append(known[inputs[table]].dims[0])
            elif node.op_type == "OneHot" and inputs[0] in names and inputs[1] in known:
                below += [int(depth) for depth in _constant(known[inputs[1]]) if depth > 0]
            elif node.op_type == "DictVectorizer" and inputs[0] in names:
                for attribute in node.attribute:
                    keys += [
                        *attribute.ints,
                        *(text.decode("utf-8", "replace") for text in attribute.strings),
                    ]
            elif node.op_type == "Equal" and names.intersection(inputs):
                other = next((item for item in inputs if item not in names), "")
                if other in known:
                    choices += _constant(known[other])
    positive = [size for size in below if size > 0]
    return Hint(min(positive, default=None), tuple(choices), tuple(keys[:_MOST_KEYS]))


def _constant(tensor: onnx.TensorProto) -> list[int | float]:
    """The numbers of a small constant; none if they are external data or no numbers."""
    from onnx import TensorProto, numpy_helper

    if tensor.data_location == TensorProto.EXTERNAL:
        return []
    try:
        array = numpy_helper.to_array(tensor)
    except Exception:
        # A type without numbers: onnx raises several errors for those.
        return []
    return (
        [item.item() for item in array.reshape(-1)]
        if array.dtype.kind in "iuf" and array.size <= _MOST_CHOICES
        else []
    )


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)
            for nested in attribute.graphs:
                yield from _graphs(nested)
