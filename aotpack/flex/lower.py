"""Lowering the FlexAttention nodes of a model for one target."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx
from onnx import helper, inliner

from aotpack.errors import FlexError
from aotpack.flex.capabilities import Capabilities, Options
from aotpack.flex.choose import choose
from aotpack.flex.emit import Emitter
from aotpack.flex.function import attach_functions
from aotpack.flex.node import FlexNode, Place, graphs_of, has_flex, is_flex, places, read_node, skeleton
from aotpack.flex.program import OutsideTable
from aotpack.flex.schema import DOMAIN
from aotpack.manifest.values import FlexLowering

__all__ = ["lower", "read"]

#: The default domain's opset that the lowerings are written in: the axes of ReduceMax are an input since 18.
MIN_OPSET = 18


def read(model: onnx.ModelProto) -> tuple[FlexNode, ...]:
    """Every FlexAttention node of a model, checked; those in functions as often as the functions are called.

    Raises:
        FlexError: a node is wrong, or onnx's schema is another one than this release knows.

    """
    if not has_flex(model):
        return ()
    model = _without_functions(model)
    types = skeleton(model)
    return tuple(read_node(model, place, types) for place in places(model))


def lower(
    model: onnx.ModelProto, capabilities: Capabilities, *, options: Options | None = None
) -> tuple[onnx.ModelProto, tuple[FlexLowering, ...]]:
    """Rewrite every FlexAttention node of a model into what a target runs.

    Args:
        model: with the weights or without; it is left as it is.
        capabilities: of the target.
        options: of the user; a `lowering` named there is taken or refused, never replaced.

    Returns:
        The model, the one given if it has no such node, and one record a node, in the order they are run.

    Raises:
        FlexError: a node is wrong, or cannot be lowered in the way that was asked for.

    """
    if not has_flex(model):
        return model, ()
    options = options or Options()
    lowered = onnx.ModelProto()
    lowered.CopyFrom(_without_functions(model))
    opsets = {item.domain: item.version for item in lowered.opset_import}
    if opsets.get("", 0) < MIN_OPSET:
        raise FlexError(
            "opset is too old",
            where="model",
            found=opsets.get(""),
            expected=f"{MIN_OPSET} or later",
            hint="convert it with onnx.version_converter",
        )
    types = skeleton(lowered)
    taken = set(_names(lowered.graph))
    records: list[FlexLowering] = []

    def rewrite(place: Place) -> Emitter:
        node = read_node(lowered, place, types)
        choice = choose(node, opsets, capabilities, options)
        emitter = Emitter(f"{_plain(node.name)}/", taken)
        try:
            choice.write(emitter)
        except OutsideTable as error:
            # Tables that no mask depends on are looked up a tile at a time.
            raise FlexError("a mod looks up what is not there", where=node.name, found=error) from None
        records.append(
            FlexLowering(
                node=node.name, lowering=choice.lowering, blocks_skipped=choice.skipped, why=choice.why
            )
        )
        return emitter

    _rewrite(lowered.graph, "graph", (), rewrite)
    attach_functions(lowered)
    _fix_imports(lowered)
    return lowered, tuple(records)


def _rewrite(
    graph: onnx.GraphProto,
    where: str,
    scopes: tuple[onnx.GraphProto, ...],
    rewrite: Callable[[Place], Emitter],
) -> None:
    changed = False
    nodes: list[onnx.NodeProto] = []
    initializers: list[onnx.TensorProto] = []
    for index, node in enumerate(graph.node):
        here = f"{where}.node[{index}]"
        if is_flex(node):
            emitter = rewrite(Place(where=node.name or here, node=node, scopes=(*scopes, graph)))
            nodes += emitter.nodes
            initializers += emitter.initializers
            changed = True
            continue
        for name, inner in graphs_of(node):
            _rewrite(inner, f"{here}.{name}", (*scopes, graph), rewrite)
        nodes.append(node)
    if changed:
        del graph.node[:]
        graph.node.extend(nodes)
        graph.initializer.extend(initializers)


def _without_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without functions that hold FlexAttention nodes: shapes are known where they are called."""
    while True:
        holders = [
            (function.domain, function.name)
            for function in model.functions
            if any(_holds_flex(node) for node in function.node)
        ]
        if not holders:
            return model
        model = inliner.inline_selected_functions(model, holders)


def _holds_flex(node: onnx.NodeProto) -> bool:
    return is_flex(node) or any(_holds_flex(inner) for _, graph in graphs_of(node) for inner in graph.node)


def _fix_imports(model: onnx.ModelProto) -> None:
    used = {node.domain for node in _nodes(model.graph)} | {
        node.domain for function in model.functions for node in function.node
    }
    kept = [item for item in model.opset_import if item.domain != DOMAIN or DOMAIN in used]
    known = {item.domain for item in kept}
    if "com.microsoft" in used - known:
        kept.append(helper.make_opsetid("com.microsoft", 1))
    kept = [onnx.OperatorSetIdProto(domain=item.domain, version=item.version) for item in kept]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for _, inner in graphs_of(node):
            yield from _nodes(inner)


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (value.name for value in (*graph.input, *graph.output, *graph.value_info))
    yield from (tensor.name for tensor in graph.initializer)
    for node in _nodes(graph):
        yield node.name
        yield from node.input
        yield from node.output
        for _, inner in graphs_of(node):
            yield from (value.name for value in (*inner.input, *inner.output))
            yield from (tensor.name for tensor in inner.initializer)


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._/-" else "_" for letter in name)
