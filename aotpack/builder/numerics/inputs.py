"""Inputs that fit a model, made up from the types, shapes and names of its inputs.

One function serves `aotpack build`, `run`, `tune` and `check`. What decides is whether the model runs on them
and gives finite numbers: `WAYS` are tried in their order (`find_inputs`). Names are those that exporters and
the ecosystem use: Hugging Face's ``input_ids`` and ``attention_mask``, ``*_lengths`` of speech models,
``sr``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from aotpack.builder.numerics.values import Array, leaves
from aotpack.common.vendor_text import brief
from aotpack.errors import ModelError
from aotpack.manifest.values import TensorInfo

__all__ = [
    "WAYS",
    "Found",
    "Hint",
    "Hints",
    "Way",
    "dtype_of_ort",
    "find_inputs",
    "made_inputs",
    "session_inputs",
]


@dataclass(frozen=True, slots=True)
class Hint:
    """What a graph says of the values of one of its inputs (`aotpack.builder.numerics.hints`)."""

    #: Exclusive: the input indexes something of this size, such as a table of embeddings.
    below: int | None = None
    #: Values that the graph compares the input with.
    choices: tuple[int | float, ...] = ()
    #: Keys of a map that the graph knows.
    keys: tuple[int | str, ...] = ()


#: Input name to what is known of it.
Hints = Mapping[str, Hint]
_NO_HINTS: Hints = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to draw inputs."""

    #: Of integers that nothing is known of, exclusive.
    below: int = 256
    #: Sizes that the model leaves open are chosen by their names; else they are 1.
    sizes: bool = True
    #: Of floating point inputs that nothing is known of.
    floats: str = "normal"
    #: Values are chosen by the names of inputs.
    names: bool = True
    #: Of the elements of a sequence, of which ONNX Runtime says no shape.
    rank: int = 1


#: In the order in which they are tried.
WAYS: tuple[Way, ...] = (
    Way(),
    Way(sizes=False),
    Way(floats="unit"),
    Way(floats="unit", sizes=False),
    Way(below=2),
    Way(below=2, sizes=False),
    Way(floats="small"),
    Way(rank=2),
    Way(rank=3),
    Way(rank=4),
    Way(names=False),
    Way(names=False, sizes=False),
    Way(names=False, sizes=False, floats="unit", below=2),
    Way(names=False, sizes=False, floats="unit", below=1),
)


@dataclass(frozen=True, slots=True)
class Found:
    """Inputs on which a model runs."""

    way: Way
    feeds: Mapping[str, Any]
    outputs: Sequence[Any]
    #: All floating point outputs are finite.
    finite: bool


def find_inputs(
    run: Callable[[Mapping[str, Any]], Sequence[Any]],
    inputs: Sequence[TensorInfo],
    hints: Hints = _NO_HINTS,
    *,
    given: Mapping[str, Any] = MappingProxyType({}),
    seed: int = 0,
) -> Found:
    """The first inputs on which `run` succeeds with finite outputs, else those with most finite elements.

    Args:
        run: the model; takes feeds, gives outputs, raises if it refuses.
        inputs: of the model.
        hints: what its graph says of them.
        given: inputs that are not made up.
        seed: as for `made_inputs`.

    Raises:
        ModelError: an input is of a type that cannot be made up, or the model refuses all that were.
    """
    best: tuple[float, Found] | None = None
    refused: Exception | None = None
    tried: list[dict[str, Any]] = []
    for way in WAYS:
        made = {**made_inputs(inputs, seed=seed, way=way, hints=hints, given=given), **given}
        feeds = {info.name: made[info.name] for info in inputs}
        if any(_equal(feeds, before) for before in tried):
            continue
        tried.append(feeds)
        try:
            outputs = run(feeds)
        except Exception as error:
            # Whatever a runtime raises: these are not the inputs that it takes. The first refusal is kept,
            # since later ways are less and less like what people give to such a model.
            refused = refused or error
            continue
        share = _finite_share(outputs)
        if best is None or share > best[0]:
            best = share, Found(way, feeds, outputs, share == 1.0)
        if share == 1.0:
            break
    if best is None:
        said = brief(str(refused))
        raise ModelError(f"the model refuses the inputs that were made up for it: {said}") from refused
    return best[1]


