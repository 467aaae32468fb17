"""What a model must be before anything else looks at it: well-formed, and of a size that can be handled.

The model is somebody else's, and what comes after this module takes it as it is. What ONNX Runtime only warns
of is mended here, so that all compilers get the same model: nodes out of order, constants said twice, names
that are no UTF-8.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, MutableSequence
from pathlib import Path
from typing import TYPE_CHECKING

from aotpack._text import shortened
from aotpack.builder.models.external_data import is_external, tensor_size
from aotpack.builder.models.traversal import all_graphs, all_nodes, all_tensors, nested_graphs, node_lists
from aotpack.common.values import MAX_KEYS
from aotpack.errors import ModelError

if TYPE_CHECKING:
    import onnx

__all__ = ["MAX_NODES", "check_model"]

#: The largest models of today have some 100,000 when all of their layers are written out.
MAX_NODES = 1_000_000
#: Inputs or outputs: a decoder of 128 layers has two for the cache of each.
MAX_PORTS = 4096
#: Dimensions: as many as a package's manifest can say. ONNX Runtime's kernels take 8 and fewer.
MAX_RANK = 64
#: Characters of a name: as many as a package's manifest can say.
MAX_NAME = 65536
#: Characters of all custom metadata: tokenizers are kept there, and each variant holds a copy.
MAX_METADATA = 64 * 1024 * 1024


def check_model(model: onnx.ModelProto, path: Path) -> bool:
    """Hold `model` to the limits, and mend in place what ONNX Runtime lets pass; whether anything was mended.

    Raises:
        ModelError: it is not well-formed, or larger than a limit; the error says which part.
    """
    try:
        changed = _drop_unread(model)
        changed |= _as_utf8(model)
        changed |= _keep_last_opsets(model)
        _check_model(model)
        changed |= _open_unknown_sizes(model.graph)
        for graph in all_graphs(model):
            changed |= _keep_last_initializers(graph)
        for tensor in all_tensors(model):
            _check_tensor(tensor)
        for nodes in node_lists(model):
            changed |= _sort(nodes)
    except ModelError as error:
        raise error.at(str(path)) from None
    return changed


def _check_model(model: onnx.ModelProto) -> None:
    domains = {opset.domain for opset in model.opset_import}
    if len(domains) > MAX_KEYS:
        raise ModelError(f"imports opsets of {len(domains)} domains", expected=f"at most {MAX_KEYS}")
    if not domains & {"", "ai.onnx"} and any(not node.domain for node in all_nodes(model)):
        raise ModelError("has operators of ONNX, but does not import an opset of them")
    nodes = sum(map(len, node_lists(model)))
    if nodes > MAX_NODES:
        raise ModelError(f"has {nodes} nodes", expected=f"at most {MAX_NODES}")
    for node in all_nodes(model):
        if not node.op_type or len(node.op_type) > MAX_NAME or len(node.domain) > MAX_NAME:
            raise ModelError("has a node without an operator", where=f"node {shortened(node.name)}")
        if (node.domain, node.op_type) == ("com.microsoft", "EPContext"):
            source = next((each.s for each in node.attribute if each.name == "source"), b"")
            compiled_by = shortened(source.decode("utf-8", "replace")) if source else "an execution provider"
            raise ModelError(
                f"is compiled already, by {compiled_by}", hint="give the model that it was compiled from"
            )
        if node.op_type == "Constant" and len(node.output) != 1:
            raise ModelError(f"has a Constant with {len(node.output)} outputs", expected="one")
    metadata = sum(len(item.key) + len(item.value) for item in model.metadata_props)
    if metadata > MAX_METADATA:
        raise ModelError(f"has {metadata} characters of metadata", expected=f"at most {MAX_METADATA}")
    for what, values in (("input", model.graph.input), ("output", model.graph.output)):
        if len(values) > MAX_PORTS:
            raise ModelError(f"has {len(values)} {what}s", expected=f"at most {MAX_PORTS}")
        for name, count in Counter(value.name for value in values).items():
            if count > 1 or not name:
                raise ModelError(f"has {count} {what}s called {shortened(name)}", expected="a name for each")
        for value in values:
            _check_value(value, what)


def _check_value(value: onnx.ValueInfoProto, what: str) -> None:
    from onnx import TensorProto

    called = f"{what} {shortened(value.name)}"
    if len(value.name) > MAX_NAME:
        raise ModelError(f"has {len(value.name)} characters", where=called, expected=f"at most {MAX_NAME}")
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        if what == "input" and value.type.WhichOneof("value") is None:
            raise ModelError("has no type", where=called)
        return
    if tensor.elem_type not in TensorProto.DataType.values() or not tensor.elem_type:
        raise ModelError("has no known element type", where=called, found=tensor.elem_type)
    if len(tensor.shape.dim) > MAX_RANK:
        raise ModelError(
            f"has {len(tensor.shape.dim)} dimensions", where=called, expected=f"at most {MAX_RANK}"
        )
    for dim in tensor.shape.dim:
        if len(dim.dim_param) > MAX_NAME:
            raise ModelError("has a dimension with too long a name", where=called)


def _check_tensor(tensor: onnx.TensorProto) -> None:
    from onnx import TensorProto

    called = f"tensor {shortened(tensor.name)}"
    if len(tensor.dims) > MAX_RANK:
        raise ModelError(f"has {len(tensor.dims)} dimensions", where=called, expected=f"at most {MAX_RANK}")
    if tensor.data_type == TensorProto.STRING and not is_external(tensor):
        return
    size = tensor_size(tensor)
    if is_external(tensor):
        return
    if tensor.HasField("raw_data"):
        if len(tensor.raw_data) != size:
            raise ModelError(
                f"has {len(tensor.raw_data)} bytes", where=called, expected=f"{size} by its dimensions"
            )
    elif size and not any(
        len(values)
        for values in (
            tensor.float_data,
            tensor.int32_data,
            tensor.int64_data,
            tensor.double_data,
            tensor.uint64_data,
        )
    ):
        raise ModelError("has no values", where=called, expected=f"{size} bytes by its dimensions")


def _drop_unread(model: onnx.ModelProto) -> bool:
    """Drop the graphs for training, which nothing reads here."""
    had = bool(model.training_info)
    del model.training_info[:]
    return had


def _open_unknown_sizes(graph: onnx.GraphProto) -> bool:
    """Leave open the sizes of 0 and less of inputs and outputs.

    Exporters write them for sizes that they do not know. ONNX Runtime takes nothing but empty tensors then.
    """
    changed = False
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value <= 0:
                dim.ClearField("dim_value")
                changed = True
    return changed


def _keep_last_opsets(model: onnx.ModelProto) -> bool:
    """Of imports of one domain keep the last, which is the one that ONNX Runtime takes.

    Tools that merge models leave such. ``ai.onnx`` is another name of the domain without one.
    """
    last = {"" if opset.domain == "ai.onnx" else opset.domain: opset for opset in model.opset_import}
    if len(last) == len(model.opset_import):
        return False
    kept = list(last.values())
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return True


def _keep_last_initializers(graph: onnx.GraphProto) -> bool:
    """Of constants with one name keep the last, which is the one that ONNX Runtime takes."""
    last = {tensor.name: index for index, tensor in enumerate(graph.initializer)}
    if len(last) == len(graph.initializer):
        return False
    for index in reversed(range(len(graph.initializer))):
        if last[graph.initializer[index].name] != index:
            del graph.initializer[index]
    return True


def _sort(nodes: MutableSequence[onnx.NodeProto]) -> bool:
    """Order the nodes of a graph so that each comes after those whose results it takes.

    Raises:
        ModelError: there is no such order, or two nodes give one name.
    """
    makers: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in node.output:
            if name and makers.setdefault(name, index) != index:
                raise ModelError(f"has two nodes that give {shortened(name)}")
    needs = [{makers[name] for name in _read_by(node) if name in makers} for node in nodes]
    if all(not before or max(before) < index for index, before in enumerate(needs)):
        return False
    users: defaultdict[int, list[int]] = defaultdict(list)
    for index, before in enumerate(needs):
        for each in before:
            users[each].append(index)
    left = [len(before) for before in needs]
    order = [index for index, count in enumerate(left) if not count]
    for done in order:
        for user in users[done]:
            left[user] -= 1
            if not left[user]:
                order.append(user)
    if len(order) < len(nodes):
        stuck = next(node for index, node in enumerate(nodes) if left[index])
        raise ModelError("has nodes in a circle", where=f"{stuck.op_type} {shortened(stuck.name)}")
    ordered = [nodes[index] for index in order]
    del nodes[:]
    nodes.extend(ordered)
    return True


def _read_by(node: onnx.NodeProto) -> Iterable[str]:
    """The names that a node takes, those that graphs in it take from outside among them."""
    yield from node.input
    for nested in nested_graphs(node):
        made: set[str] = set()
        read: set[str] = set()
        for graph in all_graphs(nested):
            made.update(value.name for value in (*graph.input, *graph.initializer))
            read.update(value.name for value in graph.output)
            for inner in graph.node:
                made.update(inner.output)
                read.update(inner.input)
        yield from read - made


def _as_utf8(model: onnx.ModelProto) -> bool:
    r"""Write names that are no UTF-8 with escapes, as ``\xff``, each by another name than all others.

    protobuf gives such text as bytes, and no two bindings of ONNX Runtime agree on what it is.
    """
    if not any(isinstance(text, bytes) for text in _texts(model)):
        return False
    taken = {text for text in _texts(model) if isinstance(text, str)}
    made: dict[bytes, str] = {}
    _escape(model, taken, made)
    return True


def _texts(model: onnx.ModelProto) -> Iterable[object]:
    for graph in all_graphs(model):
        for value in (*graph.input, *graph.output, *graph.value_info):
            yield value.name
            yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)
        yield graph.name
    yield from (text for item in model.metadata_props for text in (item.key, item.value))
    for opset in model.opset_import:
        yield opset.domain
    for function in model.functions:
        yield from (function.name, function.domain, *function.input, *function.output, *function.attribute)
    for tensor in all_tensors(model):
        yield tensor.name
        yield from (text for entry in tensor.external_data for text in (entry.key, entry.value))
    for node in all_nodes(model):
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)


def _escape(message: object, taken: set[str], made: dict[bytes, str]) -> None:
    """Write every text in a protobuf message that is no UTF-8 with escapes."""

    def valid(text: bytes | str) -> str:
        if isinstance(text, str):
            return text
        if text not in made:
            name = text.decode("utf-8", "backslashreplace")
            while name in taken:
                name += "_"
            taken.add(name)
            made[text] = name
        return made[text]

    waiting = [message]
    while waiting:
        each = waiting.pop()
        for field, value in each.ListFields():  # type: ignore[attr-defined]
            repeated = field.is_repeated
            if field.message_type is not None:
                waiting += value if repeated else [value]
            elif field.type == field.TYPE_STRING:
                if not repeated:
                    setattr(each, field.name, valid(value))
                elif any(isinstance(item, bytes) for item in value):
                    value[:] = [valid(item) for item in value]
