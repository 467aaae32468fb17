"""Weights in files beside a model: which bytes they are, and reading them without trusting the model.

A model comes from somebody else, and it says which file holds a weight. Only regular files in the model's own
folder are read, or in the blob store of the Hugging Face hub cache that the folder belongs to; each is opened
without following links, and no more of it is read than the weight's type and dimensions ask for
(https://github.com/onnx/onnx/blob/main/docs/ExternalData.md).
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from aotpack._text import shortened
from aotpack.common.paths import MAX_PATH
from aotpack.errors import ModelError

if TYPE_CHECKING:
    import onnx

__all__ = ["DataRange", "ModelFolder", "is_external", "lfs_issue", "open_regular", "tensor_size"]

#: Bits of an element, by ONNX's name of its type, where that is not numpy's item size.
_BITS = {"INT2": 2, "UINT2": 2, "INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "BFLOAT16": 16}
_ONE_BYTE = frozenset(
    {"FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT8E8M0", "BOOL", "INT8", "UINT8"}
)
#: A byte offset or length, as text: 19 digits hold 2^63.
_NUMBER = re.compile(r"[0-9]{1,19}")
#: What the file that stands for one in Git LFS begins with.
_LFS = b"version https://git-lfs.github.com/spec/"
#: Bytes read at a time.
_BLOCK = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, order=True)
class DataRange:
    """The bytes of a weight."""

    #: Relative to the model's folder, as the model says it.
    location: str
    offset: int
    #: In bytes.
    length: int

    @property
    def end(self) -> int:
        """The offset of the first byte after it."""
        return self.offset + self.length


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether the values of `tensor` are in another file."""
    return tensor.data_location == type(tensor).EXTERNAL


def tensor_size(tensor: onnx.TensorProto) -> int:
    """Bytes of the values of `tensor`, by its type and dimensions.

    Raises:
        ModelError: a dimension is negative, or the type has no size in bytes.
    """
    from onnx import TensorProto, helper

    if any(dim < 0 for dim in tensor.dims):
        raise ModelError("has a negative dimension", where=_called(tensor), found=list(tensor.dims))
    names = TensorProto.DataType.values()
    kind = TensorProto.DataType.Name(tensor.data_type) if tensor.data_type in names else "UNDEFINED"
    if kind in ("UNDEFINED", "STRING"):
        raise ModelError(
            "has a type without a size in bytes", where=_called(tensor), found=f"{kind} {tensor.data_type}"
        )
    bits = _BITS.get(kind) or (
        8 if kind in _ONE_BYTE else 8 * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    )
    size: int = (math.prod(tensor.dims) * bits + 7) // 8
    return size


