"""Sizes and values that a model leaves open and can be built with, found by running it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from aotpack.builder.jobs.resources import default_limits
from aotpack.builder.jobs.supervise import Workers
from aotpack.builder.jobs.worker import ReferenceRequest
from aotpack.builder.models.constants import fix_component
from aotpack.builder.models.custom_domains import custom_domains
from aotpack.builder.models.model import import_model, load_graph, read_graph, read_model
from aotpack.builder.models.shapes import tensor_infos
from aotpack.builder.spec import ComponentSpec, Constant, Limits
from aotpack.builder.usual_sizes import IMAGES, Dimension, UsualSize, usual_sizes
from aotpack.manifest.values import TensorInfo
from aotpack.selection.dimensions import expression

if TYPE_CHECKING:
    import onnx

__all__ = ["Guess", "guess_inputs"]

#: Of sequences, images and windows of sound, in the order they are tried.
_SIZES = tuple(2**power for power in range(1, 11))

#: Dimensions that are tried one by one; the more there are, the less does one of them alone.
_ALONE = 4

#: Seconds for all attempts together: a model that takes longer has an owner who knows its sizes.
_PATIENCE = 30.0
#: Bytes for an attempt with a model of no size, and for each byte of one: a size that takes more is none to
#: begin with.
_MEMORY = 4 * 1024**3
_MEMORY_BY_SIZE = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """What a build file can say of a model's inputs."""

    #: Input name to its shape, or symbolic dimension to its one size.
    shapes: Mapping[str, tuple[int, ...]]
    #: Inputs that choose between networks, and the value that chooses the first one.
    constants: Mapping[str, Constant]
    #: It was run with them.
    runs: bool
    #: What each size is taken for, as a text such as ``seq = 128: tokens``.
    why: tuple[str, ...] = field(default=(), compare=False)


def guess_inputs(
    model: Path,
    folder: Path,
    workers: Workers,
    limits: Limits | None = None,
    custom_ops: tuple[Path, ...] = (),
) -> Guess:
    """Sizes that `model` runs with: those that people use (`usual_sizes`), where names and layouts tell.

    Others are 1 or, where that is too small, as few larger ones as will do.

    Args:
        model: the ONNX model.
        folder: an empty one.
        workers: run it.
        limits: of all attempts together in time, and of each in memory; by default 30 seconds, and 4 GiB with
            20 times the size of the model.
        custom_ops: libraries of its custom operators.

    Raises:
        ModelError: it cannot be read.
    """
    graph = read_graph(model)
    constants = _choosing(graph)
    component = ComponentSpec(name="main", model=model, shapes={}, constants=constants)
    if constants:
        component = fix_component(component, folder)
    taken = folder / "taken"
    taken.mkdir()
    files = import_model(read_model(component.model), taken)
    attempts = _Attempts(
        files.path,
        tensor_infos(load_graph(files.path)),
        folder,
        workers,
        _limited(model, limits),
        custom_ops,
    )
    metadata = {item.key: item.value for item in graph.metadata_props}
    # Without their libraries no size runs.
    runnable = custom_ops or not custom_domains(graph)
    for usual in _ways(attempts.inputs, read_model(model).outputs, metadata) if runnable else ():
        for sizes in _candidates(attempts.inputs, {name: each.size for name, each in usual.items()}):
            if attempts.runs(sizes):
                # The least is an edge at which compilers err more often, such as a spectrum of one frame.
                doubled = sizes | {name: 2 * size for name, size in sizes.items() if name not in usual}
                best = doubled if doubled != sizes and attempts.runs(doubled) else sizes
                why = tuple(_told(name, each) for name, each in usual.items())
                return Guess(shapes=_shapes(attempts.inputs, best), constants=constants, runs=True, why=why)
    return Guess(shapes=_shapes(attempts.inputs, {}), constants=constants, runs=False)


def _ways(
    inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo], metadata: Mapping[str, str]
) -> list[dict[Dimension, UsualSize]]:
    """Sizes that people use, in the order in which they are tried; at last none."""
    ways: list[dict[Dimension, UsualSize]] = []
    for image in (None, *IMAGES):
        usual = usual_sizes(inputs, outputs, metadata, image)
        if usual not in ways:
            ways.append(usual)
    return [*ways, {}] if ways[-1] else ways


def _told(name: Dimension, usual: UsualSize) -> str:
    called = name if isinstance(name, str) else f"axis {name[1]} of {name[0]}"
    return f"{called} = {usual.size}: {usual.why}"


