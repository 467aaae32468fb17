"""Inputs of the user's: ``.npz`` files of arrays by input name, one a sample, or folders of such files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aotpack.errors import UsageError

if TYPE_CHECKING:
    from aotpack.builder.numerics.values import Array
    from aotpack.manifest.values import TensorInfo

__all__ = [
    "OtherSizes",
    "as_input",
    "check_samples",
    "read_array",
    "read_sample",
    "sample_files",
    "write_feeds",
    "write_samples",
]

#: More than this many tell nothing new, and each is run five times and more.
_MOST_SAMPLES = 256


class OtherSizes(UsageError):
    """An array has the rank of its input, and other sizes."""


def sample_files(paths: Iterable[Path]) -> list[Path]:
    """The ``.npz`` files of `paths`; those of a folder in the order of their names.

    Raises:
        UsageError: one is not there, a folder has none, or there are too many.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(each for each in path.iterdir() if each.suffix == ".npz")
            if not inside:
                raise UsageError("holds no inputs", where=path, expected="files named *.npz")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UsageError("is not there", where=path, expected="a .npz file, or a folder of them")
    if len(found) > _MOST_SAMPLES:
        raise UsageError("are too many samples", found=len(found), expected=f"at most {_MOST_SAMPLES}")
    return found


def read_sample(path: Path, inputs: Sequence[TensorInfo], *, some: bool = False) -> dict[str, Array]:
    """One file's arrays by input name, each of the type and rank of its input.

    Args:
        path: the ``.npz`` file. An element of a sequence is called ``name[0]``.
        inputs: of the model.
        some: not all inputs have to be there.

    Raises:
        UsageError: it cannot be read, or does not fit the inputs.
    """
    arrays = _load(path, "a .npz file, nothing pickled")
    if not isinstance(arrays, dict):
        raise UsageError(
            "is no file of inputs", where=path, found="one array without a name", expected="a .npz file"
        )
    known = {info.name: info for info in inputs}
    fitting: dict[str, Array] = {}
    for name, array in arrays.items():
        plain = name if name in known else name.rpartition("[")[0]
        if plain not in known:
            raise UsageError(
                f"has an array {name!r}, which is no input",
                where=path,
                expected=", ".join(known) or "no inputs",
            )
        fitting[name] = as_input(array, known[plain], f"{path}: {name}", part=plain != name)
    missing = [name for name in known if name not in fitting and f"{name}[0]" not in fitting]
    if missing and not some:
        raise UsageError(f"lacks inputs: {', '.join(missing)}", where=path)
    return fitting


def read_array(path: Path) -> Array:
    """The array of a ``.npy`` file.

    Raises:
        UsageError: it cannot be read, or holds several.
    """
    array = _load(path, "a .npy file, nothing pickled")
    if isinstance(array, dict):
        raise UsageError("is no file of one array", where=path, found="a .npz file", expected="a .npy file")
    return array


