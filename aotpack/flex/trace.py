"""Tensors that write down what is done with them, so that a Python function becomes an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx

from aotpack.errors import FlexError
from aotpack.flex.emit import FLOATS, Array, Emitter, numpy_type

__all__ = ["Capture", "Operand", "Table", "Tensor", "maximum", "minimum", "where"]

INT64 = onnx.TensorProto.INT64
BOOL = onnx.TensorProto.BOOL


@dataclass(frozen=True, kw_only=True)
class Capture:
    """A value that a mod takes from outside, known at run time only: an explicit input of the model.

    Index it with the indices a mod is given: ``doc[b, q]`` for a shape of (batch, length).

    Args:
        name: of the input.
        dtype: numpy's name, or ``bfloat16``.
        shape: sizes or symbolic names.

    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    @property
    def element_type(self) -> int:
        """The ``TensorProto`` type."""
        return element_type_of(self.dtype)

    def __getitem__(self, index: Tensor | tuple[Tensor, ...]) -> Tensor:
        first = index[0] if isinstance(index, tuple) else index
        return first.trace.lift(self, first)[index]


@dataclass(frozen=True, eq=False)
class Table:
    """A constant that a mod indexes: ``Table(slopes)[h]``."""

    value: Array

    def __getitem__(self, index: Tensor | tuple[Tensor, ...]) -> Tensor:
        first = index[0] if isinstance(index, tuple) else index
        return first.trace.lift(self, first)[index]


class Trace:
    """Where the nodes of one graph are written while a function runs over its tensors."""

    def __init__(self, emitter: Emitter) -> None:
        self.emitter = emitter
        self.captures: dict[str, Capture] = {}

    def lift(self, value: Operand, like: Tensor) -> Tensor:
        """`value` as a tensor of this trace; Python numbers take the type of `like`."""
        if isinstance(value, Tensor):
            return value
        if isinstance(value, Capture):
            if self.captures.setdefault(value.name, value) != value:
                raise FlexError("is captured with two types", where=value.name)
            return Tensor(self, value.name, value.element_type)
        if isinstance(value, Table):
            value = value.value
        if isinstance(value, bool | np.bool_):
            array = np.asarray(value)
        elif isinstance(value, int | float):
            element = like.element_type
            if isinstance(value, float) and element not in FLOATS:
                raise FlexError(f"a tensor of integers meets {value!r}; cast it with .like(score) first")
            array = np.asarray(value, numpy_type(element))
        else:
            array = np.asarray(value)
        return Tensor(self, self.emitter.constant(array), onnx.helper.np_dtype_to_tensor_dtype(array.dtype))