class _Attempts:
    def __init__(
        self,
        model: Path,
        inputs: tuple[TensorInfo, ...],
        folder: Path,
        workers: Workers,
        limits: Limits,
        custom_ops: tuple[Path, ...],
    ) -> None:
        self._custom_ops = tuple(map(str, custom_ops))
        self.inputs = inputs
        self._model = model.absolute()
        self._folder = folder
        self._workers = workers
        self._memory = limits.memory
        self._end = time.monotonic() + limits.seconds
        self._count = 0

    def runs(self, sizes: Mapping[Dimension, int]) -> bool:
        """Whether the model runs with these; no longer asked when the patience is at its end."""
        left = self._end - time.monotonic()
        if left <= 0:
            return False
        self._count += 1
        folder = self._folder / f"attempt-{self._count}"
        folder.mkdir()
        request = ReferenceRequest(
            model=str(self._model),
            inputs=tuple(_sized(info, sizes) for info in self.inputs),
            output=str(folder / "outputs.npz"),
            samples=1,
            precisions=(),
            custom_ops=self._custom_ops,
        )
        outcome = self._workers.run(
            request, folder, environment={}, limits=Limits(seconds=left, memory=self._memory)
        )
        return outcome.failure is None


def _limited(model: Path, limits: Limits | None) -> Limits:
    chosen = limits or Limits(seconds=_PATIENCE)
    if chosen.memory is not None:
        return chosen
    read = read_model(model)
    memory = min(_MEMORY + _MEMORY_BY_SIZE * read.source.size, default_limits(chosen).memory or _MEMORY)
    return Limits(seconds=chosen.seconds, memory=memory)


def _choosing(model: onnx.ModelProto) -> dict[str, Constant]:
    """Integer inputs of one element that an `If` compares with a number, and that number."""
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensors[node.output[0]] = node.attribute[0].t
    scalars = {
        info.name
        for info in tensor_infos(model)
        if info.dtype.startswith("int") and info.shape is not None and all(size == 1 for size in info.shape)
    }
    equal = {node.output[0]: node.input for node in model.graph.node if node.op_type == "Equal"}
    found: dict[str, Constant] = {}
    for node in model.graph.node:
        if node.op_type == "If" and node.input[0] in equal:
            names = equal[node.input[0]]
            for name, other in (names, reversed(names)):
                if name in scalars and other in tensors and not tensors[other].external_data:
                    found.setdefault(name, int(numpy_helper.to_array(tensors[other]).flat[0]))
    return found


def _dimensions(info: TensorInfo) -> list[Dimension | int]:
    return [(info.name, axis) if size is None else size for axis, size in enumerate(info.shape or ())]


def _candidates(
    inputs: Sequence[TensorInfo], known: Mapping[Dimension, int]
) -> Iterator[dict[Dimension, int]]:
    """Sizes of dimensions. One that is not there is 1, as of batches, which are those that stand first.

    Args:
        inputs: of a model.
        known: sizes that are always there.
    """
    base = dict(known)
    yield base
    listed = [[each for each in _dimensions(info) if not _follows(each)] for info in inputs]
    batches = {dimensions[0] for dimensions in listed if dimensions}
    opened = dict.fromkeys(each for dimensions in listed for each in dimensions if not isinstance(each, int))
    others = [each for each in opened if each not in batches and each not in known]
    for size in _SIZES if others else ():
        if len(others) > 1:
            yield from (base | {each: size} for each in others[:_ALONE])
        yield base | dict.fromkeys(others, size)


def _follows(dimension: Dimension | int) -> bool:
    """Whether a dimension is an expression of others."""
    return isinstance(dimension, str) and expression(dimension) is not None


def _size(dimension: Dimension | int, sizes: Mapping[Dimension, int]) -> int:
    if isinstance(dimension, int):
        return dimension
    follows = expression(dimension) if isinstance(dimension, str) else None
    if follows is None:
        return sizes.get(dimension, 1)
    return follows.value({name: sizes.get(name, 1) for name in follows.names}) or 1


def _sized(info: TensorInfo, sizes: Mapping[Dimension, int]) -> TensorInfo:
    shape = tuple(_size(each, sizes) for each in _dimensions(info))
    return info if info.shape is None else info.replace(shape=shape)


def _shapes(inputs: Sequence[TensorInfo], sizes: Mapping[Dimension, int]) -> dict[str, tuple[int, ...]]:
    """The same as a build file says it. What follows from others is not said."""
    shapes: dict[str, tuple[int, ...]] = {}
    names = {info.name for info in inputs}
    for info in inputs:
        symbols = [size for size in info.shape or () if isinstance(size, str) and not _follows(size)]
        # A symbol that is called like an input would be taken for that.
        if any(size is None for size in info.shape or ()) or not names.isdisjoint(symbols):
            shape = _sized(info, sizes).shape or ()
            shapes[info.name] = tuple(size for size in shape if isinstance(size, int))
        else:
            shapes |= {size: (sizes.get(size, 1),) for size in symbols}
    for text in (size for info in inputs for size in info.shape or () if isinstance(size, str)):
        follows = expression(text)
        for name in sorted(follows.names) if follows is not None else ():
            # One that no input has by itself.
            if not any(name in (info.shape or ()) for info in inputs):
                shapes[name] = (sizes.get(name, 1),)
    return shapes
