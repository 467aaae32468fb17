"""Writing nodes: fresh names, equal constants once, equal nodes once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

__all__ = [
    "FLOATS",
    "RANDOM",
    "Array",
    "Dim",
    "Emitter",
    "captures",
    "names_of",
    "numpy_type",
    "renamed",
    "size_of",
]

#: Two of these are never the same node.
RANDOM = frozenset(
    {
        "Bernoulli",
        "Dropout",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)

#: The types that FlexAttention takes.
FLOATS = frozenset(
    {
        int(onnx.TensorProto.FLOAT),
        int(onnx.TensorProto.FLOAT16),
        int(onnx.TensorProto.BFLOAT16),
        int(onnx.TensorProto.DOUBLE),
    }
)

#: bfloat16 and the like are numpy types too, of ml_dtypes.
Array = NDArray[Any]

#: A size, a symbolic name, or None where nothing is known.
Dim = int | str | None


def numpy_type(element: int) -> np.dtype[Any]:
    """The numpy type of a ``TensorProto`` element type."""
    return np.dtype(helper.tensor_dtype_to_np_dtype(element))


def size_of(shape: Iterable[int]) -> int:
    """The number of elements of a shape."""
    total = 1
    for dim in shape:
        total *= dim
    return total


class Emitter:
    """Collects nodes and initializers under names that nobody else has.

    Asking twice for the same node or the same constant gives the same name, so callers need not remember what
    they have written: a slice of K that ten query blocks use is one node.

    Args:
        prefix: of all names.
        taken: names that exist already; the new ones are added.

    """

    def __init__(self, prefix: str, taken: set[str] | None = None) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._prefix = prefix
        self._taken = set() if taken is None else taken
        self._counts: dict[str, int] = {}
        self._constants: dict[object, str] = {}
        self._nodes: dict[tuple[bytes, int], tuple[str, ...]] = {}

    def name(self, hint: str) -> str:
        """A name that is not taken."""
        base = name = f"{self._prefix}{hint}"
        while name in self._taken:
            self._counts[base] = count = self._counts.get(base, 1) + 1
            name = f"{base}_{count}"
        self._taken.add(name)
        return name

    def constant(self, value: Array) -> str:
        """The name of an initializer with this value, type and shape."""
        value = np.asarray(value)
        key = (value.dtype.name, value.shape, value.tobytes())
        if key not in self._constants:
            name = self._constants[key] = self.name("const")
            self.initializers.append(
                numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
            )
        return self._constants[key]

    def ints(self, *values: int) -> str:
        """The name of a 1-D int64 initializer."""
        return self.constant(np.array(values, np.int64))

    def op(
        self,
        op_type: str,
        *inputs: str,
        domain: str = "",
        output: str | None = None,
        outputs: int = 1,
        **attributes: Any,
    ) -> str:
        """The name of the first output of a node; `output` says what it shall be."""
        node = helper.make_node(op_type, inputs, [], domain=domain, **attributes)
        return self._write(
            node, [output or op_type.lower(), *[op_type.lower()] * (outputs - 1)], fixed=output
        )[0]

    def copy(self, node: onnx.NodeProto, names: Mapping[str, str]) -> tuple[str, ...]:
        """Write `node` again, its inputs and what its subgraphs capture renamed; gives its outputs."""
        twin = renamed(node, names)
        hints = [node.op_type.lower() if name else "" for name in twin.output]
        del twin.output[:]
        twin.name = ""
        return self._write(twin, hints)

    def inline(self, graph: onnx.GraphProto, value: str, outer: Mapping[str, str] | None = None) -> str:
        """Write the nodes of a graph of one input, which is `value`; returns the name of its output.

        Args:
            graph: to be written.
            value: the name of its input.
            outer: new names of what it captures, where they change.

        """
        names = {**(outer or {}), graph.input[0].name: value}
        for tensor in graph.initializer:
            names[tensor.name] = self.constant(numpy_helper.to_array(tensor))
        for node in graph.node:
            names.update(zip(node.output, self.copy(node, names), strict=True))
        output = str(graph.output[0].name)
        return names.get(output, output)

    def _write(self, node: onnx.NodeProto, hints: Sequence[str], fixed: str | None = None) -> tuple[str, ...]:
        key = (node.SerializeToString(deterministic=True), len(hints))
        if fixed is not None or node.op_type in RANDOM or key not in self._nodes:
            outputs = [fixed] if fixed is not None else []
            outputs += [self.name(hint) if hint else "" for hint in hints[len(outputs) :]]
            node.output.extend(outputs)
            node.name = self.name(f"{node.op_type}")
            self.nodes.append(node)
            self._nodes[key] = tuple(outputs)
        return self._nodes[key]


def names_of(node: onnx.NodeProto) -> Iterator[str]:
    """Every outer name that a node reads: its inputs, and what its subgraphs capture."""
    yield from filter(None, node.input)
    for graph in _subgraphs(node):
        yield from captures(graph)


def captures(graph: onnx.GraphProto) -> Iterator[str]:
    """The names, each once, that `graph` uses and does not define."""
    defined = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    seen: set[str] = set()
    for node in graph.node:
        for name in names_of(node):
            if name not in defined and name not in seen:
                seen.add(name)
                yield name
        defined.update(node.output)
    for value in graph.output:
        if value.name not in defined and value.name not in seen:
            seen.add(value.name)
            yield value.name


def renamed(node: onnx.NodeProto, names: Mapping[str, str]) -> onnx.NodeProto:
    """A copy of `node` that reads other names; what its subgraphs define themselves keeps its name."""
    twin = onnx.NodeProto()
    twin.CopyFrom(node)
    twin.input[:] = [names.get(name, name) for name in node.input]
    for graph in _subgraphs(twin):
        own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        own |= {output for inner in graph.node for output in inner.output}
        outer = {old: new for old, new in names.items() if old not in own}
        clash = own & set(outer.values())
        if clash:
            raise ValueError(f"the names {sorted(clash)} are used inside {node.op_type}")
        inner_nodes = [renamed(inner, outer) for inner in graph.node]
        del graph.node[:]
        graph.node.extend(inner_nodes)
        for value in graph.output:
            value.name = outer.get(value.name, value.name)
    return twin


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs
