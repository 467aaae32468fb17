"""Names of values: fresh ones, renaming, and graphs put into the graph around them without a clash."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from aotpack.builder.models.traversal import all_graphs, nested_graphs

if TYPE_CHECKING:
    import onnx

__all__ = ["Inliner", "fresh", "rename", "separate_names"]


def fresh(name: str, taken: set[str]) -> str:
    """`name`, or one like it that is not in `taken`; it is then."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def rename(nodes: Iterable[onnx.NodeProto], names: Mapping[str, str]) -> None:
    """Give values that `nodes` make or take other names, in place, in the graphs nested in them too.

    A graph that has a value of its own by one of the names keeps it.
    """
    waiting: list[tuple[Iterable[onnx.NodeProto], Mapping[str, str]]] = [(nodes, names)]
    while waiting:
        here, new = waiting.pop()
        for node in here:
            for listed in (node.input, node.output):
                for index, name in enumerate(listed):
                    if name in new:
                        listed[index] = new[name]
            for graph in nested_graphs(node):
                own = set(_defined(graph))
                outer = {old: given for old, given in new.items() if old not in own}
                for value in graph.output:
                    value.name = outer.get(value.name, value.name)
                waiting.append((graph.node, outer))


def separate_names(model: onnx.ModelProto) -> bool:
    """Give each value that a nested graph makes a name that no other graph has, in place; say if any had.

    ONNX lets the branches of an If use the same names inside. An EP that puts both into one graph takes no
    such model.
    """
    seen: set[str] = set()
    taken = {name for graph in all_graphs(model) for name in _defined(graph)}
    changed = False
    # Outer graphs come first: a name stays what it is in the outermost one.
    for graph in all_graphs(model):
        own = set(_defined(graph))
        new = {name: fresh(f"{name}_", taken) for name in sorted(own & seen)}
        seen |= own | set(new.values())
        if new:
            changed = True
            _rename_own(graph, new)
    return changed


def _rename_own(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    rename(graph.node, names)
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = names.get(value.name, value.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = names.get(sparse.values.name, sparse.values.name)
    for annotation in graph.quantization_annotation:
        annotation.tensor_name = names.get(annotation.tensor_name, annotation.tensor_name)


class Inliner:
    """Puts graphs that are nested in a model's nodes in place of those nodes.

    Branches of several nodes may use the same names inside; in one graph they have to differ.

    Args:
        model: all names of it stay taken.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        made = Counter(name for graph in all_graphs(model) for name in _defined(graph))
        self._several = {name for name, count in made.items() if count > 1}
        self._taken = set(made)

    def inline(self, branch: onnx.GraphProto, outputs: Sequence[str]) -> list[onnx.NodeProto]:
        """The nodes of a branch, and those that give its results the names in `outputs`.

        The constants of `branch` are renamed in it, for the caller to move.
        """
        from onnx import helper

        names = {name: fresh(f"{name}_", self._taken) for name in _defined(branch) if name in self._several}
        rename(branch.node, names)
        for tensor in branch.initializer:
            tensor.name = names.get(tensor.name, tensor.name)
        for sparse in branch.sparse_initializer:
            sparse.values.name = names.get(sparse.values.name, sparse.values.name)
        results = [
            helper.make_node("Identity", [names.get(inner.name, inner.name)], [outer])
            for inner, outer in zip(branch.output, outputs, strict=True)
            if outer
        ]
        return [*branch.node, *results]


def _defined(graph: onnx.GraphProto) -> Iterable[str]:
    """The names of the values that a graph makes, its inputs among them where it is nested in a node."""
    yield from (value.name for value in graph.input)
    yield from (tensor.name for tensor in graph.initializer)
    yield from (sparse.values.name for sparse in graph.sparse_initializer)
    for node in graph.node:
        yield from (name for name in node.output if name)
