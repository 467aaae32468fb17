"""Keeping the node, with onnx's body beside it: an EP that knows the operator reads the node only.

The mods are part of a body, so no two nodes share one: each gets an overload of its own. A function sees
nothing of the graph around it: captured constants are copied into the mods first.
"""

from __future__ import annotations

import onnx
from onnx import helper, numpy_helper

from aotpack.flex.emit import Emitter, captures
from aotpack.flex.node import FlexNode, graphs_of
from aotpack.flex.schema import DOMAIN, OP_TYPE, function_body

__all__ = ["attach_functions", "keep", "why_not_kept"]


def why_not_kept(node: FlexNode) -> str | None:
    """Why the schema's body cannot stand for `node`, or None if it can."""
    if node.captured:
        return f"a function cannot capture {sorted(node.captured)[0]!r}"
    for where, graph in graphs_of(node.proto):
        for inner in graph.node:
            if any(True for _ in graphs_of(inner)):
                return f"{where} has {inner.op_type}, which the schema's body does not carry over right"
    return None


def keep(node: FlexNode) -> onnx.NodeProto:
    """The node as it is kept, and as `attach_functions` finds it: with its overload, and closed mods."""
    kept = onnx.NodeProto()
    kept.CopyFrom(node.proto)
    kept.overload = f"{node.name}:{node.element_type}"
    for where, graph in graphs_of(kept):
        _close(graph, where, node)
    return kept


def _close(graph: onnx.GraphProto, where: str, node: FlexNode) -> None:
    """Copy captured constants into a mod, named as onnx's text parser wants: bodies are made from text."""
    emitter = Emitter(f"{where}_")
    for name in captures(graph):
        graph.initializer.append(numpy_helper.from_array(node.constants[name], name))
    value = emitter.name("in")
    result = emitter.op("Identity", emitter.inline(graph, value), output=emitter.name("out"))
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(emitter.nodes)
    graph.initializer.extend(emitter.initializers)
    graph.input[0].name, graph.output[0].name = value, result


def attach_functions(model: onnx.ModelProto) -> None:
    """Add to `model` the function of each node that was kept."""
    kept = list(_kept(model.graph))
    opsets = [helper.make_opsetid(item.domain, item.version) for item in model.opset_import]
    overloads: set[str] = set()
    for node in kept:
        name, _, element_type = node.overload.rpartition(":")
        while name in overloads:
            name += "'"
        overloads.add(name)
        node.overload = name
        body = function_body(node, int(element_type))
        body.domain, body.name, body.overload = DOMAIN, OP_TYPE, name
        del body.opset_import[:]
        body.opset_import.extend(opsets)
        model.functions.append(body)
    if kept:
        # Overloads exist since IR version 10.
        model.ir_version = max(model.ir_version, 10)


def _kept(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    found = []
    for node in graph.node:
        if node.domain == DOMAIN and node.op_type == OP_TYPE:
            found.append(node)
        else:
            found += [inner for _, below in graphs_of(node) for inner in _kept(below)]
    return found
