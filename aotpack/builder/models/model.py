"""Source models: read, fingerprinted, and prepared with fixed input shapes.

External data is never read into memory: its bytes are hashed in a stream and linked where a prepared
copy of the graph needs them, so that the cost of a model does not grow with its weights.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from aotpack.builder.models.bfloat16 import BFLOAT16, widen_bfloat16
from aotpack.builder.models.low_bits import widen_weights
from aotpack.builder.models.shapes import fed_inputs, fix_shapes, open_dimensions, tensor_info, tensor_infos
from aotpack.errors import ModelError
from aotpack.manifest import Source, TensorInfo
from aotpack.paths import path_issue

if TYPE_CHECKING:
    import onnx

    from aotpack.builder.spec import ComponentSpec

__all__ = [
    "SourceModel",
    "Stamps",
    "count_nodes",
    "external_data",
    "file_stamps",
    "link_data",
    "prepare",
    "read_graph",
    "read_model",
    "read_source",
]

_CHUNK = 1024 * 1024

#: Of each file of a model.
Stamps = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceModel:
    """An ONNX model on disk."""

    path: Path
    source: Source
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    #: Of external data, relative to the model's folder, in order.
    data: tuple[str, ...]
    #: Nodes at the top level and in nested graphs, constants left out.
    nodes: int
    #: Of its files when they were read (`file_stamps`).
    stamps: Stamps

    def files(self, graph: Path | None = None) -> tuple[Path, ...]:
        """The model, or a rewritten `graph` of it, and its external data."""
        return (graph or self.path, *(self.path.parent / name for name in self.data))


def read_model(path: Path) -> SourceModel:
    """Read and fingerprint the model at `path`.

    Raises:
        ModelError: it is not there or no ONNX, or its external data is missing or outside its folder.
    """
    # Workers run in folders of their own.
    path = path.absolute()
    before = file_stamps([path]) if path.exists() else ()
    graph = read_graph(path)
    data = external_data(graph.graph, path)
    files = [path, *(path.parent / name for name in data)]
    before += file_stamps([file for file in files[1:] if file.exists()])
    digest = hashlib.sha256()
    size = 0
    for file in files:
        try:
            with file.open("rb") as stream:
                while block := stream.read(_CHUNK):
                    digest.update(block)
                    size += len(block)
        except OSError as error:
            raise ModelError(
                error.strerror or str(error), where=file, hint="it is part of the model"
            ) from None
    stamps = file_stamps(files)
    if stamps != before:
        raise ModelError("changed while it was read", where=path, hint="build again")
    return SourceModel(
        path=path,
        source=Source(
            sha256=digest.hexdigest(),
            size=size,
            opsets={
                opset.domain: opset.version
                for opset in sorted(graph.opset_import, key=lambda item: item.domain)
            },
        ),
        inputs=tensor_infos(graph),
        outputs=tuple(tensor_info(value) for value in graph.graph.output),
        data=data,
        nodes=count_nodes(graph.graph),
        stamps=stamps,
    )


def read_source(component: ComponentSpec) -> SourceModel:
    """The model of a component. As `read_model`, and the error says where in a file the model was named."""
    try:
        return read_model(component.model)
    except ModelError as error:
        place = component.places.get("model")
        raise error.at(place) if place else error from None


def file_stamps(files: Iterable[Path]) -> Stamps:
    """Size, inode and time of each file: while they are the same, so are the files.

    Raises:
        ModelError: one is not there.
    """
    try:
        found = [path.stat() for path in files]
    except OSError as error:
        raise ModelError(
            "is gone; it was there a moment ago", where=error.filename, hint="build again"
        ) from None
    return tuple((status.st_size, status.st_ino, status.st_mtime_ns) for status in found)


def read_graph(path: Path) -> onnx.ModelProto:
    """The model's graph, external data left where it is.

    Raises:
        ModelError: it is not there or no ONNX model.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        if path.stat().st_size == 0:
            raise ModelError("is empty", where=path, expected="an ONNX model")
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except (DecodeError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(
            "is not an ONNX model", where=path, expected="a protobuf of onnx.ModelProto"
        ) from None
    except OSError as error:
        raise ModelError(error.strerror or str(error), where=path, expected="an ONNX model") from None
    # Random bytes can be a well-formed protobuf that says nothing.
    if not model.ir_version or not model.graph.node or not model.graph.output:
        raise ModelError("is not an ONNX model", where=path, expected="an IR version, nodes and outputs")
    return model


def count_nodes(graph: onnx.GraphProto) -> int:
    """Nodes of a graph and of those nested in it, constants left out."""
    return sum(node.op_type != "Constant" for each in _graphs(graph) for node in each.node)


def prepare(
    model: SourceModel,
    shapes: Mapping[str, tuple[int, ...]],
    folder: Path,
    widen: Mapping[str, str] | None = None,
) -> tuple[Path, Mapping[tuple[str, str], int]]:
    """A model like `model` that compilers take: shapes fixed, initializers constant, narrow types widened.

    Gives its path, that of `model` itself if nothing has to change, and what `widen_weights` rewrote.

    Args:
        model: the source.
        shapes: as in `ComponentSpec.shapes`.
        folder: an empty folder that takes the prepared copy, the external data linked or copied beside it.
        widen: type to the one that it is rewritten into (`widen_weights`, `widen_bfloat16`).

    Raises:
        ShapeError: a shape does not fit the input that it names.
        UnknownName: there is no such input or symbolic dimension.
    """
    import onnx

    graph = read_graph(model.path)
    changed = _separate_initializers(graph)
    open_before = open_dimensions(graph)
    low_bits = {narrow: wide for narrow, wide in (widen or {}).items() if narrow != BFLOAT16}
    widened = widen_weights(graph, low_bits, model.path.parent) if low_bits else {}
    if widen and BFLOAT16 in widen:
        widen_bfloat16(graph, model.path.parent)
        changed = True
    if open_dimensions(fix_shapes(graph, shapes)) == open_before and not changed and not widened:
        return model.path, widened
    prepared = folder / "prepared.onnx"
    onnx.save(graph, prepared)
    link_data(model, folder)
    return prepared, widened


def link_data(model: SourceModel, folder: Path) -> None:
    """Make the external data of `model` appear in `folder`, without copying it."""
    for name in model.data:
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        _link(model.path.parent / name, link)


def _separate_initializers(model: onnx.ModelProto) -> bool:
    """Make all initializers constants, in place; say whether that changed anything.

    Up to IR version 3 each initializer is an input too, whose value a caller may replace. Optimisers then
    leave such inputs dangling when they fold what they are used for.
    """
    inputs = fed_inputs(model)
    if len(inputs) == len(model.graph.input):
        return False
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 4)
    return True


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for nested in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                yield from _graphs(nested)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    for each in _graphs(graph):
        yield from each.initializer
        for node in each.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def external_data(graph: onnx.GraphProto, path: Path) -> tuple[str, ...]:
    """The files that hold weights of the graph in `path`, relative to its folder, in order.

    Raises:
        ModelError: one lies outside the folder.
    """
    from onnx import TensorProto

    names: set[str] = set()
    for tensor in _tensors(graph):
        if tensor.data_location == TensorProto.EXTERNAL:
            name = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            plain = PurePosixPath(name.replace("\\", "/")).as_posix()
            if issue := path_issue(plain):
                raise ModelError(f"external data of {tensor.name!r}: {issue}", where=path)
            names.add(plain)
    return tuple(sorted(names))


def _link(source: Path, link: Path) -> None:
    try:
        os.link(source.resolve(), link)
    except OSError:
        # On another file system. A symbolic link would not do: ORT refuses data outside the model's folder.
        shutil.copyfile(source, link)
