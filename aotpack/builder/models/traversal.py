"""One way through a model: its graph, the graphs nested in nodes, and the bodies of its functions."""

from __future__ import annotations

from collections.abc import Iterator, MutableSequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

    #: What graphs are looked for in.
    Root = onnx.ModelProto | onnx.GraphProto | onnx.FunctionProto

__all__ = ["all_graphs", "all_nodes", "all_tensors", "nested_graphs", "node_lists"]


def nested_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that are attributes of `node`, without those nested deeper."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def all_graphs(root: Root) -> Iterator[onnx.GraphProto]:
    """Every graph of `root`: its own first, each before those nested in it, those of functions last.

    A function has no graph of its own, only those nested in its nodes.
    """
    for each in _bodies(root):
        if hasattr(each, "initializer"):
            yield each


def node_lists(root: Root) -> Iterator[MutableSequence[onnx.NodeProto]]:
    """The nodes of every graph and function of `root`, in the order of `all_graphs`."""
    for each in _bodies(root):
        yield each.node


def all_nodes(root: Root) -> Iterator[onnx.NodeProto]:
    """Every node of `root`, those of one graph after the other."""
    for nodes in node_lists(root):
        yield from nodes


def all_tensors(root: Root) -> Iterator[onnx.TensorProto]:
    """Every constant of `root`: initializers and values of attributes, sparse ones by their two tensors."""
    for each in _bodies(root):
        if hasattr(each, "initializer"):
            yield from each.initializer
            for sparse in each.sparse_initializer:
                yield from (sparse.values, sparse.indices)
        for node in each.node:
            yield from _tensors_of(node.attribute)
        if hasattr(each, "attribute_proto"):
            # Values that a function's attributes have where a call does not say them.
            yield from _tensors_of(each.attribute_proto)


def _tensors_of(attributes: MutableSequence[onnx.AttributeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        for each in (*sparse, *attribute.sparse_tensors):
            yield from (each.values, each.indices)


def _bodies(root: Root) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    # A stack and no recursion: how deep graphs are nested is up to whoever wrote the model.
    waiting: list[onnx.GraphProto | onnx.FunctionProto]
    waiting = [*reversed(root.functions), root.graph] if hasattr(root, "functions") else [root]
    while waiting:
        body = waiting.pop()
        yield body
        nested = [graph for node in body.node if node.attribute for graph in nested_graphs(node)]
        if hasattr(body, "attribute_proto"):
            nested += [item.g for item in body.attribute_proto if item.HasField("g")]
        waiting += reversed(nested)
