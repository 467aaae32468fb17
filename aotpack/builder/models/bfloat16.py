"""bfloat16 models computed in float32, for those who have no bfloat16 kernels: ORT's CPU EP among them.

float32 holds every bfloat16 exactly, so weights and constants stay what they are; what is computed of them is
rounded later than the model asks for. Inputs and outputs keep their type.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableSequence
from pathlib import Path
from typing import TYPE_CHECKING

from aotpack.builder.models.low_bits import read_weights

if TYPE_CHECKING:
    import onnx

__all__ = ["BFLOAT16", "computes_in_bfloat16", "widen_bfloat16"]

#: ONNX's name of the type.
BFLOAT16 = "BFLOAT16"

#: Attributes of ONNX operators that say an element type.
_SAY_A_TYPE = frozenset({"to", "dtype", "output_dtype", "stash_type", "softmax_precision"})


def computes_in_bfloat16(model: onnx.ModelProto) -> bool:
    """Whether there are other bfloat16 values in `model` than constants that are cast at once."""
    from onnx import TensorProto

    if any(value.type.tensor_type.elem_type == TensorProto.BFLOAT16 for value in model.graph.input):
        return True
    kept: set[str] = set()
    nodes = [node for nodes in _node_lists(model) for node in nodes]
    for graph in _graphs(model):
        kept |= {each.name for each in graph.initializer if each.data_type == TensorProto.BFLOAT16}
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name in _SAY_A_TYPE and attribute.i == TensorProto.BFLOAT16:
                return True
            if attribute.t.data_type == TensorProto.BFLOAT16:
                kept.update(node.output)
    return any(node.op_type != "Cast" and kept.intersection(node.input) for node in nodes)


def widen_bfloat16(model: onnx.ModelProto, folder: Path) -> None:
    """Make every bfloat16 value of `model` a float32, in place, but for its inputs and outputs.

    Args:
        model: external data may lie outside it.
        folder: of the model's external data.

    Raises:
        ModelError: external data cannot be read.
    """
    from onnx import TensorProto, helper

    nodes = [node for each in _node_lists(model) for node in each]
    for graph in _graphs(model):
        for tensor in graph.initializer:
            _widen_tensor(tensor, folder)
        inner = () if graph is model.graph else (*graph.input, *graph.output)
        for value in (*graph.value_info, *inner):
            if value.type.tensor_type.elem_type == TensorProto.BFLOAT16:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name in _SAY_A_TYPE and attribute.i == TensorProto.BFLOAT16:
                attribute.i = TensorProto.FLOAT
            for tensor in (attribute.t, *attribute.tensors):
                _widen_tensor(tensor, folder)
    taken = {name for node in nodes for name in (*node.input, *node.output)}
    before, after = [], []
    for value in _of_type(model.graph.input):
        inside = _fresh(value.name, taken)
        for node in nodes:
            _rename(node.input, value.name, inside)
        before.append(helper.make_node("Cast", [value.name], [inside], to=TensorProto.FLOAT))
    for value in _of_type(model.graph.output):
        if any(value.name in node.output for node in model.graph.node):
            inside = _fresh(value.name, taken)
            for node in nodes:
                _rename(node.input, value.name, inside)
                _rename(node.output, value.name, inside)
            after.append(helper.make_node("Cast", [inside], [value.name], to=TensorProto.BFLOAT16))
    between = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*before, *between, *after])


def _widen_tensor(tensor: onnx.TensorProto, folder: Path) -> None:
    from onnx import TensorProto, numpy_helper

    if tensor.data_type == TensorProto.BFLOAT16:
        values = read_weights(tensor, folder).astype("float32")
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _of_type(values: MutableSequence[onnx.ValueInfoProto]) -> list[onnx.ValueInfoProto]:
    from onnx import TensorProto

    return [value for value in values if value.type.tensor_type.elem_type == TensorProto.BFLOAT16]


def _fresh(name: str, taken: set[str]) -> str:
    name += "_as_float"
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _rename(names: MutableSequence[str], old: str, new: str) -> None:
    for index, name in enumerate(names):
        if name == old:
            names[index] = new


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The model's graph and all that are nested in it and in its functions."""
    yield model.graph
    for nodes in _node_lists(model):
        for node in nodes:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    yield attribute.g
                yield from attribute.graphs


def _node_lists(model: onnx.ModelProto) -> Iterator[MutableSequence[onnx.NodeProto]]:
    waiting: list[MutableSequence[onnx.NodeProto]] = [
        model.graph.node,
        *(function.node for function in model.functions),
    ]
    while waiting:
        nodes = waiting.pop()
        yield nodes
        for node in nodes:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    waiting.append(attribute.g.node)
                waiting += [graph.node for graph in attribute.graphs]
