"""Whether a mod keeps the schema's promise: one tensor in, one of the same shape and type out."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import helper

from aotpack.errors import FlexError
from aotpack.flex.emit import Dim, captures

__all__ = ["check_mod"]

_TYPES = onnx.TensorProto


def check_mod(
    attribute: onnx.AttributeProto,
    where: str,
    precision: int,
    scores: tuple[Dim, ...],
    types: Mapping[str, onnx.TypeProto],
    model: onnx.ModelProto,
) -> None:
    """Refuse a mod that is no graph over scores.

    Args:
        attribute: ``score_mod`` or ``prob_mod``, a graph.
        where: its node and name.
        precision: ``TensorProto`` type of the scores.
        scores: their shape, (B, Hq, L, S).
        types: of what the mod may capture.
        model: whose opsets and functions it may use.

    Raises:
        FlexError: names the mod, and the value where there is one.

    """
    graph = attribute.g
    if len(graph.input) != 1 or len(graph.output) != 1:
        found = f"{len(graph.input)} inputs, {len(graph.output)} outputs"
        raise FlexError("does not take one tensor and give one", where=where, found=found)
    _check_operators(graph, where, model)
    _check_value(graph.input[0], where, precision, None)
    _check_value(graph.output[0], where, precision, None)
    _check_value(_inferred_output(graph, where, precision, scores, types, model), where, precision, scores)


def _check_operators(graph: onnx.GraphProto, where: str, model: onnx.ModelProto) -> None:
    """Refuse operators of ONNX's own domain that it does not have: inference passes over them."""
    opset = next((item.version for item in model.opset_import if not item.domain), 0)
    own = {function.name for function in model.functions if not function.domain}
    for node in graph.node:
        if not node.domain and node.op_type not in own:
            try:
                onnx.defs.get_schema(node.op_type, opset)
            except onnx.defs.SchemaError:
                raise FlexError(
                    f"{node.op_type} is no operator of opset {opset}", where=where, found=list(node.output)
                ) from None
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                _check_operators(inner, where, model)


def _check_value(
    value: onnx.ValueInfoProto, where: str, precision: int, scores: tuple[Dim, ...] | None
) -> None:
    tensor = value.type.tensor_type
    if tensor.elem_type not in (_TYPES.UNDEFINED, precision):
        raise FlexError(
            "type differs from the softmax precision",
            where=f"{where}.{value.name}",
            found=_TYPES.DataType.Name(tensor.elem_type),
            expected=_TYPES.DataType.Name(precision),
        )
    if not tensor.HasField("shape"):
        return
    dims = [dim.dim_value or dim.dim_param for dim in tensor.shape.dim]
    expected = scores or (None,) * 4
    # A name may be any number but the 1 that is left of a reduced dimension.
    differ = any(
        isinstance(dim, int) and dim != size and (isinstance(size, int) or (size is not None and dim == 1))
        for dim, size in zip(dims, expected, strict=False)
    )
    if len(dims) != 4 or differ:
        raise FlexError(
            "shape differs from that of the scores",
            where=f"{where}.{value.name}",
            found=dims,
            expected=list(scores) if scores else "four dimensions",
        )


def _inferred_output(
    graph: onnx.GraphProto,
    where: str,
    precision: int,
    scores: tuple[Dim, ...],
    types: Mapping[str, onnx.TypeProto],
    model: onnx.ModelProto,
) -> onnx.ValueInfoProto:
    alone = onnx.GraphProto()
    alone.CopyFrom(graph)
    alone.name = alone.name or "mod"
    alone.input[0].CopyFrom(helper.make_tensor_value_info(graph.input[0].name, precision, list(scores)))
    # What the mod says of its output is not to be believed, but inferred.
    alone.output[0].CopyFrom(onnx.ValueInfoProto(name=graph.output[0].name))
    for name in captures(graph):
        if name not in types:
            raise FlexError("uses a value that is not in scope", where=where, found=name)
        alone.input.append(onnx.ValueInfoProto(name=name, type=types[name]))
    around = helper.make_model(alone, opset_imports=model.opset_import, functions=model.functions)
    try:
        inferred = onnx.shape_inference.infer_shapes(around, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise FlexError(f"is not a valid graph: {error}", where=where) from None
    output: onnx.ValueInfoProto = inferred.graph.output[0]
    return output