def _load(path: Path, expected: str) -> Array | dict[str, Array]:
    """The array of a ``.npy`` file, or the arrays of a ``.npz`` file by name.

    Raises:
        UsageError: it is neither.
    """
    import numpy as np

    try:
        # Opening a named pipe waits for its writer.
        if path.exists() and not path.is_file():
            raise OSError("no regular file")
        # numpy leaves open what it opens itself where that is a damaged archive.
        with path.open("rb") as opened:
            loaded: Any = np.load(opened, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            with loaded as file:
                arrays = {name: file[name] for name in file.files}
    except OSError as error:
        found: object = error.strerror or error
    except (ValueError, EOFError) as error:
        # numpy takes whatever it does not know for a pickle, and says how to load that.
        found = "neither .npz nor .npy, or pickled objects" if "pickle" in str(error) else error
    except Exception as error:
        # zipfile's and zlib's own; what they say is of no use to whoever wrote the file with numpy.
        found = f"a damaged file ({type(error).__name__})"
    else:
        # numpy gives the bytes of a member that is no .npy file.
        others = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
        if not others:
            return arrays
        found = f"{others[0]!r}, which is no array"
    raise UsageError("is no file of inputs", where=path, found=found, expected=expected)


def as_input(array: Array, info: TensorInfo, where: str, *, part: bool = False) -> Array:
    """`array` as an input: of its type, if that loses no kind of number, and of a shape that fits.

    Raises:
        OtherSizes: it is of other sizes.
        UsageError: it does not fit otherwise.
    """
    import numpy as np

    if info.dtype in ("string", "object", "str"):
        if array.dtype.kind not in "USO":
            raise UsageError("is of the wrong type", where=where, found=array.dtype, expected="strings")
        return array.astype(object)
    try:
        dtype = np.dtype(info.dtype)
    except (TypeError, ValueError, SyntaxError):
        # A sequence's element, or a type that numpy has no name for: the runtime will say.
        return array
    if array.dtype != dtype:
        kinds = {"f": "f", "i": "iu", "u": "iu", "b": "b"}
        if array.dtype.kind not in kinds.get(dtype.kind, ""):
            raise UsageError("is of the wrong type", where=where, found=array.dtype, expected=dtype)
        with np.errstate(over="ignore"):
            cast = array.astype(dtype)
        same = np.isfinite(cast) == np.isfinite(array) if dtype.kind == "f" else cast == array
        if not np.all(same):
            raise UsageError(
                "has numbers that its type cannot hold", where=where, found=array.dtype, expected=dtype
            )
        array = cast
    if info.shape is not None and not part:
        same_rank = len(info.shape) == array.ndim
        if not same_rank or any(
            isinstance(dim, int) and 0 < dim != size
            for dim, size in zip(info.shape, array.shape, strict=True)
        ):
            wanted = f"[{', '.join('?' if dim is None else str(dim) for dim in info.shape)}]"
            kind = OtherSizes if same_rank else UsageError
            raise kind("is of the wrong shape", where=where, found=list(array.shape), expected=wanted)
    return array


def check_samples(
    paths: Iterable[Path], inputs: Sequence[TensorInfo], sizes: Sequence[TensorInfo]
) -> str | None:
    """A digest of those of the user's inputs that have the sizes of a component; None if there are no inputs.

    Args:
        paths: files and folders.
        inputs: of the model; each sample has to fit them.
        sizes: of the same inputs, with the component's sizes fixed; one sample at least has to fit them.

    Raises:
        UsageError: one does not fit the model, or none the component.
    """
    files = sample_files(paths)
    for path in files:
        read_sample(path, inputs)
    digest = hashlib.sha256()
    for _, arrays in _of_these_sizes(files, sizes):
        for name, array in sorted(arrays.items()):
            digest.update(f"{name}\0{array.dtype}\0{array.shape}\0".encode())
            digest.update(str(array.tolist()).encode() if array.dtype == object else array.tobytes())
    return digest.hexdigest() if files else None


def write_samples(paths: Iterable[Path], sizes: Sequence[TensorInfo], output: Path) -> None:
    """Write those of the user's inputs that fit `sizes`, for `numerics.reference.make_reference`.

    Raises:
        UsageError: none fits.
    """
    write_feeds(((path.name, arrays) for path, arrays in _of_these_sizes(sample_files(paths), sizes)), output)


def _of_these_sizes(
    files: Iterable[Path], sizes: Sequence[TensorInfo]
) -> Iterator[tuple[Path, dict[str, Array]]]:
    """The samples that are not of other sizes. A folder may hold those of several buckets and targets.

    Raises:
        OtherSizes: all are.
    """
    other: OtherSizes | None = None
    fits = False
    for path in files:
        try:
            arrays = read_sample(path, sizes)
        except OtherSizes as error:
            other = other or error
            continue
        fits = True
        yield path, arrays
    if other is not None and not fits:
        raise other


def write_feeds(samples: Iterable[tuple[str, Mapping[str, Any]]], output: Path) -> None:
    """Write samples, each with a name for errors."""
    from aotpack.builder.numerics.values import ArrayWriter

    names: list[str] = []
    with ArrayWriter(output) as writer:
        for index, (name, arrays) in enumerate(samples):
            names.append(name)
            for key, array in arrays.items():
                writer.put(f"{index}/in/{key}", array)
        writer.put_json("names", names)
        writer.put_json("count", len(names))
