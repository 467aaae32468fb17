"""Model-local functions, put in place of the nodes that call them.

Exporters write a function for each module of a network. With all of them inlined there is one graph to look
through: for types to rewrite, nodes to count, external data, and names.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from aotpack._text import shortened
from aotpack.builder.models.checks import MAX_NODES
from aotpack.builder.models.traversal import all_nodes, nested_graphs
from aotpack.errors import ModelError

if TYPE_CHECKING:
    import onnx

    _Key = tuple[str, str, str]

__all__ = ["inline_functions"]

#: Domains whose operators runtimes know. A function of one is a body for those that do not, such as the one
#: beside FlexAttention; inlined it would hide the operator from an EP that has a kernel for it.
_OPERATORS = frozenset({"", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training"})
_OPERATOR_VENDORS = ("com.microsoft", "com.ms.")
#: Bytes of all nodes when each call is replaced by its function: protobuf's own limit on a model.
_MAX_BYTES = 2**31 - 1
#: Graphs in graphs: protobuf's parsers take 100 messages in each other, and a graph in a node is three.
_MAX_DEPTH = 30
#: Functions that call each other. A PyTorch module is some ten deep.
_MAX_CALLS = 256
#: Bytes of a constant that is left out while the functions are inlined.
_SET_ASIDE = 65536


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with its functions inlined and their inner names kept apart; `model` itself if it has none.

    Functions beside operators that runtimes know are left as they are.

    Raises:
        ModelError: functions call each other in a circle, or would take more than a model can hold.
    """
    from onnx import inliner

    called = [each for each in model.functions if not _is_operator(each.domain)]
    if not called:
        return model
    _Expansion(model).check()
    kept = [(each.domain, each.name) for each in model.functions if _is_operator(each.domain)]
    aside = _set_aside(model)
    try:
        complete = _Calls(model).complete()
        inlined: onnx.ModelProto = inliner.inline_selected_functions(complete, kept, exclude=True)
    except Exception as error:
        raise ModelError(f"its functions cannot be inlined: {error}") from None
    finally:
        _restore(model, aside)
    _restore(inlined, aside)
    return inlined


def _is_operator(domain: str) -> bool:
    return domain in _OPERATORS or domain.startswith(_OPERATOR_VENDORS)


def _set_aside(model: onnx.ModelProto) -> dict[str, bytes]:
    """Take the large constants out of the graph: the inliner would copy each several times."""
    aside = {}
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) >= _SET_ASIDE:
            aside[tensor.name] = tensor.raw_data
            tensor.raw_data = b""
    return aside


def _restore(model: onnx.ModelProto, aside: dict[str, bytes]) -> None:
    for tensor in model.graph.initializer:
        if tensor.name in aside and not tensor.raw_data:
            tensor.raw_data = aside[tensor.name]


