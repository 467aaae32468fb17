"""Inputs and outputs of a session as named arrays: tensors, sequences, maps, optionals, strings.

A value becomes a list of *leaves*, pairs of a path and an array: ``""`` for a tensor, ``[0]``, ``[1]`` … for
the elements of a sequence, ``{keys}`` and ``{values}`` for a map, ``?`` for an optional without a value.
"""

from __future__ import annotations

import itertools
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "ArrayFile", "ArrayWriter", "compare_all", "feeds_of", "is_text", "leaves"]

#: An array of any element type.
Array = npt.NDArray[Any]

#: Behind the key of an array of strings in a file: its bytes are JSON.
_STRINGS = "#strings"


def is_text(array: Array) -> bool:
    """Whether the elements of an array are strings."""
    return array.dtype.kind in "OUS"


def leaves(value: object) -> list[tuple[str, Array]]:
    """The arrays of which a session's input or output consists, each with its path.

    Raises:
        TypeError: a value is of a kind that is not known here, such as a sparse tensor.
    """
    return list(_leaves(value, ""))


def _leaves(value: object, path: str) -> Iterator[tuple[str, Array]]:
    if value is None:
        yield f"{path}?", np.zeros(0, bool)
    elif isinstance(value, np.ndarray | np.generic | bool | int | float | str):
        yield path, np.asarray(value, dtype=object if isinstance(value, str) else None)
    elif isinstance(value, Mapping):
        yield from _map_leaves(value, path)
    elif isinstance(value, list | tuple):
        if value and all(isinstance(item, Mapping) and item.keys() == value[0].keys() for item in value):
            yield from _map_leaves({key: [item[key] for item in value] for key in value[0]}, path)
            return
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}[{index}]")
    else:
        raise TypeError(f"a value of type {type(value).__name__} cannot be compared")


def _map_leaves(value: Mapping[Any, Any], path: str) -> Iterator[tuple[str, Array]]:
    keys = sorted(value)
    text = any(isinstance(key, str) for key in keys)
    yield f"{path}{{keys}}", np.array(keys, dtype=object if text else None)
    try:
        # The key is the last axis: the channels of what is stacked.
        stacked = np.stack([np.asarray(value[key]) for key in keys], axis=-1) if keys else np.zeros(0)
    except ValueError:
        for key in keys:
            yield from _leaves(value[key], f"{path}[{key!r}]")
        return
    yield f"{path}{{values}}", stacked


class ArrayWriter:
    """Writes arrays into an ``.npz`` file one by one, so that they need not be in memory together.

    Args:
        path: of the file.
        more: add to one that is there.
    """

    def __init__(self, path: Path, *, more: bool = False) -> None:
        self._file = zipfile.ZipFile(path, "a" if more else "w", zipfile.ZIP_STORED, allowZip64=True)

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def put(self, key: str, array: Array) -> None:
        """Write one array. Strings are written as JSON: nothing is pickled."""
        if is_text(array):
            document = {"shape": array.shape, "values": [_as_text(item) for item in array.reshape(-1)]}
            self.put_json(f"{key}{_STRINGS}", document)
            return
        with self._file.open(f"{key}.npy", "w", force_zip64=True) as stream:
            np.lib.format.write_array(stream, np.asanyarray(array), allow_pickle=False)

    def put_json(self, key: str, document: object) -> None:
        """Write a JSON document as an array of bytes."""
        self.put(key, np.frombuffer(json.dumps(document).encode(), np.uint8))


def _as_text(item: object) -> str:
    return item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)


class ArrayFile:
    """Reads what an `ArrayWriter` wrote; an array is read when it is asked for."""

    def __init__(self, path: Path) -> None:
        self._file = np.load(path, allow_pickle=False)
        self.keys: tuple[str, ...] = tuple(self._file.files)

    def __enter__(self) -> ArrayFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def get(self, key: str) -> Array:
        """One array.

        Raises:
            KeyError: there is none of that name.
        """
        if f"{key}{_STRINGS}" in self.keys:
            document = self.get_json(f"{key}{_STRINGS}")
            return np.array(document["values"], dtype=object).reshape(document["shape"])
        array: Array = self._file[key]
        return array

    def get_json(self, key: str) -> Any:
        """A document that `ArrayWriter.put_json` wrote."""
        return json.loads(self._file[key].tobytes())

    def under(self, prefix: str) -> Iterator[tuple[str, Array]]:
        """All arrays whose keys start with `prefix`, with the rest of their keys, as they were written."""
        for key in self.keys:
            if key.startswith(prefix):
                plain = key.removesuffix(_STRINGS)
                yield plain.removeprefix(prefix), self.get(plain)


def feeds_of(arrays: Iterable[tuple[str, Array]], inputs: Iterable[str]) -> dict[str, Any]:
    """The feeds of a session out of leaves whose keys are an input's name and a path.

    Args:
        arrays: such as ``ids`` for a tensor, ``parts[0]`` for an element of a sequence, ``hint?`` for
            nothing, ``words{keys}`` and ``words{values}`` for a map.
        inputs: names of the session's inputs; others are left out.
    """
    found = dict(arrays)
    feeds: dict[str, Any] = {}
    for name in inputs:
        if name in found:
            feeds[name] = found[name]
        elif f"{name}?" in found:
            feeds[name] = None
        elif f"{name}[0]" in found:
            count = next(index for index in range(len(found) + 1) if f"{name}[{index}]" not in found)
            feeds[name] = [found[f"{name}[{index}]"] for index in range(count)]
        elif f"{name}{{keys}}" in found:
            keys, values = (found[f"{name}{{{part}}}"].tolist() for part in ("keys", "values"))
            feeds[name] = dict(zip(keys, values, strict=True))
    return feeds


def compare_all(
    pairs: Sequence[tuple[str, Array]], reference: Sequence[tuple[str, Array]]
) -> Iterator[tuple[str, Array, Array]]:
    """Leaves of the same path side by side; a path that one of them lacks comes with an empty array."""
    ours, theirs = dict(pairs), dict(reference)
    for path in itertools.chain(theirs, (path for path in ours if path not in theirs)):
        yield path, ours.get(path, np.zeros(0)), theirs.get(path, np.zeros(0))
