"""Sizes that people use models with, by what exporters call dimensions and how inputs are laid out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aotpack.manifest.values import TensorInfo
from aotpack.selection.dimensions import expression

__all__ = ["IMAGES", "Dimension", "UsualSize", "usual_sizes"]

#: A dimension: its symbol or, where it has none, its input and axis.
Dimension = str | tuple[str, int]

#: By words of a dimension's name: its size, and what it is taken for. The first that matches counts.
_BY_NAME: tuple[tuple[str, int, str], ...] = (
    (r"past|cache", 128, "tokens in the cache"),
    (r"batch", 1, "one at a time"),
    (r"channel", 3, "colours"),
    (r"audio|sample|wave", 16000, "a second of sound at 16 kHz"),
    (r"frame|time", 100, "a second of frames of 10 ms"),
    (r"seq|token|length|(?:^|_)len", 128, "tokens"),
)
#: Words for the whole of a sequence and its cache.
_TOTAL = re.compile(r"total|kv_?len", re.IGNORECASE)
_HEIGHT = re.compile(r"height|^h$", re.IGNORECASE)
#: Of classifiers, which give a vector for an image, and of models that give something for each place in it.
_CLASSIFIER, _DETECTOR = 224, 640
#: Of one line of text; the width of an image whose height is fixed and as low as one.
_LINE_HEIGHT, _LINE_WIDTH = 64, 320
#: What is tried where an image of a usual size is refused: one line of text, then small ones.
IMAGES = ((48, 320), (224, 224), (32, 32))
#: Colours of an image.
_COLOURS = (1, 3, 4)
#: Pixels of one side that metadata are believed.
_MOST_PIXELS = 8192


@dataclass(frozen=True, slots=True)
class UsualSize:
    """One size, and why it was chosen."""

    size: int
    why: str


def usual_sizes(
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
    metadata: Mapping[str, str],
    image: tuple[int, int] | None = None,
) -> dict[Dimension, UsualSize]:
    """Sizes of those open dimensions of `inputs` that are known by name or place; expressions are left out.

    Args:
        inputs: of a model.
        outputs: of it; what it gives for an image says of what size that is.
        metadata: custom metadata; Ultralytics writes ``imgsz`` there.
        image: height and width of images of which nothing is known (`IMAGES`); by default by the outputs.
    """
    found: dict[Dimension, UsualSize] = {}
    for info in inputs:
        for dimension, size in _of_image(info, outputs, metadata, image).items():
            found.setdefault(dimension, size)
    named = dict.fromkeys(dim for info in inputs for dim in info.shape or () if isinstance(dim, str))
    for text in named:
        follows = expression(text)
        for name in sorted(follows.names) if follows is not None else [text]:
            usual = _by_name(name)
            if usual is not None:
                found.setdefault(name, usual)
    for info in inputs:
        # Ids and masks whose axes have no names.
        if info.dtype.startswith("int") and len(info.shape or ()) == 2 and re.search("ids|mask", info.name):
            for axis, size in enumerate((UsualSize(1, "one at a time"), UsualSize(128, "tokens"))):
                if (info.shape or ())[axis] is None:
                    found[info.name, axis] = size
    # A sequence and its cache, each once, whatever else is called like them.
    parts = {size.why: size.size for size in found.values() if size.why.startswith("tokens")}
    for text in named if parts else ():
        if _TOTAL.search(text) and expression(text) is None:
            found[text] = UsualSize(sum(parts.values()), "all tokens")
    return found


def _by_name(name: str) -> UsualSize | None:
    if _TOTAL.search(name):
        return None
    for words, size, why in _BY_NAME:
        if re.search(words, name, re.IGNORECASE):
            return UsualSize(size, why)
    return None


def _of_image(
    info: TensorInfo,
    outputs: Sequence[TensorInfo],
    metadata: Mapping[str, str],
    image: tuple[int, int] | None,
) -> dict[Dimension, UsualSize]:
    """Height and width of an input that is an image: (batch, colours, height, width), or colours last."""
    shape = info.shape or ()
    if len(shape) != 4 or not info.dtype.startswith(("float", "uint8")):
        return {}
    named = [axis for axis, dim in enumerate(shape) if isinstance(dim, str) and _HEIGHT.search(dim)]
    if named and named[0] < 3:
        first = named[0]
    elif shape[1] in _COLOURS or _is_colours(shape[1]):
        first = 2
    elif shape[3] in _COLOURS or _is_colours(shape[3]):
        first = 1
    else:
        return {}
    height, width = shape[first], shape[first + 1]
    given = _given_size(metadata)
    if given is not None:
        sizes, why = given, "pixels, as its metadata say"
    elif isinstance(height, int):
        sizes = (height, _LINE_WIDTH if height <= _LINE_HEIGHT else height)
        why = "pixels of a line of text" if height <= _LINE_HEIGHT else "pixels of a square image"
    elif isinstance(width, int):
        sizes, why = (width, width), "pixels of a square image"
    elif image is not None:
        sizes, why = image, "pixels, a guess"
    else:
        vector = bool(outputs) and all(len(each.shape or ()) == 2 for each in outputs)
        side = _CLASSIFIER if vector else _DETECTOR
        sizes, why = (side, side), f"pixels, usual for what gives {'a class' if vector else 'places'}"
    found: dict[Dimension, UsualSize] = {}
    for axis, size in zip((first, first + 1), sizes, strict=True):
        dim = shape[axis]
        if not isinstance(dim, int):
            found[dim if dim is not None else (info.name, axis)] = UsualSize(size, why)
    return found


def _is_colours(dim: int | str | None) -> bool:
    return isinstance(dim, str) and "channel" in dim.lower()


def _given_size(metadata: Mapping[str, str]) -> tuple[int, int] | None:
    """``imgsz`` of Ultralytics' metadata: ``[640, 640]``, height first."""
    text = metadata.get("imgsz", "")
    try:
        found = json.loads(text) if len(text) < 64 else None
    except ValueError:
        return None
    sides = [side for side in (found if isinstance(found, list) else [found]) if type(side) is int]
    if not 1 <= len(sides) <= 2 or not all(0 < side <= _MOST_PIXELS for side in sides):
        return None
    return sides[0], sides[-1]
