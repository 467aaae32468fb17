"""Source models: read and fingerprinted, taken over into files of ours, and prepared with fixed input shapes.

External data is never read into memory: its bytes are hashed and copied a block at a time, into one file
beside a graph of ours, so that the memory which a model costs does not grow with its weights, and no compiler
is given a file of the user's.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aotpack.builder.models.bfloat16 import BFLOAT16, widen_bfloat16
from aotpack.builder.models.checks import check_model
from aotpack.builder.models.external_data import DataRange, ModelFolder, is_external, lfs_issue, open_regular
from aotpack.builder.models.inlining import inline_functions
from aotpack.builder.models.low_bits import widen_weights
from aotpack.builder.models.names import separate_names
from aotpack.builder.models.shapes import fed_inputs, fix_shapes, open_dimensions, tensor_info, tensor_infos
from aotpack.builder.models.traversal import all_nodes, all_tensors
from aotpack.builder.models.weights import EXTERNAL_FROM, DataFile
from aotpack.errors import ModelError
from aotpack.manifest.values import Source, TensorInfo

if TYPE_CHECKING:
    import onnx

    from aotpack.builder.spec import ComponentSpec

__all__ = [
    "ModelFiles",
    "SourceModel",
    "Stamps",
    "count_nodes",
    "data_names",
    "file_stamps",
    "import_model",
    "load_graph",
    "prepare",
    "read_graph",
    "read_model",
    "read_source",
    "save_graph",
    "write_beside",
]

_CHUNK = 1024 * 1024
#: Of a model's own file, in bytes: what protobuf can hold.
_MAX_MODEL = 2**31 - 1
#: Of all external data of a model, in bytes: what a package can hold, at 4 MiB a segment.
_MAX_DATA = 2**38
#: What the model and its data are called where a variant is made of them.
_MODEL_NAME = "model.onnx"

#: Of each file of a model.
Stamps = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceModel:
    """An ONNX model on disk, as somebody wrote it."""

    path: Path
    source: Source
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    #: Of external data, relative to the model's folder, in order.
    data: tuple[str, ...]
    #: Nodes at the top level and in nested graphs, functions inlined, constants left out.
    nodes: int
    #: Of its files when they were read (`file_stamps`).
    stamps: Stamps

    def files(self) -> tuple[Path, ...]:
        """The model and its external data."""
        return (self.path, *(self.path.parent / name for name in self.data))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """An ONNX model in files of ours."""

    path: Path
    #: Nodes, constants left out.
    nodes: int
    #: Names of data files in the model's folder.
    data: tuple[str, ...] = ()

    def files(self) -> tuple[Path, ...]:
        """The model and its external data."""
        return (self.path, *(self.path.parent / name for name in self.data))


def read_model(path: Path) -> SourceModel:
    """Read and fingerprint the model at `path`.

    Raises:
        ModelError: it is not there, no ONNX, not well-formed or too large (`check_model`), or its external
            data is missing, too short, or outside its folder (`ModelFolder`).
    """
    # Workers run in folders of their own.
    path = path.absolute()
    before = file_stamps([path]) if path.exists() else ()
    graph = read_graph(path)
    ranges = _used_ranges(graph, path)
    data = tuple(sorted({each.location for each in ranges}))
    files = [path, *(path.parent / name for name in data)]
    before += file_stamps([file for file in files[1:] if file.exists()])
    digest, size = _digest(path, ranges)
    stamps = file_stamps(files)
    if stamps != before:
        raise ModelError("changed while it was read", where=path, hint="build again")
    return SourceModel(
        path=path,
        source=Source(
            sha256=digest,
            size=size,
            opsets={
                opset.domain: opset.version
                for opset in sorted(graph.opset_import, key=lambda item: item.domain)
            },
        ),
        inputs=tensor_infos(graph),
        outputs=tuple(tensor_info(value) for value in graph.graph.output),
        data=data,
        nodes=count_nodes(graph),
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
    """The graph of somebody's model, checked, its functions inlined, external data left where it is.

    Raises:
        ModelError: as for `read_model`.
    """
    graph, _ = _read(path)
    return graph


def load_graph(path: Path) -> onnx.ModelProto:
    """The graph in a file of ours or of a compiler's, as it is.

    Raises:
        ModelError: it is not there or no ONNX model.
    """
    import onnx
    from google.protobuf.message import DecodeError

    expected = "an ONNX model"
    try:
        with open_regular(Path(os.path.realpath(path))) as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise ModelError("is empty", where=path, expected=expected)
            if size > _MAX_MODEL:
                raise ModelError(
                    f"has {size} bytes", where=path, expected=f"at most {_MAX_MODEL}, its weights beside it"
                )
            data = file.read(size)
        if issue := lfs_issue(data):
            raise ModelError(issue, where=path, hint="run `git lfs pull`")
        model = onnx.load_model_from_string(data)
    except DecodeError:
        raise ModelError(
            "is not an ONNX model",
            where=path,
            expected="a protobuf of onnx.ModelProto",
        ) from None
    except OSError as error:
        raise ModelError(error.strerror or str(error), where=path, expected=expected) from None
    # Random bytes can be a well-formed protobuf that says nothing. A compiler may fold all nodes.
    has_content = model.graph.node or model.graph.initializer
    if not model.ir_version or not has_content or not model.graph.output:
        raise ModelError("is not an ONNX model", where=path, expected="an IR version, nodes and outputs")
    return model


def save_graph(graph: onnx.ModelProto, path: Path) -> None:
    """Write a graph of ours, the same bytes for the same graph.

    Raises:
        ModelError: it is larger than protobuf allows.
    """
    from google.protobuf.message import EncodeError

    try:
        data = graph.SerializeToString(deterministic=True)
    except EncodeError:
        data = b""
    if not 0 < len(data) <= _MAX_MODEL:
        raise ModelError(
            "would have more than 2 GB without its external data",
            where=path.name,
            hint="keep weights outside",
        )
    path.write_bytes(data)


def _read(path: Path) -> tuple[onnx.ModelProto, bool]:
    """The graph, and whether it is another one than the file's."""
    graph = load_graph(path)
    changed = check_model(graph, path)
    try:
        inlined = inline_functions(graph)
    except ModelError as error:
        raise error.at(str(path)) from None
    return inlined, changed or inlined is not graph


