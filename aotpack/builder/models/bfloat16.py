"""bfloat16 models computed in float32, for those who have no bfloat16 kernels: ORT's CPU EP among them.

float32 holds every bfloat16 exactly, so weights and constants stay what they are; what is computed of them is
rounded later than the model asks for. Inputs and outputs keep their type.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableSequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aotpack.builder.models.names import fresh, rename
from aotpack.builder.models.traversal import all_graphs, all_nodes, all_tensors
from aotpack.builder.models.weights import DataFile, set_values, weight_blocks

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
    nodes = list(all_nodes(model))
    for graph in all_graphs(model):
        kept |= {each.name for each in graph.initializer if each.data_type == TensorProto.BFLOAT16}
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name in _SAY_A_TYPE and attribute.i == TensorProto.BFLOAT16:
                return True
            if attribute.t.data_type == TensorProto.BFLOAT16:
                kept.update(node.output)
    return any(node.op_type != "Cast" and kept.intersection(node.input) for node in nodes)


def widen_bfloat16(model: onnx.ModelProto, folder: Path, data: DataFile | None = None) -> None:
    """Make every bfloat16 value of `model` a float32, in place, but for its inputs and outputs.

    Args:
        model: external data may lie outside it.
        folder: of the model's external data.
        data: takes what large weights become, a block at a time; None: they go into the graph.

    Raises:
        ModelError: external data cannot be read.
    """
    from onnx import TensorProto, helper

    for graph in all_graphs(model):
        inner = () if graph is model.graph else (*graph.input, *graph.output)
        for value in (*graph.value_info, *inner):
            if value.type.tensor_type.elem_type == TensorProto.BFLOAT16:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
    for function in model.functions:
        for value in _of_type(function.value_info):
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for tensor in all_tensors(model):
        if tensor.data_type == TensorProto.BFLOAT16:
            set_values(tensor, TensorProto.FLOAT, _as_float32(weight_blocks(tensor, folder)), data)
    nodes = list(all_nodes(model))
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name in _SAY_A_TYPE and attribute.i == TensorProto.BFLOAT16:
                attribute.i = TensorProto.FLOAT
    taken = {
        name for graph in all_graphs(model) for node in graph.node for name in (*node.input, *node.output)
    }
    taken |= {tensor.name for graph in all_graphs(model) for tensor in graph.initializer}
    renamed, before, after = {}, [], []
    for value in _of_type(model.graph.input):
        inside = renamed[value.name] = fresh(f"{value.name}_as_float", taken)
        before.append(helper.make_node("Cast", [value.name], [inside], to=TensorProto.FLOAT))
    for value in _of_type(model.graph.output):
        if any(value.name in node.output for node in model.graph.node):
            inside = renamed[value.name] = fresh(f"{value.name}_as_float", taken)
            after.append(helper.make_node("Cast", [inside], [value.name], to=TensorProto.BFLOAT16))
    rename(model.graph.node, renamed)
    for cast in reversed(before):
        model.graph.node.insert(0, cast)
    model.graph.node.extend(after)


def _as_float32(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The same numbers: a bfloat16 is the upper half of a float32."""
    for block in blocks:
        yield (np.frombuffer(block, "<u2").astype("<u4") << 16).tobytes()


def _of_type(values: MutableSequence[onnx.ValueInfoProto]) -> list[onnx.ValueInfoProto]:
    from onnx import TensorProto

    return [value for value in values if value.type.tensor_type.elem_type == TensorProto.BFLOAT16]
