"""Finding and checking the FlexAttention nodes of a model, wherever they are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import onnx
from onnx import helper, numpy_helper

from aotpack.errors import FlexError
from aotpack.flex.check import check_mod
from aotpack.flex.emit import FLOATS, Array, Dim, captures
from aotpack.flex.schema import DOMAIN, OP_TYPE, VERSION, check_schema

__all__ = ["Dim", "FlexNode", "Place", "graphs_of", "has_flex", "is_flex", "places", "read_node", "skeleton"]

_TYPES = onnx.TensorProto


@dataclass(frozen=True, kw_only=True, eq=False)
class FlexNode:
    """A checked FlexAttention node with the types and shapes around it."""

    #: Its name, or where it stands if it has none.
    name: str
    proto: onnx.NodeProto
    #: (B, Hq, L, E), (B, Hkv, S, E) and (B, Hkv, S, Ev); the heads and E, Ev are known.
    q_shape: tuple[Dim, ...]
    k_shape: tuple[Dim, ...]
    v_shape: tuple[Dim, ...]
    #: ``TensorProto`` types of Q, K, V and of the scores.
    element_type: int
    precision: int
    scale: float
    score_mod: onnx.GraphProto | None
    prob_mod: onnx.GraphProto | None
    #: What the mods capture and the model knows: initializers and constants around the node.
    constants: Mapping[str, Array] = field(default_factory=dict)
    #: What the mods capture and only a run knows, with its type where the model tells.
    captured: Mapping[str, onnx.TypeProto | None] = field(default_factory=dict)

    @property
    def heads(self) -> tuple[int, int]:
        """Query heads, and key and value heads."""
        return _int(self.q_shape[1]), _int(self.k_shape[1])

    @property
    def lengths(self) -> tuple[int, int] | None:
        """L and S if both are known."""
        length, keys = self.q_shape[2], self.k_shape[2]
        return (length, keys) if isinstance(length, int) and isinstance(keys, int) else None

    @property
    def inputs(self) -> tuple[str, str, str]:
        """The names of Q, K and V."""
        q, k, v = self.proto.input
        return q, k, v


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """A FlexAttention node and the graphs or the function it stands in, outermost first."""

    where: str
    node: onnx.NodeProto
    scopes: tuple[onnx.GraphProto | onnx.FunctionProto, ...]


def is_flex(node: onnx.NodeProto) -> bool:
    """Whether `node` is a FlexAttention node."""
    return node.op_type == OP_TYPE and node.domain == DOMAIN


def has_flex(model: onnx.ModelProto) -> bool:
    """Whether the model has a FlexAttention node. Models that do not import its domain are not searched."""
    imports = [*model.opset_import, *(item for function in model.functions for item in function.opset_import)]
    return any(item.domain == DOMAIN for item in imports) and next(places(model), None) is not None


def places(model: onnx.ModelProto) -> Iterator[Place]:
    """Every FlexAttention node, in nested graphs and functions too."""
    yield from _places(model.graph, "graph", ())
    for index, function in enumerate(model.functions):
        yield from _places(function, f"functions[{index}] {function.name!r}", ())


def graphs_of(node: onnx.NodeProto) -> Iterator[tuple[str, onnx.GraphProto]]:
    """The subgraphs of a node, each with the name of its attribute."""
    for attribute in node.attribute:
        if attribute.type == _AttributeProto.GRAPH:
            yield attribute.name, attribute.g
        elif attribute.type == _AttributeProto.GRAPHS:
            for index, graph in enumerate(attribute.graphs):
                yield f"{attribute.name}[{index}]", graph


_AttributeProto = onnx.AttributeProto

#: The attributes of the schema.
_KINDS = {
    "scale": _AttributeProto.FLOAT,
    "softmax_precision": _AttributeProto.INT,
    "score_mod": _AttributeProto.GRAPH,
    "prob_mod": _AttributeProto.GRAPH,
}


def _places(
    scope: onnx.GraphProto | onnx.FunctionProto,
    where: str,
    scopes: tuple[onnx.GraphProto | onnx.FunctionProto, ...],
) -> Iterator[Place]:
    for index, node in enumerate(scope.node):
        here = f"{where}.node[{index}]"
        if is_flex(node):
            yield Place(where=node.name or here, node=node, scopes=(*scopes, scope))
        for name, graph in graphs_of(node):
            yield from _places(graph, f"{here}.{name}", (*scopes, scope))


def read_node(model: onnx.ModelProto, place: Place, types: Mapping[str, onnx.TypeProto]) -> FlexNode:
    """Check one node against the schema and read it.

    Args:
        model: that it is in.
        place: of the node.
        types: of the values in scope, by name (`skeleton` of the model, inferred, has them).

    Raises:
        FlexError: names the node, the attribute or input, and what is wrong with it.

    """
    check_schema()
    node, where = place.node, place.where
    versions = {item.domain: item.version for item in model.opset_import}
    if versions.get(DOMAIN) != VERSION:
        raise FlexError(
            f"opset of {DOMAIN} is not known", where=where, found=versions.get(DOMAIN), expected=VERSION
        )
    if len(node.input) != 3 or not all(node.input) or len(node.output) != 1:
        raise FlexError("does not take Q, K and V and give Y", where=where, found=list(node.input))
    attributes = _attributes(node, where)
    elements, shapes = zip(
        *(_tensor(types, name, f"{where}.{letter}") for name, letter in zip(node.input, "QKV", strict=True)),
        strict=True,
    )
    if len(set(elements)) != 1 or elements[0] not in FLOATS:
        raise FlexError(
            "Q, K and V are not of one floating-point type",
            where=where,
            found=[_TYPES.DataType.Name(e) for e in elements],
        )
    _check_shapes(where, *shapes)
    element: int = elements[0]
    default = _TYPES.DOUBLE if element == _TYPES.DOUBLE else _TYPES.FLOAT
    precision = attributes["softmax_precision"].i if "softmax_precision" in attributes else default
    if precision not in FLOATS:
        raise FlexError(
            "is not a floating-point type",
            where=f"{where}.softmax_precision",
            found=precision,
            expected=sorted(FLOATS),
        )
    scale = attributes["scale"].f if "scale" in attributes else 1 / math.sqrt(_int(shapes[0][3]))
    mods = {}
    scores = (*shapes[0][:3], shapes[1][2])
    for name in ("score_mod", "prob_mod"):
        if name in attributes:
            check_mod(attributes[name], f"{where}.{name}", precision, scores, types, model)
            mods[name] = attributes[name].g
    outer = [name for graph in mods.values() for name in captures(graph)]
    known = _constants(place.scopes, set(outer))
    return FlexNode(
        name=where,
        proto=node,
        q_shape=shapes[0],
        k_shape=shapes[1],
        v_shape=shapes[2],
        element_type=element,
        precision=precision,
        scale=scale,
        score_mod=mods.get("score_mod"),
        prob_mod=mods.get("prob_mod"),
        constants=known,
        captured={name: types.get(name) for name in outer if name not in known},
    )


def _attributes(node: onnx.NodeProto, where: str) -> dict[str, onnx.AttributeProto]:
    found: dict[str, onnx.AttributeProto] = {}
    for item in node.attribute:
        here = f"{where}.{item.name}"
        if item.name not in _KINDS:
            raise FlexError("attribute is not in the schema", where=here)
        if item.name in found:
            raise FlexError("is there twice", where=here)
        if item.type != _KINDS[item.name] or item.ref_attr_name:
            kind = _AttributeProto.AttributeType.Name
            refers = f"a reference to {item.ref_attr_name!r}"
            raise FlexError(
                "attribute is of another type",
                where=here,
                found=refers if item.ref_attr_name else kind(item.type),
                expected=kind(_KINDS[item.name]),
            )
        found[item.name] = item
    if "scale" in found and not math.isfinite(found["scale"].f):
        raise FlexError("is not finite", where=f"{where}.scale", found=found["scale"].f)
    return found


def skeleton(model: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    """The type of every value of the outer graph and of the graphs nested in it, as far as onnx can infer it.

    Weights are left out, which keeps this cheap and below protobuf's 2 GiB.
    """
    bare = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    bare.functions.extend(model.functions)
    graph = bare.graph
    graph.name = "skeleton"
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    inputs = {value.name for value in graph.input}
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= 1024 and tensor.data_location != _TYPES.EXTERNAL:
            # Small ones may be shapes, which inference must see.
            graph.initializer.append(tensor)
        elif tensor.name not in inputs:
            graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    inferred = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph
    return dict(_types(inferred))


def _types(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TypeProto]]:
    for tensor in graph.initializer:
        yield tensor.name, helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
    for value in (*graph.output, *graph.value_info, *graph.input):
        yield value.name, value.type
    for node in graph.node:
        if not is_flex(node):
            for _, inner in graphs_of(node):
                yield from _types(inner)


def _tensor(types: Mapping[str, onnx.TypeProto], name: str, where: str) -> tuple[int, tuple[Dim, ...]]:
    tensor = types[name].tensor_type if name in types else None
    if tensor is None or not tensor.elem_type or not tensor.HasField("shape"):
        raise FlexError(
            "type and shape cannot be inferred",
            where=where,
            found=name,
            hint="add a value_info with its shape",
        )
    dims: list[Dim] = []
    for dim in tensor.shape.dim:
        dims.append(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None)
    return tensor.elem_type, tuple(dims)


def _check_shapes(where: str, q: tuple[Dim, ...], k: tuple[Dim, ...], v: tuple[Dim, ...]) -> None:
    for letter, shape in zip("QKV", (q, k, v), strict=True):
        if len(shape) != 4:
            raise FlexError("is not of rank 4", where=f"{where}.{letter}", found=list(shape))
        for axis, what in ((1, "number of heads"), (3, "head size")):
            if not isinstance(shape[axis], int) or _int(shape[axis]) < 1:
                raise FlexError(f"{what} is not known", where=f"{where}.{letter}", found=list(shape))
        for axis in (0, 2):
            if shape[axis] == 0:
                raise FlexError("is empty", where=f"{where}.{letter}", found=list(shape))
    if _int(q[1]) % _int(k[1]) or k[1] != v[1]:
        raise FlexError(
            "query heads are not a multiple of key heads, or K and V have not as many",
            where=where,
            found=f"Q {q[1]}, K {k[1]}, V {v[1]}",
        )
    for one, other, axis, names in (
        (q, k, 3, "Q and K"),
        (k, v, 2, "K and V"),
        (q, k, 0, "Q and K"),
        (k, v, 0, "K and V"),
    ):
        sizes = one[axis], other[axis]
        if all(isinstance(size, int) for size in sizes) and sizes[0] != sizes[1]:
            raise FlexError(
                f"{names} differ in dimension {axis}", where=where, found=f"{list(one)} and {list(other)}"
            )


def _constants(
    scopes: tuple[onnx.GraphProto | onnx.FunctionProto, ...], wanted: set[str]
) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for scope in scopes if wanted else ():
        if isinstance(scope, onnx.GraphProto):
            fed = {value.name for value in scope.input}
            for tensor in scope.initializer:
                if tensor.name in wanted - fed and tensor.data_location != _TYPES.EXTERNAL:
                    found[tensor.name] = numpy_helper.to_array(tensor)
        for node in scope.node:
            if node.op_type == "Constant" and not node.domain and node.output[0] in wanted:
                value = node.attribute[0]
                if value.name == "value":
                    found[node.output[0]] = numpy_helper.to_array(value.t)
    return found


def _int(dim: Dim) -> int:
    assert isinstance(dim, int)
    return dim