class _Calls:
    """A model whose functions ONNX's inliner puts in place as ONNX Runtime does.

    The inliner knows nothing of default values, and leaves out what a call does not say: LeakyRelu would get
    its own default in place of the function's. So every call is made to say all attributes. One without a
    value and without a default is absent in the function's body, and what is called with it there falls back
    to a default in turn.

    The operators of a function are those of the model's opset, whatever the function itself imports: that is
    what a session on the model computes.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = type(model)()
        self._model.CopyFrom(model)
        self._functions = {_function_key(each): each for each in self._model.functions}
        #: As they are before their calls are completed.
        self._originals = {_function_key(each): each for each in model.functions}
        #: A function, and those of its attributes that are absent, to the name of what is to be called.
        self._made: dict[tuple[_Key, frozenset[str]], str] = {}
        self._names = {key[1] for key in self._functions}

    def complete(self) -> onnx.ModelProto:
        versions = {opset.domain: opset.version for opset in self._model.opset_import}
        for function in self._model.functions:
            for opset in function.opset_import:
                opset.version = versions.get(opset.domain, opset.version)
        for node in all_nodes(self._model.graph):
            self._complete(node)
        return self._model

    def _complete(self, node: onnx.NodeProto) -> None:
        key = _key(node)
        function = self._functions.get(key)
        if function is None or _is_operator(function.domain):
            return
        said = {attribute.name for attribute in node.attribute}
        node.attribute.extend(each for each in function.attribute_proto if each.name not in said)
        absent = (frozenset(function.attribute) - said) & _attributes_read(function)
        if (key, absent) not in self._made:
            self._made[key, absent] = self._make(key, absent)
        node.op_type = self._made[key, absent]

    def _make(self, key: _Key, absent: frozenset[str]) -> str:
        """The name of a function like `key` with complete calls, in which `absent` are said nowhere.

        Its calls are as deep as functions are called, which `_Expansion` bounds, and there are no more such
        functions than calls of any.
        """
        function, name = self._functions[key], key[1]
        if absent:
            while name in self._names:
                name += "_"
            self._names.add(name)
            copy = self._model.functions.add()
            copy.CopyFrom(self._originals[key])
            del copy.opset_import[:]
            copy.opset_import.extend(self._functions[key].opset_import)
            copy.name = name
            copy.attribute[:] = [each for each in copy.attribute if each not in absent]
            function = copy
        for node in all_nodes(function):
            kept = [each for each in node.attribute if each.ref_attr_name not in absent]
            if len(kept) < len(node.attribute):
                del node.attribute[:]
                node.attribute.extend(kept)
            self._complete(node)
        return name


def _attributes_read(function: onnx.FunctionProto) -> set[str]:
    """The attributes of a function that its nodes refer to."""
    return {attribute.ref_attr_name for node in all_nodes(function) for attribute in node.attribute}


def _function_key(function: onnx.FunctionProto) -> _Key:
    return function.domain, function.name, function.overload


class _Expansion:
    """What a model becomes when its functions are inlined, found out without doing it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._functions: dict[_Key, onnx.FunctionProto] = {}
        for function in model.functions:
            key = _function_key(function)
            if key in self._functions:
                raise ModelError(f"has the function {shortened('.'.join(key[:2]))} twice")
            self._functions[key] = function
        #: Nodes, bytes, depth of graphs.
        self._sizes: dict[_Key, tuple[int, int, int]] = {}

    def check(self) -> None:
        for key in self._in_order():
            self._sizes[key] = self._size(self._functions[key].node)
        nodes, size, depth = self._size(self._model.graph.node)
        if nodes > MAX_NODES or size > _MAX_BYTES:
            raise ModelError(
                f"has {_approximate(nodes)} nodes of {_approximate(size)} bytes with its functions inlined",
                expected=f"at most {MAX_NODES} nodes and {_MAX_BYTES} bytes",
            )
        if depth > _MAX_DEPTH:
            raise ModelError(
                f"has graphs nested {depth} deep with its functions inlined", expected=f"at most {_MAX_DEPTH}"
            )

    def _in_order(self) -> list[_Key]:
        """The functions, each after those that it calls."""
        calls = {
            key: {each for node in all_nodes(function) if (each := _key(node)) in self._functions}
            for key, function in self._functions.items()
        }
        done: dict[_Key, int] = {}
        while len(done) < len(calls):
            ready = [key for key, called in calls.items() if key not in done and called <= done.keys()]
            if not ready:
                name = next(key for key in calls if key not in done)
                raise ModelError(f"has functions that call each other in a circle, {shortened(name[1])}")
            for key in ready:
                done[key] = 1 + max((done[each] for each in calls[key]), default=0)
                if done[key] > _MAX_CALLS:
                    raise ModelError(
                        f"has functions called {done[key]} deep", expected=f"at most {_MAX_CALLS}"
                    )
        return list(done)

    def _size(self, nodes: Iterable[onnx.NodeProto]) -> tuple[int, int, int]:
        count = size = depth = 0
        for node in nodes:
            inside = self._sizes.get(_key(node))
            if inside is not None:
                count, size, depth = count + inside[0], size + inside[1], max(depth, inside[2])
                continue
            count += 1
            nested_size = 0
            for graph in nested_graphs(node):
                inner = self._size(graph.node)
                nested_size += graph.ByteSize()
                count, size, depth = count + inner[0], size + inner[1], max(depth, inner[2] + 1)
            size += node.ByteSize() - nested_size
        return count, size, depth


def _key(node: onnx.NodeProto) -> _Key:
    return node.domain, node.op_type, node.overload


def _approximate(number: int) -> str:
    return str(number) if number < 10**12 else "more than 10^12"