@dataclass(frozen=True, eq=False)
class Tensor:
    """A value in a graph that is being written.

    Arithmetic, comparisons and ``&``, ``|``, ``~`` broadcast as in numpy.
    """

    trace: Trace = field(repr=False)
    name: str
    element_type: int

    def _op(self, op_type: str, *others: Operand, out: int | None = None, **attributes: Any) -> Tensor:
        inputs = [self, *(self.trace.lift(other, self) for other in others)]
        kinds = {tensor.element_type for tensor in inputs}
        if len(kinds) > 1:
            # Positions are integers and scores are not: a mixed pair is computed in the type of the score.
            floats = kinds & FLOATS
            if len(floats) != 1 or BOOL in kinds:
                raise FlexError(f"{op_type} of two element types in a mod", found=sorted(kinds))
            (common,) = floats
            inputs = [tensor.cast(common) for tensor in inputs]
        name = self.trace.emitter.op(op_type, *(tensor.name for tensor in inputs), **attributes)
        return Tensor(self.trace, name, inputs[0].element_type if out is None else out)

    def cast(self, element_type: int) -> Tensor:
        """The value in another ``TensorProto`` element type."""
        if element_type == self.element_type:
            return self
        return Tensor(self.trace, self.trace.emitter.op("Cast", self.name, to=element_type), element_type)

    def like(self, other: Tensor) -> Tensor:
        """The value in the element type of `other`."""
        return self.cast(other.element_type)

    def __add__(self, other: Operand) -> Tensor:
        return self._op("Add", other)

    def __sub__(self, other: Operand) -> Tensor:
        return self._op("Sub", other)

    def __mul__(self, other: Operand) -> Tensor:
        return self._op("Mul", other)

    def __truediv__(self, other: Operand) -> Tensor:
        return self._op("Div", other)

    def __floordiv__(self, other: Operand) -> Tensor:
        """Of integers that are not negative; ONNX's division truncates."""
        return self._op("Div", other) if self.element_type not in FLOATS else self._op("Div", other).floor()

    def __mod__(self, other: Operand) -> Tensor:
        return self._op("Mod", other, fmod=int(self.element_type in FLOATS))

    def __radd__(self, other: Operand) -> Tensor:
        return self.trace.lift(other, self) + self

    def __rsub__(self, other: Operand) -> Tensor:
        return self.trace.lift(other, self) - self

    def __rmul__(self, other: Operand) -> Tensor:
        return self.trace.lift(other, self) * self

    def __rtruediv__(self, other: Operand) -> Tensor:
        return self.trace.lift(other, self) / self

    def __neg__(self) -> Tensor:
        return self._op("Neg")

    def __abs__(self) -> Tensor:
        return self._op("Abs")

    def __lt__(self, other: Operand) -> Tensor:
        return self._op("Less", other, out=BOOL)

    def __le__(self, other: Operand) -> Tensor:
        return self._op("LessOrEqual", other, out=BOOL)

    def __gt__(self, other: Operand) -> Tensor:
        return self._op("Greater", other, out=BOOL)

    def __ge__(self, other: Operand) -> Tensor:
        return self._op("GreaterOrEqual", other, out=BOOL)

    def __eq__(self, other: Operand) -> Tensor:  # type: ignore[override]
        return self._op("Equal", other, out=BOOL)

    def __ne__(self, other: Operand) -> Tensor:  # type: ignore[override]
        return ~(self == other)

    def __and__(self, other: Operand) -> Tensor:
        return self._op("And", other)

    def __or__(self, other: Operand) -> Tensor:
        return self._op("Or", other)

    def __invert__(self) -> Tensor:
        return self._op("Not")

    def __bool__(self) -> bool:
        raise FlexError("a mod branches in Python on a tensor", hint="use flex.where(condition, a, b)")

    def tanh(self) -> Tensor:
        """Elementwise."""
        return self._op("Tanh")

    def exp(self) -> Tensor:
        """Elementwise."""
        return self._op("Exp")

    def log(self) -> Tensor:
        """Elementwise, natural."""
        return self._op("Log")

    def sqrt(self) -> Tensor:
        """Elementwise."""
        return self._op("Sqrt")

    def floor(self) -> Tensor:
        """Elementwise."""
        return self._op("Floor")

    def round(self) -> Tensor:
        """Elementwise, halves to even."""
        return self._op("Round")

    def __getitem__(self, index: Tensor | tuple[Tensor, ...]) -> Tensor:
        """Pick by index tensors that broadcast against each other, one a dimension, none of them negative."""
        emitter = self.trace.emitter
        if isinstance(index, Tensor):
            return Tensor(
                self.trace, emitter.op("Gather", self.name, index.cast(INT64).name, axis=0), self.element_type
            )
        # One flat index instead of GatherND's stacked ones: a lookup stays elementwise in the index.
        place = index[0].cast(INT64)
        for axis, item in enumerate(index[1:], start=1):
            size = Tensor(self.trace, emitter.op("Shape", self.name, start=axis, end=axis + 1), INT64)
            place = place * size + item.cast(INT64)
        flat = emitter.op("Reshape", self.name, emitter.ints(-1))
        return Tensor(self.trace, emitter.op("Gather", flat, place.name, axis=0), self.element_type)


#: What can stand beside a tensor in an expression.
Operand: TypeAlias = "Tensor | Capture | Table | Array | bool | int | float"


def where(condition: Tensor, then: Operand, other: Operand) -> Tensor:
    """`then` where `condition` holds and `other` elsewhere; one of the two is a tensor."""
    tensor = then if isinstance(then, Tensor) else other
    if not isinstance(tensor, Tensor):
        raise FlexError("where needs a tensor as one of its two values")
    first, second = condition.trace.lift(then, tensor), condition.trace.lift(other, tensor)
    name = condition.trace.emitter.op("Where", condition.name, first.name, second.like(first).name)
    return Tensor(condition.trace, name, first.element_type)


def minimum(first: Tensor, *others: Operand) -> Tensor:
    """The smallest, elementwise."""
    return first._op("Min", *others)


def maximum(first: Tensor, *others: Operand) -> Tensor:
    """The largest, elementwise."""
    return first._op("Max", *others)


def indices(trace: Trace, scores: str, axes: Sequence[int]) -> list[Tensor]:
    """The position of every score along `axes`, each int64 of rank 4 with one dimension that is not 1."""
    emitter = trace.emitter
    found = []
    for axis in axes:
        length = emitter.op("Squeeze", emitter.op("Shape", scores, start=axis, end=axis + 1), emitter.ints(0))
        line = emitter.op("Range", emitter.constant(np.array(0)), length, emitter.constant(np.array(1)))
        shape = [1, 1, 1, 1]
        shape[axis] = -1
        found.append(Tensor(trace, emitter.op("Reshape", line, emitter.ints(*shape)), INT64))
    return found


def element_type_of(dtype: str) -> int:
    if dtype == "bfloat16":
        return int(onnx.TensorProto.BFLOAT16)
    try:
        return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    except (TypeError, ValueError, KeyError):
        raise FlexError(f"{dtype!r} is no element type", expected="a numpy name or bfloat16") from None
