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

    def __init__(self, emitter: Emitter, score_type: int = onnx.TensorProto.FLOAT) -> None:
        self.emitter = emitter
        #: The ``TensorProto`` type of the scores, in which a quotient of integers is computed.
        self.score_type = score_type
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
        return Tensor(
            self,
            self.emitter.constant(array),
            onnx.helper.np_dtype_to_tensor_dtype(array.dtype),
            nonnegative=array.dtype.kind in "iuf" and bool((array >= 0).all()),
        )


@dataclass(frozen=True, eq=False)
class Tensor:
    """A value in a graph that is being written.

    Arithmetic, comparisons and ``&``, ``|``, ``~`` broadcast as in numpy. As in Python, ``//`` and ``%``
    round towards minus infinity, and ``/`` of two integers is a fraction.
    """

    trace: Trace = field(repr=False)
    name: str
    element_type: int
    #: No element is below zero, as far as is known while tracing.
    nonnegative: bool = False

    def _together(self, *others: Operand) -> list[Tensor]:
        """This tensor and the others in one element type."""
        inputs = [self, *(self.trace.lift(other, self) for other in others)]
        kinds = {tensor.element_type for tensor in inputs}
        if len(kinds) > 1:
            # Positions are integers and scores are not: a mixed pair is computed in the type of the score.
            floats = kinds & FLOATS
            if len(floats) != 1 or BOOL in kinds:
                names = [onnx.TensorProto.DataType.Name(kind).lower() for kind in sorted(kinds)]
                raise FlexError(
                    "two element types meet in a mod",
                    found=" and ".join(names),
                    hint="cast one of them with .like(other)",
                )
            (common,) = floats
            inputs = [tensor.cast(common) for tensor in inputs]
        return inputs

    def _op(self, op_type: str, *others: Operand, out: int | None = None, **attributes: Any) -> Tensor:
        inputs = self._together(*others)
        name = self.trace.emitter.op(op_type, *(tensor.name for tensor in inputs), **attributes)
        known = [tensor.nonnegative for tensor in inputs]
        return Tensor(
            self.trace,
            name,
            inputs[0].element_type if out is None else out,
            nonnegative=(
                op_type in _NEVER_NEGATIVE
                or (op_type in _KEEP_NONNEGATIVE and all(known))
                or (op_type == "Max" and any(known))
            ),
        )

    def cast(self, element_type: int) -> Tensor:
        """The value in another ``TensorProto`` element type."""
        if element_type == self.element_type:
            return self
        name = self.trace.emitter.op("Cast", self.name, to=element_type)
        return Tensor(self.trace, name, element_type, nonnegative=self.nonnegative)

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
        first, second = self._together(other)
        if first.element_type in FLOATS:
            return first._op("Div", second)
        # ONNX's division of integers truncates; in Python this one is a fraction.
        return first.cast(self.trace.score_type)._op("Div", second.cast(self.trace.score_type))

    def __floordiv__(self, other: Operand) -> Tensor:
        first, second = self._together(other)
        if first.nonnegative and second.nonnegative and first.element_type not in FLOATS:
            return first._op("Div", second)
        # Exact, and so is its quotient: ONNX's division of integers truncates, and that of floats rounds,
        # which may go past the next whole number.
        whole = (first - first % second)._op("Div", second)
        return whole.round() if first.element_type in FLOATS else whole

    def __mod__(self, other: Operand) -> Tensor:
        first, second = self._together(other)
        if first.element_type not in FLOATS:
            # Its remainder has the sign of the divisor, as Python's.
            return first._op("Mod", second, fmod=0)
        rest = first._op("Mod", second, fmod=1)
        if first.nonnegative and second.nonnegative:
            return rest
        # C's remainder has the sign of the dividend.
        if second.nonnegative:
            return where(rest < 0.0, rest + second, rest)
        return where((rest != 0.0) & ((rest < 0.0) != (second < 0.0)), rest + second, rest)

    def __radd__(self, other: Operand) -> Tensor:
        return self.trace.lift(other, self) + self

    def __rsub__(self, other: Operand) -> Tensor:
        return self.trace.lift(other, self) - self

    def __rmul__(self, other: Operand) -> Tensor:
        return self.trace.lift(other, self) * self

    def __rtruediv__(self, other: Operand) -> Tensor:
        return self.trace.lift(other, self) / self

    def __rfloordiv__(self, other: Operand) -> Tensor:
        return self.trace.lift(other, self) // self

    def __rmod__(self, other: Operand) -> Tensor:
        return self.trace.lift(other, self) % self

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
                self.trace,
                emitter.op("Gather", self.name, index.cast(INT64).name, axis=0),
                self.element_type,
                nonnegative=self.nonnegative,
            )
        # One flat index instead of GatherND's stacked ones: a lookup stays elementwise in the index.
        place = index[0].cast(INT64)
        for axis, item in enumerate(index[1:], start=1):
            size = Tensor(self.trace, emitter.op("Shape", self.name, start=axis, end=axis + 1), INT64)
            place = place * size + item.cast(INT64)
        flat = emitter.op("Reshape", self.name, emitter.ints(-1))
        name = emitter.op("Gather", flat, place.name, axis=0)
        return Tensor(self.trace, name, self.element_type, nonnegative=self.nonnegative)


#: Operators whose result is not negative, whatever their inputs are.
_NEVER_NEGATIVE = frozenset({"Abs", "Exp", "Sqrt"})
#: Operators whose result is not negative if no input is.
_KEEP_NONNEGATIVE = frozenset({"Add", "Div", "Floor", "Min", "Mod", "Mul", "Round"})


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
        found.append(
            Tensor(trace, emitter.op("Reshape", line, emitter.ints(*shape)), INT64, nonnegative=True)
        )
    return found


def element_type_of(dtype: str) -> int:
    if dtype == "bfloat16":
        return int(onnx.TensorProto.BFLOAT16)
    try:
        return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    except (TypeError, ValueError, KeyError):
        raise FlexError(f"{dtype!r} is no element type", expected="a numpy name or bfloat16") from None
