"""Reading the graph of a mod as a pointwise program, if it is one.

What the scores do not reach is either *static*, and evaluated here with onnx's own reference, or *data*: it
depends on values captured at run time. Static values of L x S elements stay steps of the program, computed
a tile at a time: a mask for S = 8192 is 64 MiB as a boolean and eight times that on the way there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from aotpack.flex.elementwise import ELEMENTWISE, broadcasts, element_type
from aotpack.flex.emit import RANDOM, Array, Emitter, names_of, size_of
from aotpack.flex.program import OutsideTable, Program, Value, needed, run_node

__all__ = ["NotPointwise", "read_program"]

#: Static values of up to this many elements are computed once and kept.
KEPT = 1 << 17
#: A static value that something other than an elementwise op needs whole may have this many: 2 GiB of int64.
WHOLE = 1 << 28


class NotPointwise(Exception):
    """The graph mixes scores of different places, so only the dense lowerings can run it; says where."""


def read_program(
    graph: onnx.GraphProto,
    shape: tuple[int | None, int, int, int],
    *,
    precision: int,
    opset: int,
    constants: Mapping[str, Array],
    captured: Mapping[str, onnx.TypeProto | None],
) -> Program:
    """Understand a mod for one shape of scores.

    Args:
        graph: of the mod.
        shape: (B, Hq, L, S) of the scores; only B may be unknown.
        precision: ``TensorProto`` type of the scores.
        opset: of the default domain in the model around.
        constants: captured values that the model knows.
        captured: types of the others.

    Raises:
        NotPointwise: the mod is no pointwise program.
        OutsideTable: it looks up what is not there.

    """
    reader = _Reader(shape, precision, opset, constants, captured)
    return reader.read(graph)


class _Reader:
    def __init__(
        self,
        shape: tuple[int | None, int, int, int],
        precision: int,
        opset: int,
        constants: Mapping[str, Array],
        captured: Mapping[str, onnx.TypeProto | None],
    ) -> None:
        self.values: list[Value] = []
        self.dims = shape
        self.shape = (shape[0] or 1, *shape[1:])
        self.precision = precision
        self.opset = opset
        self.prologue = Emitter("prologue:")
        self.prologue_constants: dict[str, Array] = {}
        self.at: dict[str, int] = {}
        for name, array in constants.items():
            self._keep(name, array)
        for name, type_proto in captured.items():
            self._data(name, name, type_proto)

    def read(self, graph: onnx.GraphProto) -> Program:
        self._add(
            graph.input[0].name,
            Value(kind="score", shape=self.shape, element_type=self.precision, scored=True),
        )
        self._body(graph)
        result = self.at[graph.output[0].name]
        value = self.values[result]
        if value.element_type != self.precision:
            raise NotPointwise(f"{graph.output[0].name!r} has another type than the scores")
        if not broadcasts(value.shape, self.shape):
            raise NotPointwise(f"{graph.output[0].name!r} has another shape than the scores")
        return Program(
            values=needed(self.values, result),
            shape=self.shape,
            opset=self.opset,
            prologue=tuple(self.prologue.nodes),
            prologue_constants=self.prologue_constants,
        )

    def _body(self, graph: onnx.GraphProto) -> None:
        for tensor in graph.initializer:
            self._keep(tensor.name, numpy_helper.to_array(tensor))
        wanted = {value.name for value in graph.output}
        live = []
        for node in reversed(graph.node):
            if not wanted.isdisjoint(node.output):
                wanted.update(names_of(node))
                live.append(node)
        for node in reversed(live):
            self._node(node)

    def _node(self, node: onnx.NodeProto) -> None:
        read = [self.at[name] for name in dict.fromkeys(names_of(node))]
        scored = any(self.values[i].scored for i in read)
        static = all(self.values[i].static for i in read) and node.op_type not in RANDOM
        if node.domain == "" and node.op_type in {"Shape", "Size"} and not self._shape_of(node):
            return
        if node.domain == "" and node.op_type == "Gather" and self._gather_dims(node):
            return
        if any(self.values[i].kind == "data" and self.values[i].scored for i in read):
            raise NotPointwise("it depends on the batch size, which is not known")
        if node.domain == "" and node.op_type == "If" and self.values[self.at[node.input[0]]].static:
            self._branch(node)
        elif self._aliases(node):
            self.at[node.output[0]] = self.at[node.input[0]]
        elif (
            node.domain == ""
            and node.op_type in {*ELEMENTWISE, "Gather"}
            and self._step(node, scored, static)
        ):
            pass
        elif scored:
            raise NotPointwise(
                f"{node.op_type} {node.output[0]!r} does more than change each score by itself"
            )
        elif static:
            self._evaluate(node)
        else:
            self._prologue(node)

    def _step(self, node: onnx.NodeProto, scored: bool, static: bool) -> bool:
        inputs = tuple(self.at[name] if name else None for name in node.input)
        operands = [self.values[i] for i in inputs if i is not None]
        if node.op_type == "Gather":
            if len(operands[0].shape) != 1 or operands[0].scored or any(item.i for item in node.attribute):
                return False
            operands = operands[1:]
        try:
            shape = np.broadcast_shapes(*(value.shape for value in operands))
        except ValueError as error:
            raise NotPointwise(f"{node.op_type} {node.output[0]!r}: {error}") from None
        if not broadcasts(shape, self.shape):
            if scored:
                raise NotPointwise(
                    f"{node.op_type} {node.output[0]!r} changes the shape of the scores to {shape}"
                )
            return False
        if static and size_of(shape) <= KEPT:
            self._evaluate(node)
            return True
        if node.op_type == "Gather":
            assert inputs[0] is not None
            source = self.values[inputs[0]]
            if source.kind == "step":
                return False
            self.values.append(replace(source, table=True))
            inputs = (len(self.values) - 1, *inputs[1:])
            operands = [source]
        self._add(
            node.output[0],
            Value(
                kind="step",
                shape=shape,
                element_type=element_type(node, [item.element_type for item in operands]),
                static=static,
                scored=scored,
                node=node,
                inputs=inputs,
            ),
        )
        return True

    def _shape_of(self, node: onnx.NodeProto) -> bool:
        """Whether Shape or Size has to be treated as any other op."""
        value = self.values[self.at[node.input[0]]]
        if value.kind == "data" and not value.shape:
            return True
        dims: list[int | None] = list(value.shape)
        if value.scored:
            dims = [*self.dims] if len(dims) == 4 else dims
        bounds = {item.name: item.i for item in node.attribute}
        part = dims[bounds.get("start", 0) : bounds.get("end", len(dims))]
        if node.op_type == "Size":
            part = dims
        if None in part:
            # Wait for a Gather that picks the known ones.
            self._add(
                node.output[0], Value(kind="data", shape=(4,), element_type=_INT64, scored=True, name="")
            )
        else:
            array = np.array(part, np.int64)
            self._keep(node.output[0], np.asarray(array.prod()) if node.op_type == "Size" else array)
        return False

    def _gather_dims(self, node: onnx.NodeProto) -> bool:
        source, index = (self.values[self.at[name]] for name in node.input)
        if not (source.kind == "data" and source.scored and index.array is not None):
            return False
        dims = [self.dims[i] for i in index.array.ravel()]
        if None in dims:
            raise NotPointwise("it depends on the batch size, which is not known")
        self._keep(node.output[0], np.array(dims, np.int64).reshape(index.array.shape))
        return True

    def _branch(self, node: onnx.NodeProto) -> None:
        chosen = "then_branch" if bool(self._whole(self.at[node.input[0]]).reshape(-1)[0]) else "else_branch"
        graph = next(item.g for item in node.attribute if item.name == chosen)
        outside = dict(self.at)
        self._body(graph)
        results = [self.at[value.name] for value in graph.output]
        self.at = outside | dict(zip(node.output, results, strict=True))

    def _aliases(self, node: onnx.NodeProto) -> bool:
        """Whether the op only adds leading ones to a shape, which broadcasting does by itself."""
        if node.domain or node.op_type not in {"Unsqueeze", "Reshape", "Identity"} or not node.input[0]:
            return False
        source = self.values[self.at[node.input[0]]]
        if node.op_type == "Identity":
            return True
        if (
            source.kind != "step"
            or len(node.input) < 2
            or (wanted := self.values[self.at[node.input[1]]].array) is None
        ):
            return False
        if node.op_type == "Unsqueeze":
            rank = len(source.shape) + wanted.size
            return (
                sorted(int(axis) % rank for axis in wanted.ravel()) == list(range(wanted.size)) and rank <= 4
            )
        target = [int(dim) for dim in wanted.ravel()]
        extra = len(target) - len(source.shape)
        same = (
            all(dim in (-1, size) for dim, size in zip(target[extra:], source.shape, strict=True))
            if extra >= 0
            else False
        )
        return same and all(dim == 1 for dim in target[:extra]) and target.count(-1) <= 1

    def _evaluate(self, node: onnx.NodeProto) -> None:
        arrays = {name: self._whole(self.at[name]) for name in dict.fromkeys(names_of(node))}
        try:
            results = run_node(node, arrays, self.opset)
        except OutsideTable:
            raise
        except Exception as error:
            raise NotPointwise(f"{node.op_type} {node.output[0]!r} cannot be evaluated: {error}") from error
        for name, array in zip(node.output, results, strict=True):
            self._keep(name, array)

    def _whole(self, position: int) -> Array:
        value = self.values[position]
        if value.array is not None:
            return value.array
        if size_of(value.shape) > WHOLE or value.node is None:
            raise NotPointwise(f"a static value of shape {value.shape} is too large to be computed whole")
        names = [name for name in value.node.input if name]
        parts = [self._whole(i) for i in value.inputs if i is not None]
        (array,) = run_node(value.node, dict(zip(names, parts, strict=True)), self.opset)
        return array

    def _prologue(self, node: onnx.NodeProto) -> None:
        names = {}
        for name in names_of(node):
            names[name] = self._emitted(self.at[name], name)
        outputs = self.prologue.copy(node, names)
        known = {i: self.values[self.at[i]] for i in names_of(node)}
        types = _infer(node, known, self.opset)
        for name, inner in zip(node.output, outputs, strict=True):
            self._data(name, inner, types.get(name))

    def _emitted(self, position: int, hint: str) -> str:
        value = self.values[position]
        if value.scored:
            raise NotPointwise(f"{hint!r} depends on the batch size, which is not known")
        if value.kind == "data":
            return value.name
        if value.array is not None:
            name = self.prologue.constant(value.array)
            self.prologue_constants[name] = value.array
            return name
        assert value.node is not None
        names = {
            name: self._emitted(i, name)
            for name, i in zip(value.node.input, value.inputs, strict=True)
            if i is not None
        }
        return self.prologue.copy(value.node, names)[0]

    def _keep(self, name: str, array: Array) -> None:
        array = np.asarray(array)
        element = int(helper.np_dtype_to_tensor_dtype(array.dtype))
        self._add(
            name, Value(kind="const", shape=array.shape, element_type=element, static=True, array=array)
        )

    def _data(self, name: str, inner: str, type_proto: onnx.TypeProto | None) -> None:
        tensor = None if type_proto is None else type_proto.tensor_type
        if tensor is None or not tensor.elem_type or not tensor.HasField("shape"):
            raise NotPointwise(f"the shape of {name!r} is not known")
        dims = [dim.dim_value for dim in tensor.shape.dim]
        if 0 in dims:
            raise NotPointwise(f"the shape of {name!r} is not known whole")
        self._add(name, Value(kind="data", shape=tuple(dims), element_type=tensor.elem_type, name=inner))

    def _add(self, name: str, value: Value) -> None:
        self.at[name] = len(self.values)
        self.values.append(value)


_INT64 = int(onnx.TensorProto.INT64)


def _infer(node: onnx.NodeProto, known: Mapping[str, Value], opset: int) -> dict[str, onnx.TypeProto]:
    graph = helper.make_graph([node], "one", [], [onnx.ValueInfoProto(name=name) for name in node.output])
    for name, value in known.items():
        if value.array is not None:
            graph.initializer.append(numpy_helper.from_array(value.array, name))
        else:
            graph.input.append(helper.make_tensor_value_info(name, value.element_type, value.shape))
    imports = {"": opset, node.domain: opset if node.domain == "" else 1}
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(*item) for item in imports.items()])
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    return {value.name: value.type for value in (*inferred.value_info, *inferred.output)}
