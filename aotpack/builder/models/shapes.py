"""What goes into a model and comes out of it, and of which sizes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from aotpack.errors import ShapeError
from aotpack.manifest.values import TensorInfo
from aotpack.selection.dimensions import is_anonymous
from aotpack.selection.shapes import bind

if TYPE_CHECKING:
    import onnx

__all__ = ["default_inputs", "fed_inputs", "fix_shapes", "open_dimensions", "tensor_info", "tensor_infos"]


def tensor_infos(model: onnx.ModelProto) -> tuple[TensorInfo, ...]:
    """The inputs of a model."""
    return tuple(tensor_info(value) for value in fed_inputs(model))


def fix_shapes(
    model: onnx.ModelProto,
    shapes: Mapping[str, tuple[int, ...]],
    places: Mapping[str, str] = MappingProxyType({}),
) -> onnx.ModelProto:
    """Give inputs of `model` their shapes, in place, and every symbolic size that follows from them.

    Args:
        model: any.
        shapes: as in `ComponentSpec.shapes`.
        places: as in `ComponentSpec.places`.

    Raises:
        ShapeError: a shape does not fit the input that it names, or contradicts another one.
        UnknownName: there is no such input or symbolic dimension.
    """
    inputs = fed_inputs(model)
    bound = bind([tensor_info(value) for value in inputs], shapes, places, what="--shape")
    for value in inputs:
        shape = bound.shapes[value.name]
        if value.name in shapes and not value.type.HasField("tensor_type"):
            where = places.get(f"shapes.{value.name}", f"--shape {value.name}")
            raise ShapeError("is the shape of an input that is no tensor", where=where)
        if shape is not None:
            for dim, size in zip(_ranked(value, len(shape)), shape, strict=True):
                if isinstance(size, int):
                    dim.dim_value = size
    # The same values of what is no input, and inputs with defaults.
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in _dims(value):
            if dim.dim_param and not is_anonymous(dim.dim_param) and (size := bound.size(dim.dim_param)):
                dim.dim_value = size
    return model


def open_dimensions(model: onnx.ModelProto) -> list[str]:
    """Each input dimension without a fixed size, as ``input[0] (batch)``."""
    found = []
    for value in fed_inputs(model):
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
            found.append(f"{value.name}[…] (of any rank)")
        found += [
            f"{value.name}[{index}]" + (f" ({dim.dim_param})" if dim.dim_param else "")
            for index, dim in enumerate(_dims(value))
            # Exporters write 0 for "not known".
            if dim.dim_value <= 0
        ]
    return found


def fed_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller has to give; models of IR version 3 list their initializers too."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in initializers]


def default_inputs(model: onnx.ModelProto) -> tuple[str, ...]:
    """The inputs that a caller may give and need not, since an initializer has a value for them.

    None up to IR version 3, in which every initializer has to be an input.
    """
    if model.ir_version < 4:
        return ()
    initializers = {tensor.name for tensor in model.graph.initializer}
    return tuple(value.name for value in model.graph.input if value.name in initializers)


def _dims(value: onnx.ValueInfoProto) -> list[onnx.TensorShapeProto.Dimension]:
    return list(value.type.tensor_type.shape.dim)


def _ranked(value: onnx.ValueInfoProto, rank: int) -> list[onnx.TensorShapeProto.Dimension]:
    """The dimensions of `value`, which gets `rank` of them if it has no shape at all."""
    if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
        shape = value.type.tensor_type.shape
        shape.SetInParent()
        for _ in range(rank):
            shape.dim.add()
    return _dims(value)


def tensor_info(value: onnx.ValueInfoProto) -> TensorInfo:
    """Name, element type and shape of an input or output."""
    from onnx import TensorProto, helper

    if not value.type.HasField("tensor_type"):
        return TensorInfo(name=value.name, dtype=_type_text(value.type))
    tensor = value.type.tensor_type
    element = TensorProto.DataType.Name(tensor.elem_type).lower()
    try:
        # numpy would call texts objects.
        is_text = tensor.elem_type == TensorProto.STRING
        dtype = element if is_text else helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    except KeyError:
        dtype = element
    shape = tuple(_size(dim) for dim in tensor.shape.dim)
    return TensorInfo(name=value.name, dtype=dtype, shape=shape if tensor.HasField("shape") else None)


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.dim_param:
        return None if is_anonymous(dim.dim_param) else str(dim.dim_param)
    # Exporters write 0 and -1 for "not known".
    return dim.dim_value if dim.dim_value > 0 else None


def _type_text(kind: onnx.TypeProto) -> str:
    """A type as ONNX Runtime writes it: ``seq(tensor(float))``, ``map(int64,tensor(float))``."""
    from onnx import TensorProto

    def element(number: int) -> str:
        return str(TensorProto.DataType.Name(number)).lower()

    if kind.HasField("tensor_type"):
        return f"tensor({element(kind.tensor_type.elem_type)})"
    if kind.HasField("sparse_tensor_type"):
        return f"sparse_tensor({element(kind.sparse_tensor_type.elem_type)})"
    if kind.HasField("sequence_type"):
        return f"seq({_type_text(kind.sequence_type.elem_type)})"
    if kind.HasField("optional_type"):
        return f"optional({_type_text(kind.optional_type.elem_type)})"
    if kind.HasField("map_type"):
        return f"map({element(kind.map_type.key_type)},{_type_text(kind.map_type.value_type)})"
    return "unknown"