def count_nodes(graph: onnx.ModelProto) -> int:
    """Nodes of a graph and of those nested in it, constants left out."""
    return sum(node.op_type != "Constant" for node in all_nodes(graph.graph))


def import_model(model: SourceModel, folder: Path) -> ModelFiles:
    """`model` in files of ours: the graph, and all of its external data in one file.

    A model without external data and functions is the same byte for byte.

    Args:
        model: the source.
        folder: an empty folder that takes them.

    Raises:
        ModelError: the model changed since it was read, or it takes more than protobuf allows.
    """
    graph, changed = _read(model.path)
    path = folder / _MODEL_NAME
    source = ModelFolder(model.path)
    with DataFile(folder / f"{_MODEL_NAME}.data") as data:
        for tensor in all_tensors(graph):
            if is_external(tensor):
                changed = True
                where = source.range_of(tensor)
                if where.length >= EXTERNAL_FROM:
                    data.copy(tensor, source)
                else:
                    _take_in(tensor, b"".join(source.blocks(where)))
        names = (data.path.name,) if data.written else ()
    if changed:
        save_graph(graph, path)
    else:
        shutil.copyfile(model.path, path)
    if file_stamps(model.files()) != model.stamps:
        raise ModelError("changed while it was read", where=model.path, hint="build again")
    files = ModelFiles(path=path, nodes=model.nodes, data=names)
    for file in files.files():
        file.chmod(0o444)
    return files