class ModelFolder:
    """The folder of a model, which its data files are read from.

    Args:
        model: the model's path. It may be a link; its data is looked for beside the link.
    """

    def __init__(self, model: Path) -> None:
        self.model = model
        self._folder = model.absolute().parent
        self._real = Path(os.path.realpath(self._folder))
        self._stores = _blob_stores(self._real, Path(os.path.realpath(model)).parent)

    def range_of(self, tensor: onnx.TensorProto) -> DataRange:
        """Where the values of `tensor` are. Reads no file.

        Raises:
            ModelError: what the model says of it is not well-formed, or leads out of the folder.
        """
        size = tensor_size(tensor)
        entries: dict[str, str] = {}
        for entry in tensor.external_data:
            if entry.key in entries:
                raise self._issue(tensor, f"says {shortened(str(entry.key))} twice")
            entries[entry.key] = entry.value
        location = self._location(tensor, entries.get("location", ""))
        numbers = {}
        for key in ("offset", "length"):
            text = entries.get(key, "0" if key == "offset" else str(size))
            if not isinstance(text, str) or not _NUMBER.fullmatch(text):
                raise self._issue(tensor, f"has {shortened(str(text))} as its {key}")
            numbers[key] = int(text)
        # Some exporters write 0 for "to the end of the file", which ONNX Runtime takes too.
        if numbers["length"] not in (0, size):
            raise self._issue(
                tensor, f"has a length of {numbers['length']} bytes; its type and dimensions make {size}"
            )
        return DataRange(location, numbers["offset"], size)

    def open(self, location: str) -> BinaryIO:
        """The data file at `location`, opened for reading.

        Raises:
            ModelError: it is missing, no regular file, or not in the folder.
        """
        path = self._folder / location
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(self._real) and real.parent not in self._stores:
            raise ModelError(
                "is a link out of the model's folder",
                where=path,
                found=real,
                hint="put the file itself there",
            )
        try:
            return open_regular(real)
        except OSError as error:
            raise ModelError(
                error.strerror or str(error), where=path, hint="it is part of the model"
            ) from None

    def check(self, location: str, end: int) -> int:
        """The size of a data file, of which `end` bytes are used.

        Raises:
            ModelError: as for `open`, or it has fewer bytes.
        """
        with self.open(location) as file:
            size = os.fstat(file.fileno()).st_size
            if size < end:
                path = self._folder / location
                if issue := lfs_issue(file.read(len(_LFS))):
                    raise ModelError(issue, where=path, hint="run `git lfs pull`")
                raise ModelError("is too short", where=path, found=f"{size} bytes", expected=f"{end} or more")
            return size

    def blocks(self, where: DataRange) -> Iterator[bytes]:
        """The bytes of a range, in blocks of some MiB.

        Raises:
            ModelError: as for `open`, or the file has fewer bytes.
        """
        with self.open(where.location) as file:
            file.seek(where.offset)
            left = where.length
            while left:
                block = file.read(min(_BLOCK, left))
                if not block:
                    self.check(where.location, where.end)
                    raise ModelError("changed while it was read", where=self._folder / where.location)
                left -= len(block)
                yield block

    def _location(self, tensor: onnx.TensorProto, location: str | bytes) -> str:
        # Some exporters on Windows write backslashes.
        plain = location.replace("\\", "/") if isinstance(location, str) else ""
        parts = [part for part in plain.split("/") if part != "."]
        if not isinstance(location, str) or not plain or len(plain) > MAX_PATH or "\0" in plain:
            raise self._issue(tensor, f"has {shortened(str(location))} as its location")
        # ExecutorPool than on Windows "w:0" is a file like others.
        drive = "[A-Za-z]:" if os.name == "nt" else "[A-Za-z]:/"
        if ".." in parts or "" in parts or re.match(drive, plain):
            raise self._issue(tensor, f"{shortened(location)} leaves the model's folder")
        return "/".join(parts)

    def _issue(self, tensor: onnx.TensorProto, what: str) -> ModelError:
        return ModelError(f"external data of {shortened(str(tensor.name))}: {what}", where=self.model)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file, and nothing that a read could block on or never end with.

    Raises:
        OSError: it is none, or cannot be opened.
    """
    # O_NONBLOCK: opening a FIFO without a writer would wait for one.
    flags = os.O_RDONLY
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY", "O_NOCTTY"):
        flags |= getattr(os, name, 0)
    descriptor = os.open(path, flags)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(21, "Is a directory")
        if not stat.S_ISREG(mode):
            raise OSError(22, "Is not a regular file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def lfs_issue(start: bytes) -> str | None:
    """What is wrong with a file that begins so, if it only stands for one in Git LFS."""
    return "is a Git LFS pointer, and not the file it stands for" if start.startswith(_LFS) else None


def _blob_stores(folder: Path, models: Path) -> tuple[Path, ...]:
    """The folders of a Hugging Face hub cache that may hold the files that `folder` has links to.

    There ``<repository>/snapshots/<revision>/model.onnx`` is a link to ``<repository>/blobs/<hash>``
    (https://huggingface.co/docs/huggingface_hub/guides/manage-cache).

    Args:
        folder: of the model, without links.
        models: the folder that the model itself is in when links are followed.
    """
    stores = [each.parent / "blobs" for each in folder.parents if each.name == "snapshots"]
    if models.name == "blobs":
        stores.append(models)
    # A store that is itself a link leads wherever the model's author wanted.
    return tuple(each for each in stores if each == Path(os.path.realpath(each)))


def _called(tensor: onnx.TensorProto) -> str:
    return f"tensor {shortened(str(tensor.name))}"
