"""Reading weights, and writing them into one file of ours beside a model, a block at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from aotpack._text import shortened
from aotpack.builder.models.external_data import DataRange, ModelFolder, is_external, tensor_size
from aotpack.errors import ModelError

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

__all__ = ["EXTERNAL_FROM", "DataFile", "read_weights", "set_values", "weight_blocks"]

#: Bytes from which values are kept outside of the graph. Smaller ones may be shapes, which compilers look at.
EXTERNAL_FROM = 1024
#: Data files are mapped, and a mapping begins at a page.
_PAGE = 4096
#: Bytes given to the system at a time, so that a Ctrl-C is heeded.
_COPY = 64 * 1024 * 1024


def read_weights(tensor: onnx.TensorProto, folder: Path) -> NDArray[Any]:
    """The values of `tensor`, whose external data lie in `folder`.

    Raises:
        ModelError: they cannot be read.
    """
    from onnx import numpy_helper

    try:
        if is_external(tensor):
            inside = type(tensor)(data_type=tensor.data_type, dims=tensor.dims, name=tensor.name)
            inside.raw_data = b"".join(weight_blocks(tensor, folder))
            tensor = inside
        return numpy_helper.to_array(tensor)
    except (ModelError, OSError, ValueError, TypeError, MemoryError) as error:
        raise ModelError(f"weights {shortened(tensor.name)} cannot be read: {error}") from error


def weight_blocks(tensor: onnx.TensorProto, folder: Path) -> Iterator[bytes]:
    """The bytes of a tensor's values, little-endian, in blocks of some MiB.

    Raises:
        ModelError: they cannot be read.
    """
    from onnx import numpy_helper

    if is_external(tensor):
        data = ModelFolder(folder / "model.onnx")
        yield from data.blocks(data.range_of(tensor))
    elif tensor.HasField("raw_data"):
        yield tensor.raw_data
    else:
        yield numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data


def set_values(tensor: onnx.TensorProto, kind: int, blocks: Iterable[bytes], data: DataFile | None) -> None:
    """Give `tensor` the values in `blocks` and the element type `kind`, in `data` if they are large."""
    name, dims = tensor.name, list(tensor.dims)
    made = type(tensor)(name=name, data_type=kind, dims=dims)
    size = tensor_size(made)
    if data is not None and size >= EXTERNAL_FROM:
        data.append(made, size, blocks)
    else:
        made.raw_data = b"".join(blocks)
    tensor.CopyFrom(made)


class DataFile:
    """A file of weights beside a model, written from front to back.

    It is made when the first weight is added, and is there for good when the block that it is used in ends
    without an error.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._size = 0
        self._copied: dict[DataRange, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def written(self) -> bool:
        """Whether there is a file."""
        return self._file is not None

    def append(self, tensor: onnx.TensorProto, size: int, blocks: Iterable[bytes]) -> None:
        """Write the values of `tensor`, `size` bytes of them, and let it refer to them.

        Raises:
            ModelError: there are more or fewer of them.
        """
        file, offset = self._begin()
        for block in blocks:
            file.write(block)
            self._size += len(block)
        if self._size - offset != size:
            raise ModelError(
                f"weights {shortened(tensor.name)} have {self._size - offset} bytes", expected=str(size)
            )
        self._refer(tensor, offset, size)

    def copy(self, tensor: onnx.TensorProto, folder: ModelFolder) -> None:
        """Copy the external values of `tensor` out of a model's folder, and let it refer to the copy.

        Raises:
            ModelError: they cannot be read.
        """
        where = folder.range_of(tensor)
        if where not in self._copied:
            file, offset = self._begin()
            with folder.open(where.location) as source:
                file.flush()
                self._size += _copy(source, where.offset, file, where.length)
            if self._size - offset != where.length:
                folder.check(where.location, where.end)
                raise ModelError("changed while it was read", where=folder.model, hint="build again")
            self._copied[where] = offset
        self._refer(tensor, self._copied[where], where.length)

    def _begin(self) -> tuple[BinaryIO, int]:
        if self._file is None:
            self._file = self.path.open("xb")
        gap = -self._size % _PAGE
        self._file.write(bytes(gap))
        self._size += gap
        return self._file, self._size

    def _refer(self, tensor: onnx.TensorProto, offset: int, length: int) -> None:
        tensor.ClearField("raw_data")
        tensor.ClearField("external_data")
        tensor.data_location = type(tensor).EXTERNAL
        for key, value in (("location", self.path.name), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))


def _copy(source: BinaryIO, offset: int, file: BinaryIO, length: int) -> int:
    """Append bytes of `source` to `file`, within the system where it can; gives how many there were."""
    copied = 0
    if hasattr(os, "copy_file_range"):
        try:
            while copied < length:
                count = os.copy_file_range(
                    source.fileno(), file.fileno(), min(length - copied, _COPY), offset + copied
                )
                if not count:
                    break
                copied += count
        except OSError:
            # On another file system, or on one that does not know how.
            pass
        file.seek(0, os.SEEK_END)
    source.seek(offset + copied)
    while copied < length and (block := source.read(min(length - copied, _COPY // 16))):
        file.write(block)
        copied += len(block)
    return copied
