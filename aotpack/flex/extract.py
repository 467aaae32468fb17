"""The attention subgraphs of a model, each as a model of its own, and equal ones once."""

from __future__ import annotations

import hashlib

import onnx
from onnx import helper

from aotpack.errors import FlexError
from aotpack.flex.emit import Dim, Emitter, captures
from aotpack.flex.lower import read
from aotpack.flex.node import FlexNode, graphs_of
from aotpack.flex.schema import DOMAIN

__all__ = ["extract"]


def extract(model: onnx.ModelProto) -> tuple[tuple[str, onnx.ModelProto], ...]:
    """Each distinct FlexAttention node as a model: inputs Q, K, V and what its mods capture, output Y.

    Two nodes are the same if their shapes, types, attributes and mods are, whatever their values are called;
    constants around a node that its mods capture go with it.

    Returns:
        Pairs of a name, ``attention-0``, ``attention-1`` ..., in the order of the nodes, and the model.

    Raises:
        FlexError: a node is wrong, or the type of what a mod captures is not known.

    """
    found: dict[str, onnx.ModelProto] = {}
    for node in read(model):
        alone = _alone(node, model)
        found.setdefault(hashlib.sha256(alone.SerializeToString(deterministic=True)).hexdigest(), alone)
    return tuple((f"attention-{index}", alone) for index, alone in enumerate(found.values()))


def _alone(node: FlexNode, model: onnx.ModelProto) -> onnx.ModelProto:
    proto = onnx.NodeProto()
    proto.CopyFrom(node.proto)
    proto.name, proto.overload, proto.doc_string = "attention", "", ""
    proto.input[:], proto.output[:] = ["Q", "K", "V"], ["Y"]
    del proto.metadata_props[:]
    inputs = [
        helper.make_tensor_value_info(letter, node.element_type, _dims(shape))
        for letter, shape in zip("QKV", (node.q_shape, node.k_shape, node.v_shape), strict=True)
    ]
    names: dict[str, str] = {}
    for where, graph in sorted(graphs_of(proto)):
        for name in captures(graph):
            if name in node.constants or name in names:
                continue
            known = node.captured[name]
            if known is None:
                raise FlexError("captures a value of unknown type", where=f"{node.name}.{where}", found=name)
            names[name] = f"captured_{len(names)}"
            inputs.append(onnx.ValueInfoProto(name=names[name], type=known))
        _rename(graph, where, node, names)
    proto.attribute.sort(key=lambda item: item.name)
    output = helper.make_tensor_value_info(
        "Y", node.element_type, _dims((*node.q_shape[:3], node.v_shape[3]))
    )
    domains = {"", DOMAIN} | {inner.domain for _, graph in graphs_of(proto) for inner in graph.node}
    # Functions that mods call, and what those may call, go along.
    local = model.functions if domains & {function.domain for function in model.functions} else []
    domains |= {item.domain for function in local for item in function.opset_import}
    alone = helper.make_model(
        helper.make_graph([proto], "attention", inputs, [output]),
        opset_imports=[item for item in model.opset_import if item.domain in domains],
        functions=local,
        producer_name="aotpack",
    )
    alone.ir_version = model.ir_version
    return alone


def _rename(graph: onnx.GraphProto, where: str, node: FlexNode, names: dict[str, str]) -> None:
    """Give every value of a mod the name that its place in the graph gives it."""
    emitter = Emitter(f"{where}_")
    value, element = emitter.name("in"), node.precision
    known = {
        name: emitter.constant(array)
        for name, array in node.constants.items()
        if name in set(captures(graph))
    }
    result = emitter.inline(graph, value, {**names, **known})
    result = emitter.op("Identity", result, output=emitter.name("out"))
    dims = _dims((*node.q_shape[:3], node.k_shape[2]))
    renamed = helper.make_graph(
        emitter.nodes,
        where,
        [helper.make_tensor_value_info(value, element, dims)],
        [helper.make_tensor_value_info(result, element, dims)],
        emitter.initializers,
    )
    graph.CopyFrom(renamed)


def _dims(shape: tuple[Dim, ...]) -> list[Dim]:
    return list(shape)