def prepare(
    model: ModelFiles,
    shapes: Mapping[str, tuple[int, ...]],
    folder: Path,
    widen: Mapping[str, str] | None = None,
) -> tuple[ModelFiles, Mapping[tuple[str, str], int]]:
    """A model like `model` that compilers take.

    Shapes are fixed, initializers constant, narrow types widened, and no name is used in two graphs. Gives
    its files, those of `model` itself if nothing has to change, and what `widen_weights` rewrote.

    Args:
        model: the model.
        shapes: as in `ComponentSpec.shapes`.
        folder: an empty folder that takes the prepared copy; weights that are not rewritten are linked.
        widen: type to the one that it is rewritten into (`widen_weights`, `widen_bfloat16`).

    Raises:
        ShapeError: a shape does not fit the input that it names.
        UnknownName: there is no such input or symbolic dimension.
        ModelError: weights cannot be read, or it takes more than protobuf allows.
    """
    graph = load_graph(model.path)
    changed = _separate_initializers(graph)
    changed |= separate_names(graph)
    open_before = open_dimensions(graph)
    low_bits = {narrow: wide for narrow, wide in (widen or {}).items() if narrow != BFLOAT16}
    with DataFile(folder / "widened.data") as data:
        widened = widen_weights(graph, low_bits, model.path.parent, data) if low_bits else {}
        if widen and BFLOAT16 in widen:
            widen_bfloat16(graph, model.path.parent, data)
            changed = True
    if open_dimensions(fix_shapes(graph, shapes)) == open_before and not changed and not widened:
        return model, widened
    return write_beside(graph, model, folder / "prepared.onnx"), widened


def write_beside(graph: onnx.ModelProto, model: ModelFiles, path: Path) -> ModelFiles:
    """Write a graph that was made of `model`, and link those of its data files that are still used.

    Args:
        graph: to write.
        model: whose weights it refers to.
        path: of the new model, in a folder that may hold weights of its own.

    Raises:
        ModelError: it takes more than protobuf allows.
    """
    save_graph(graph, path)
    used = {each.location for each in _ranges(graph, path)}
    for name in model.data:
        if name in used:
            _link(model.path.parent / name, path.parent / name)
    return ModelFiles(path=path, nodes=count_nodes(graph), data=tuple(sorted(used)))


def data_names(path: Path) -> tuple[str, ...]:
    """The names of the data files of a model of ours, in order.

    Raises:
        ModelError: it cannot be read.
    """
    return tuple(sorted({each.location for each in _ranges(load_graph(path), path)}))


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


def _take_in(tensor: onnx.TensorProto, values: bytes) -> None:
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")
    tensor.raw_data = values


def _ranges(graph: onnx.ModelProto, path: Path) -> Iterator[DataRange]:
    folder = ModelFolder(path)
    return (folder.range_of(tensor) for tensor in all_tensors(graph) if is_external(tensor))


def _used_ranges(graph: onnx.ModelProto, path: Path) -> list[DataRange]:
    """What the model uses of its data files, in order, without overlaps; each is there.

    Raises:
        ModelError: a file is not there, or too short.
    """
    by_file: defaultdict[str, list[DataRange]] = defaultdict(list)
    for each in sorted(set(_ranges(graph, path))):
        found = by_file[each.location]
        if found and each.offset <= found[-1].end:
            end = max(each.end, found[-1].end)
            found[-1] = DataRange(each.location, found[-1].offset, end - found[-1].offset)
        else:
            found.append(each)
    total = sum(each.length for found in by_file.values() for each in found)
    if total > _MAX_DATA:
        raise ModelError(f"has {total} bytes of external data", where=path, expected=f"at most {_MAX_DATA}")
    folder = ModelFolder(path)
    for location, found in sorted(by_file.items()):
        folder.check(location, found[-1].end)
    return [each for _, found in sorted(by_file.items()) for each in found]


def _digest(path: Path, ranges: Iterable[DataRange]) -> tuple[str, int]:
    """sha256 and size of a model's file and of what it uses of its data files."""
    digest, size = hashlib.sha256(), 0
    folder = ModelFolder(path)
    try:
        with open_regular(Path(os.path.realpath(path))) as stream:
            while block := stream.read(_CHUNK):
                digest.update(block)
                size += len(block)
        for each in ranges:
            for block in folder.blocks(each):
                digest.update(block)
                size += len(block)
    except OSError as error:
        raise ModelError(error.strerror or str(error), where=path, hint="it is part of the model") from None
    return digest.hexdigest(), size


def _link(source: Path, link: Path) -> None:
    try:
        os.link(source, link)
    except OSError:
        # On another file system. A symbolic link would not do: ORT refuses data outside the model's folder.
        shutil.copyfile(source, link)
