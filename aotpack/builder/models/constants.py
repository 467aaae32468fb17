"""Inputs that are fixed to a value: they disappear, and with them the branches that depend on them.

Some exports choose a whole network by a scalar input, such as silero-vad by its sampling rate. Compilers see
two networks and an `If`; with the input fixed there is one, of which all variants of a component are made.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from aotpack.builder.models.external_data import is_external
from aotpack.builder.models.model import import_model, load_graph, read_source, write_beside
from aotpack.builder.models.names import Inliner
from aotpack.builder.models.shapes import tensor_info
from aotpack.builder.spec import BuildSpec, ComponentSpec, Constant
from aotpack.errors import ShapeError, UnknownName, UsageError
from aotpack.manifest.values import TensorInfo

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    Array = NDArray[Any]

__all__ = ["fix_component", "fix_inputs", "with_constants"]

#: Elements of a value that is folded: what decides a branch is small, and weights are left where they are.
_MAX_FOLDED = 64
#: ONNX's names of its own domain.
_ONNX = frozenset({"", "ai.onnx"})


def with_constants(spec: BuildSpec, folder: Path) -> BuildSpec:
    """`spec` with a model of its own for each component whose constants are given.

    Args:
        spec: what to build.
        folder: takes the models and has to last until they are built.

    Raises:
        UsageError: there is no such input, or the value is none of its type.
        ModelError: a model cannot be read.
    """
    components = []
    for index, component in enumerate(spec.components):
        if component.constants:
            place = folder / f"constants-{index}"
            place.mkdir(parents=True)
            component = fix_component(component, place)
        components.append(component)
    return replace(spec, components=tuple(components))


def fix_component(component: ComponentSpec, folder: Path) -> ComponentSpec:
    """`component` with a model of its own, in `folder`. As `with_constants`."""
    source = folder / "source"
    source.mkdir()
    files = import_model(read_source(component), source)
    model = load_graph(files.path)
    fix_inputs(model, component.constants, component.places)
    fixed = write_beside(model, files, folder / "model.onnx")
    return replace(component, model=fixed.path, constants={})


def fix_inputs(
    model: onnx.ModelProto,
    constants: Mapping[str, Constant],
    places: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Make inputs of `model` constants, in place, and put in the branches that are taken then.

    Args:
        model: any.
        constants: input name to its value, which all of its elements have.
        places: as in `ComponentSpec.places`.

    Raises:
        UnknownName: there is no such input.
        ShapeError: the size of an input is not known.
        UsageError: the value is none of the input's type.
    """
    from onnx import numpy_helper

    # Those that have a value already are fixed to another one.
    inputs = {value.name: tensor_info(value) for value in model.graph.input}
    for name, value in constants.items():
        place = places.get(f"constants.{name}")
        if name not in inputs:
            unknown = UnknownName("input to make constant", name, inputs)
            raise unknown.at(place) if place else unknown
        array = _array(inputs[name], value, place or f"--constant {name}")
        kept = [each for each in model.graph.input if each.name != name]
        del model.graph.input[:]
        model.graph.input.extend(kept)
        others = [each for each in model.graph.initializer if each.name != name]
        del model.graph.initializer[:]
        model.graph.initializer.extend(others)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    _take_branches(model)


def _array(info: TensorInfo, value: Constant, where: str) -> Array:
    shape = info.shape
    if shape is None or not all(isinstance(size, int) for size in shape):
        raise ShapeError("has open sizes; only an input of a fixed size can be constant", where=where)
    sizes = tuple(size for size in shape if isinstance(size, int))
    try:
        dtype = np.dtype(info.dtype)
        # Not of the dtype at once: numpy would round.
        made = np.array(value, object).astype(dtype)
        fits = (dtype.kind == "f" or bool(made == value)) and (dtype.kind == "b") == isinstance(value, bool)
    except (OverflowError, ValueError, TypeError):
        fits = False
    if not fits:
        raise UsageError("is no value of the input", where=where, found=value, expected=info.dtype)
    return np.full(sizes, made)


def _take_branches(model: onnx.ModelProto) -> None:
    """Replace each `If` whose condition is known by the branch that it takes."""
    graph = model.graph
    inliner = Inliner(model)
    replaceable = {value.name for value in graph.input}
    known = _small(each for each in graph.initializer if each.name not in replaceable)
    waiting, done = list(graph.node), []
    while waiting:
        node = waiting.pop(0)
        if node.op_type == "If" and node.domain in _ONNX and {*node.input} & known.keys() and _is_whole(node):
            name = "then_branch" if known[node.input[0]].any() else "else_branch"
            branch = next(item.g for item in node.attribute if item.name == name)
            waiting = [*inliner.inline(branch, node.output), *waiting]
            graph.initializer.extend(branch.initializer)
            graph.sparse_initializer.extend(branch.sparse_initializer)
            known.update(_small(branch.initializer))
            continue
        done.append(node)
        if all(each in known for each in node.input if each) and not _has_graphs(node):
            known.update(_folded(model, node, known))
    del graph.node[:]
    graph.node.extend(done)


def _is_whole(node: onnx.NodeProto) -> bool:
    """Whether an `If` has both of its branches, each with a result for each of its own."""
    branches = {item.name: item.g for item in node.attribute if item.HasField("g")}
    return branches.keys() >= {"then_branch", "else_branch"} and all(
        len(each.output) == len(node.output) for each in branches.values()
    )


def _small(tensors: Iterable[onnx.TensorProto]) -> dict[str, Array]:
    """The values of those that are small enough to decide a branch."""
    from onnx import numpy_helper

    found = {}
    for tensor in tensors:
        if not is_external(tensor) and math.prod(tensor.dims) <= _MAX_FOLDED:
            # One that is not well-formed decides nothing; whoever compiles the model says what is wrong.
            with contextlib.suppress(ValueError, TypeError):
                found[tensor.name] = numpy_helper.to_array(tensor)
    return found


def _has_graphs(node: onnx.NodeProto) -> bool:
    return any(item.HasField("g") or item.graphs for item in node.attribute)


def _folded(model: onnx.ModelProto, node: onnx.NodeProto, known: Mapping[str, Array]) -> dict[str, Array]:
    """What a node gives whose inputs are known, as far as it is small and onnx can compute it."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    values = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    inputs = [helper.make_empty_tensor_value_info(name) for name in dict.fromkeys(node.input) if name]
    single = helper.make_model(
        helper.make_graph([node], "one", inputs, values), opset_imports=model.opset_import
    )
    try:
        results = ReferenceEvaluator(single).run(None, {each.name: known[each.name] for each in inputs})
    except Exception:
        # Not a failure: the node stays what it is, and what depends on it too.
        return {}
    return {
        value.name: np.asarray(result)
        for value, result in zip(values, results, strict=True)
        if isinstance(result, np.ndarray | np.generic) and result.size <= _MAX_FOLDED
    }
