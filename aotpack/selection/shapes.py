"""Sizes of inputs: given by a user, bound to what a model leaves open, and held to what a variant takes.

A user gives shapes as a map: the name of an input to all of its sizes, or the name of a symbolic dimension to
its one size. Sizes that follow from others (`aotpack.selection.dimensions`) are worked out.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

from aotpack._text import clipped
from aotpack.errors import ShapeError, UnknownName, UsageError
from aotpack.manifest.values import Component, TensorInfo, Variant
from aotpack.selection.dimensions import expression, solve

__all__ = [
    "MAX_DIMENSION",
    "MAX_ELEMENTS",
    "Bound",
    "Sizes",
    "Wanted",
    "bind",
    "checked_shapes",
    "dimension_names",
    "fixed_axes",
    "is_fixed",
    "other_shapes",
    "parse_shape",
    "shape_text",
    "symbols",
    "takes",
]

#: Of an input as it was compiled: a size, a symbolic name, or None where nothing is known.
Sizes = tuple[int | str | None, ...]

#: What a user gives; numpy's integers are integers too.
Wanted = Mapping[str, "int | Sequence[int]"]

#: One size of a tensor. Kernels count elements in 32 bits.
MAX_DIMENSION = 2**31 - 1
#: Elements of one input: to check a variant, each is made up. At four bytes each, these are 8 GiB.
MAX_ELEMENTS = 2**31 - 1

#: As on a command line; sizes that make no sense are told so by `checked_shapes`.
_SHAPE = re.compile(r"(?P<name>.+?)=(?P<sizes>-?[0-9]{1,20}(?:[,x]-?[0-9]{1,20}){0,63}|)")

_NO_PLACES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Bound:
    """What given shapes mean for a model."""

    #: Input name to its shape; None: of any rank.
    shapes: Mapping[str, Sizes | None]
    #: Symbolic dimension, or the text of an expression, to its size.
    sizes: Mapping[str, int]

    def size(self, dimension: str) -> int | None:
        """The size of a symbolic dimension or an expression of such, if it is known."""
        known = self.sizes.get(dimension)
        if known is None and (follows := expression(dimension)) is not None:
            known = follows.value(self.sizes)
        return known if known is not None and known >= 1 else None


def checked_shapes(
    shapes: Wanted, places: Mapping[str, str] = _NO_PLACES, *, what: str = "shape"
) -> dict[str, tuple[int, ...]]:
    """`shapes` as plain integers.

    Args:
        shapes: as a user gives them.
        places: ``shapes.NAME`` to where in a file it was said.
        what: what they are called in errors where no place is known.

    Raises:
        ShapeError: a size is 0 or less.
        UsageError: a size is no whole number, or too large; `shapes` is no mapping.
    """
    if not isinstance(shapes, Mapping):
        raise UsageError(
            "is no dict of shapes",
            where="shapes",
            found=repr(shapes),
            expected='one such as {"input": (1, 576)}',
        )
    checked = {}
    for name, given in shapes.items():
        where = places.get(f"shapes.{name}", f"{what} {clipped(name, 80)}")
        try:
            # A text would be a sequence of its letters.
            if isinstance(given, str | bytes):
                raise TypeError
            many = given if isinstance(given, Iterable) else (given,)
            sizes = tuple(_whole(size) for size in many)
        except TypeError:
            raise UsageError(
                "is no shape", where=where, found=repr(given), expected="whole numbers such as (1, 576)"
            ) from None
        for size in sizes:
            if size < 1:
                raise ShapeError(f"has a size of {size}", where=where, expected="sizes of 1 and more")
        if max(sizes, default=1) > MAX_DIMENSION:
            raise UsageError("has a size that is too large", where=where, expected=f"at most {MAX_DIMENSION}")
        if math.prod(sizes) > MAX_ELEMENTS:
            raise UsageError("has too many elements", where=where, expected=f"at most {MAX_ELEMENTS} in all")
        checked[name] = sizes
    return checked


def parse_shape(texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Read ``NAME=1,576`` (an input) and ``batch=1`` (a symbolic dimension); ``NAME=`` is a scalar.

    Raises:
        UsageError: a text is of another form, or a name occurs twice.
        ShapeError: a size is 0 or less.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        match = _SHAPE.fullmatch(text)
        if match is None:
            raise UsageError(
                "is not a shape", where=f"--shape {text}", expected="NAME=SIZE[,SIZE…] such as input=1,576"
            )
        sizes: Sequence[str] = re.split("[,x]", match["sizes"]) if match["sizes"] else ()
        if match["name"] in shapes:
            raise UsageError("is given twice", where=f"--shape {match['name']}")
        shapes |= checked_shapes({match["name"]: tuple(int(size) for size in sizes)}, what="--shape")
    return shapes


def _whole(size: object) -> int:
    if isinstance(size, bool):
        raise TypeError
    return operator.index(size)  # type: ignore[arg-type]


def bind(
    inputs: Iterable[TensorInfo],
    shapes: Mapping[str, tuple[int, ...]],
    places: Mapping[str, str] = _NO_PLACES,
    *,
    what: str = "shape",
) -> Bound:
    """Give inputs their shapes, and every size that follows from them.

    Args:
        inputs: of a model.
        shapes: input name to its shape, or symbolic dimension to its one size (`checked_shapes`).
        places: ``shapes.NAME`` to where in a file it was said.
        what: what a shape is called in errors where no place is known.

    Raises:
        ShapeError: a shape does not fit its input, or two sizes contradict each other.
        UnknownName: there is no such input or symbolic dimension.
    """
    binding = _Binding(tuple(inputs), places, what)
    for name, shape in shapes.items():
        binding.take(name, shape)
    binding.derive()
    return binding.result()


class _Binding:
    def __init__(self, inputs: tuple[TensorInfo, ...], places: Mapping[str, str], what: str) -> None:
        self._inputs = {info.name: info for info in inputs}
        self._places = places
        self._what = what
        self._given: dict[str, tuple[int, ...]] = {}
        #: Symbol to its size and where that was said.
        self._sizes: dict[str, tuple[int, str]] = {}
        self._symbols = [name for name in symbols(inputs) if name not in self._inputs]
        #: Called like an input.
        self._also_inputs = {name for name in symbols(inputs) if name in self._inputs}
        self._expressions = [found for text in self._symbols if (found := expression(text)) is not None]

    def take(self, name: str, shape: tuple[int, ...]) -> None:
        """What was said of an input or a symbolic dimension."""
        place = self._places.get(f"shapes.{name}")
        where = place or f"{self._what} {clipped(name, 80)}"
        rank = len(self._inputs[name].shape or ()) if name in self._inputs else None
        if name in self._also_inputs and len(shape) == 1 and rank != 1:
            self._set(name, shape[0], where)
        elif name in self._inputs:
            self._take_input(self._inputs[name], shape, where)
        elif name in self._symbols:
            if len(shape) != 1:
                raise ShapeError("is one dimension", where=where, expected="one size")
            self._set(name, shape[0], where)
        else:
            unknown = UnknownName("input or symbolic dimension", name, [*self._inputs, *self._symbols])
            raise unknown.at(place) if place else unknown

    def _take_input(self, info: TensorInfo, shape: tuple[int, ...], where: str) -> None:
        self._given[info.name] = shape
        if info.shape is None:
            return
        if len(info.shape) != len(shape):
            raise ShapeError(
                f"has {len(shape)} sizes", where=where, expected=f"{len(info.shape)}, the rank of the input"
            )
        for own, size in zip(info.shape, shape, strict=True):
            if isinstance(own, str):
                self._set(own, size, where)
            elif own is not None and own != size:
                raise ShapeError(f"sets a size of {own} to {size}", where=where)

    def _set(self, name: str, size: int, where: str) -> None:
        known, before = self._sizes.setdefault(name, (size, where))
        if known != size:
            raise ShapeError(f"makes {name!r} both {known} and {size}", where=where, hint=f"as {before} says")

    def derive(self) -> None:
        """Sizes that follow from others, until no more do."""
        before = -1
        while before != len(self._sizes):
            before = len(self._sizes)
            for each in self._expressions:
                self._derive(each.text)

    def _derive(self, text: str) -> None:
        follows = expression(text)
        assert follows is not None
        sizes = {name: size for name, (size, _) in self._sizes.items()}
        known = sizes.get(text)
        value = follows.value(sizes)
        if value is None:
            found = None if known is None else solve(follows, known, sizes)
            if found is not None:
                self._solved(text, *found)
            return
        where = next(self._sizes[name][1] for name in sorted(follows.names))
        if value < 1:
            raise ShapeError(f"makes {text!r} {value}", where=where, expected="sizes of 1 and more")
        if known is not None and known != value:
            said = ", ".join(f"{name} = {sizes[name]}" for name in sorted(follows.names))
            raise ShapeError(
                f"makes {text!r} {known}", where=self._sizes[text][1], expected=f"{value}, since {said}"
            )
        self._set(text, value, where)

    def _solved(self, text: str, name: str, size: Fraction) -> None:
        """What a size of an expression says of the only name in it that has none."""
        known, where = self._sizes[text]
        if size.denominator != 1 or size < 0:
            raise ShapeError(
                f"makes {text!r} {known}",
                where=where,
                hint=f"with the other sizes no {name!r} gives that",
            )
        # A cache that is empty at first has a size of 0, which nobody compiles for: it stays open.
        if size:
            self._set(name, int(size), where)

    def result(self) -> Bound:
        """All that is known now."""
        sizes = {name: size for name, (size, _) in self._sizes.items()}
        shapes = {name: self._shape(info, sizes) for name, info in self._inputs.items()}
        return Bound(shapes, sizes)

    def _shape(self, info: TensorInfo, sizes: Mapping[str, int]) -> Sizes | None:
        if info.name in self._given:
            return self._given[info.name]
        if info.shape is None:
            return None
        return tuple(sizes.get(size, size) if isinstance(size, str) else size for size in info.shape)


def dimension_names(inputs: Iterable[TensorInfo]) -> tuple[str, ...]:
    """All that a shape can be given for: inputs and symbolic dimensions, those in expressions too."""
    inputs = tuple(inputs)
    return tuple(dict.fromkeys((*(info.name for info in inputs), *symbols(inputs))))


def symbols(inputs: Iterable[TensorInfo]) -> tuple[str, ...]:
    """The symbolic dimensions of inputs, those in expressions too."""
    found: dict[str, None] = {}
    for info in inputs:
        for size in info.shape or ():
            if isinstance(size, str):
                found[size] = None
                follows = expression(size)
                found |= dict.fromkeys(sorted(follows.names) if follows is not None else ())
    return tuple(found)


def fixed_axes(variant: Variant) -> int:
    """How many axes that the model leaves open the variant was compiled with a size for."""
    return sum(isinstance(size, int) for shape in (variant.shapes or {}).values() for size in shape or ())


def is_fixed(shape: Sizes | None) -> bool:
    """Whether every size of a shape is known."""
    return shape is not None and all(isinstance(size, int) for size in shape)


def other_shapes(variant: Variant, component: Component, wanted: Bound) -> tuple[str, str] | None:
    """The first input that `variant` takes in another shape than is wanted: (what it takes, what is wanted).

    None where it takes them. Where it does not say what it was compiled for, what the model takes counts.
    """
    own = {info.name: info.shape for info in component.inputs} | dict(variant.shapes or {})
    for name, shape in wanted.shapes.items():
        if not _fits(own.get(name), shape):
            return f"{name} {shape_text(own[name])}", f"{name} {shape_text(shape)}"
    return None


def takes(own: Iterable[TensorInfo], given: Iterable[TensorInfo]) -> bool:
    """Whether inputs of the sizes of `given` can be fed to `own`, as far as is known of both."""
    shapes = {info.name: info.shape for info in own}
    return all(_fits(shapes.get(info.name), info.shape) for info in given)


def _fits(own: Sizes | None, given: Sizes | None) -> bool:
    if own is None or given is None:
        return True
    return len(own) == len(given) and all(
        not isinstance(mine, int) or not isinstance(size, int) or mine == size
        for mine, size in zip(own, given, strict=True)
    )


def shape_text(shape: Sizes | None) -> str:
    """A shape for people: ``1x576``, ``?`` for a size that is not known, ``[batch, 576]``, ``scalar``."""
    if shape is None:
        return "any shape"
    if any(isinstance(size, str) for size in shape):
        return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"
    return "x".join("?" if size is None else str(size) for size in shape) or "scalar"