def _equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    ours, theirs = ([leaf for value in feeds.values() for leaf in leaves(value)] for feeds in (one, other))
    return len(ours) == len(theirs) and all(
        a[0] == b[0] and a[1].dtype == b[1].dtype and np.array_equal(a[1], b[1])
        for a, b in zip(ours, theirs, strict=True)
    )


def _finite_share(outputs: Sequence[Any]) -> float:
    """Of elements of floating point; an output that has none of them counts once for all of its elements."""
    shares = []
    for output in outputs:
        try:
            arrays = [array for _, array in leaves(output)]
        except (TypeError, ValueError, SyntaxError):
            # numpy reads some texts as lists of types.
            continue
        floats = [array for array in arrays if np.issubdtype(array.dtype, np.inexact) and array.size]
        shares += [float(np.isfinite(array.astype(np.float32, copy=False)).mean()) for array in floats]
    return sum(shares) / len(shares) if shares else 1.0


def made_inputs(
    inputs: Sequence[TensorInfo],
    *,
    seed: int = 0,
    way: Way = WAYS[0],
    hints: Hints = _NO_HINTS,
    given: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Inputs for a model, the same for the same arguments on every machine.

    Args:
        inputs: names, dtypes and shapes. A dtype is numpy's name, or ONNX Runtime's of what is no tensor,
            such as ``seq(tensor(float))``.
        seed: of numpy's PCG64.
        way: how values are drawn.
        hints: what the graph says of them.
        given: inputs that are not made; sizes that they fix are fixed for the others too.

    Raises:
        ModelError: an input is of a type that numpy has no numbers for.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    shapes = _shapes(inputs, way, given)
    return {
        info.name: _value(info, shapes, way, hints.get(info.name, Hint()), random)
        for info in inputs
        if info.name not in given
    }


# Sizes ------------------------------------------------------------------------------------------------------

#: Of open sizes, by words of their symbolic names. The first that matches counts.
_SIZES: tuple[tuple[str, int], ...] = (
    (r"past|cache", 0),
    (r"batch|^[bn]$", 1),
    (r"height|width|^[hw]$", 64),
    (r"channel|^c$", 3),
    (r"sample|audio|wave", 1600),
    (r"frame|time|^t$", 32),
    (r"seq|length|len|token|^[sl]$", 16),
)


def _shapes(inputs: Sequence[TensorInfo], way: Way, given: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    known: dict[str, int] = {}
    for info in inputs:
        array = given.get(info.name)
        if isinstance(array, np.ndarray) and array.ndim == len(info.shape or ()):
            known |= {
                dim: size
                for dim, size in zip(info.shape or (), array.shape, strict=True)
                if isinstance(dim, str)
            }
    return {
        info.name: tuple(_size(dim, known, way, info, axis) for axis, dim in enumerate(info.shape or ()))
        for info in inputs
    }


def _size(dim: int | str | None, known: dict[str, int], way: Way, info: TensorInfo, axis: int) -> int:
    if isinstance(dim, int):
        # Exporters write 0 and -1 for "not known".
        return dim if dim > 0 else 1
    if not way.sizes:
        return 1
    if dim is None:
        # An image without sizes: (batch, channels, height, width).
        return 64 if len(info.shape or ()) == 4 and axis >= 2 else 1
    if dim in known:
        return known[dim]
    parts = [part.strip() for part in dim.split("+")]
    if len(parts) > 1:
        # `past_sequence_length + sequence_length`, as Optimum and mobius write it.
        return max(
            1, sum(int(part) if part.isdecimal() else _size(part, known, way, info, axis) for part in parts)
        )
    if re.search("total", dim):
        return _size("past_sequence + sequence_length", known, way, info, axis)
    size = next((size for pattern, size in _SIZES if re.search(pattern, dim.lower())), 1)
    known[dim] = size
    return size


# Values -----------------------------------------------------------------------------------------------------

_WORDS = ("alpha", "beta", "gamma", "a", "hello world", "42")
_RATES = (16000,)
#: Of a map.
_FEW_KEYS = 8


def _value(
    info: TensorInfo, shapes: Mapping[str, tuple[int, ...]], way: Way, hint: Hint, random: np.random.Generator
) -> Any:
    sequence = re.fullmatch(r"seq\(tensor\((\w+)\)\)", info.dtype)
    optional = re.fullmatch(r"optional\((.*)\)", info.dtype)
    if optional:
        inner = info.replace(dtype=dtype_of_ort(optional[1]))
        return _value(inner, shapes, way, hint, random)
    if sequence:
        element = TensorInfo(
            name=info.name, dtype=dtype_of_ort(f"tensor({sequence[1]})"), shape=info.shape or (2,) * way.rank
        )
        sized = {**shapes, info.name: _shapes([element], way, {})[info.name]}
        return [_value(element, sized, way, hint, random) for _ in range(2)]
    if mapping := re.fullmatch(r"map\((int64|string),tensor\(float\)\)", info.dtype):
        keys = hint.keys or (range(_FEW_KEYS) if mapping[1] == "int64" else _WORDS)
        return dict(zip(keys, random.standard_normal(len(keys)).tolist(), strict=True))
    shape = shapes[info.name]
    if info.dtype in ("string", "object", "str"):
        return np.array(random.choice(_WORDS, shape), dtype=object)
    try:
        dtype = np.dtype(info.dtype)
    except (TypeError, ValueError, SyntaxError):
        # The last two, since numpy reads some texts as lists of types.
        raise ModelError(
            f"inputs of type {info.dtype} cannot be made up", where=f"input {info.name!r}"
        ) from None
    if dtype.kind not in "fbiu":
        raise ModelError(f"inputs of type {info.dtype} cannot be made up", where=f"input {info.name!r}")
    if dtype.kind == "f":
        return np.asarray(_floats(info.name.lower(), shape, way, hint, random)).astype(dtype)
    if dtype.kind == "b":
        masked = way.names and re.search("mask", info.name.lower())
        flags = np.ones(shape, bool) if masked else np.asarray(random.integers(0, 2, shape)).astype(bool)
        # Optimum's merged decoders: without a past there is no cache to use.
        return np.zeros(shape, bool) if way.names and "use_cache" in info.name else flags
    return _integers(info.name.lower(), dtype, shapes, info.name, way, hint, random)


def _floats(
    name: str, shape: tuple[int, ...], way: Way, hint: Hint, random: np.random.Generator
) -> Array | np.floating[Any] | float:
    if way.names:
        if hint.choices:
            return np.full(shape, hint.choices[0])
        if "mask" in name:
            # One that is added to scores hides nothing at 0, one that is multiplied at 1.
            return np.zeros(shape) if len(shape) > 2 else np.ones(shape)
        if re.search(r"(^|_)(thresh\w*|iou\w*|score_thr\w*)$", name):
            return np.full(shape, 0.5)
        if re.search(r"scale|temperature|speed|speaking_rate|ratio", name):
            return random.uniform(0.6, 1.0, shape)
        if re.search(r"(^|_)(state|h0?|c0?|hidden|cell|past|cache|memory)(_|\.|$)|past_key|cache", name):
            return 0.1 * random.standard_normal(shape)
        if re.search(r"timestep", name):
            return random.uniform(0, 999, shape)
        if _is_image(shape):
            return random.uniform(0, 1, shape)
        if re.search(r"audio|wav|speech|pcm|sound", name):
            return _sound(shape, random)
    if way.floats == "unit":
        return random.uniform(0, 1, shape)
    if way.floats == "small":
        return 0.01 * random.standard_normal(shape)
    return random.standard_normal(shape)


def _is_image(shape: tuple[int, ...]) -> bool:
    """(batch, 1 or 3, height, width), or the channels last."""
    return len(shape) == 4 and (
        (shape[1] in (1, 3) and min(shape[2:]) >= 8) or (shape[3] in (1, 3) and min(shape[1:3]) >= 8)
    )


def _sound(shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """Three tones and some noise, between -1 and 1."""
    axis = int(np.argmax(shape)) if shape else 0
    time = np.arange(shape[axis] if shape else 1) / _RATES[0]
    tones = sum(
        np.sin(2 * np.pi * pitch * time + phase)
        for pitch, phase in random.uniform((80, 0), (2000, 6), (3, 2))
    )
    along = np.asarray(0.2 * tones).reshape([-1 if index == axis else 1 for index in range(len(shape))])
    return np.clip(along + 0.05 * random.standard_normal(shape), -1, 1)


def _integers(
    name: str,
    dtype: np.dtype[Any],
    shapes: Mapping[str, tuple[int, ...]],
    own: str,
    way: Way,
    hint: Hint,
    random: np.random.Generator,
) -> Array:
    shape, limits = shapes[own], np.iinfo(dtype)
    below = min(hint.below if hint.below else way.below, int(limits.max))

    def drawn(low: int, high: int) -> Array:
        return np.asarray(random.integers(low, max(low + 1, high), shape)).astype(dtype)

    if way.names:
        if hint.choices:
            return np.full(shape, hint.choices[0]).astype(dtype)
        if re.search(r"(^|_)(sr|sample_rate|sampling_rate)$", name):
            return np.full(shape, min(_RATES[0], int(limits.max))).astype(dtype)
        if "total_seq" in name:
            return np.full(shape, _longest(shapes, own), dtype)
        if "seqlens_k" in name:
            return np.full(shape, max(0, _longest(shapes, own) - 1), dtype)
        if re.search(r"(^|_)(lens?|lengths?|seq_len\w*)$", name):
            return np.full(shape, max(1, min(_length(shapes, own), int(limits.max))), dtype)
        if "attention_mask" in name:
            return np.ones(shape, dtype)
        if "mask" in name:
            return drawn(0, 2)
        if re.search(r"position|pos_ids", name) and shape:
            return np.broadcast_to(np.arange(shape[-1]) % (hint.below or limits.max), shape).astype(dtype)
        if re.search(r"token_type|segment", name):
            return drawn(0, min(2, below))
        if re.search(r"(^|_)(sid|speaker\w*|lang\w*)$", name):
            return drawn(0, min(below, 1))
        if dtype.itemsize == 1 and hint.below is None and way.below > 2:
            # Bytes of images and texts, or quantised values.
            return drawn(int(limits.min), int(limits.max) + 1)
    return drawn(0, below)


def _length(shapes: Mapping[str, tuple[int, ...]], own: str) -> int:
    """What a length says of the input that shares its name, or of the others: their longest axis."""
    stem = re.sub(r"_?(lens?|lengths?|seq_len\w*)$", "", own.lower())
    for name, shape in shapes.items():
        if name != own and stem and (name.lower() == stem or name.lower().startswith(stem)) and shape:
            return max(shape[1:] or shape)
    return _longest(shapes, own)


def _longest(shapes: Mapping[str, tuple[int, ...]], own: str) -> int:
    sequences = [shape[1] for name, shape in shapes.items() if name != own and len(shape) == 2]
    return max(sequences or [max(shape) for name, shape in shapes.items() if name != own and shape] or [1])


# Types ------------------------------------------------------------------------------------------------------


def dtype_of_ort(name: str) -> str:
    """The dtype of a `TensorInfo` for a type as ONNX Runtime says it.

    ``tensor(float)`` is ``float32``, ``tensor(string)`` is ``string``; what is no tensor stays as it is.
    """
    tensor = re.fullmatch(r"tensor\((\w+)\)", name)
    if tensor is None:
        return name
    return {"float": "float32", "double": "float64"}.get(tensor[1], tensor[1])


def session_inputs(values: Sequence[Any]) -> Iterator[TensorInfo]:
    """The inputs of a session (`onnxruntime.InferenceSession.get_inputs`)."""
    for value in values:
        shape = value.shape if value.type.startswith(("tensor", "optional(tensor")) else None
        yield TensorInfo(
            name=value.name, dtype=dtype_of_ort(value.type), shape=None if shape is None else tuple(shape)
        )
