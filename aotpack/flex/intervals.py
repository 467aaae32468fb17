"""Evaluating a program on intervals: between which bounds every value must lie, whatever scores and data are.

This is how a mask is found without trusting its name or sampling: a score is put in as everything from the
lowest to the highest finite number, a captured value as anything, and where the upper bound of the result is
-inf the pair is masked for certain. The same rules run on whole blocks, positions being intervals too, which
settles most of a mask without looking at its elements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import ml_dtypes
import numpy as np
import onnx

from aotpack.flex.emit import FLOATS, Array, numpy_type
from aotpack.flex.program import Program, Value, run_node

__all__ = ["Interval", "anything", "evaluate", "exactly"]

#: Scores are taken to be finite and within this: sums with a bias then stay finite too.
HIGHEST_SCORE = 1e30


class Interval(NamedTuple):
    """Inclusive bounds, numbers as float64 and truth values as booleans; `exact` where both are one array."""

    low: Array
    high: Array
    exact: Array | None = None


def exactly(value: Array) -> Interval:
    """The interval that holds one known value."""
    plain = value if value.dtype == np.bool_ else value.astype(np.float64)
    return Interval(plain, plain, value)


def anything(value: Value) -> Interval:
    """The interval of a value of which nothing is known but its type."""
    if value.element_type == onnx.TensorProto.BOOL:
        return Interval(np.array(False), np.array(True))
    if value.kind == "score":
        limit = min(HIGHEST_SCORE, _limits(value.element_type)[1])
        return Interval(np.array(-limit), np.array(limit))
    return Interval(np.array(-np.inf), np.array(np.inf))


def evaluate(program: Program, leaf: Callable[[Value], Interval]) -> Interval:
    """The bounds of the program's result.

    Args:
        program: of a mod.
        leaf: gives the interval of each value that is not a step.

    """
    found: list[Interval] = []
    with np.errstate(all="ignore"):
        for value in program.values:
            if value.node is None:
                found.append(leaf(value))
            else:
                inputs = [None if i is None else found[i] for i in value.inputs]
                found.append(_step(program, value, value.node, inputs))
    return found[-1]


def _step(
    program: Program, value: Value, node: onnx.NodeProto, inputs: Sequence[Interval | None]
) -> Interval:
    given = [item for item in inputs if item is not None]
    if all(item.exact is not None for item in given):
        names = [name for name in node.input if name]
        arrays = {name: item.exact for name, item in zip(names, given, strict=True) if item.exact is not None}
        return exactly(run_node(node, arrays, program.opset)[0])
    rule = _RULES.get(node.op_type)
    if rule is None or len(given) != len(inputs):
        return anything(Value(kind="step", shape=(), element_type=value.element_type))
    integer = value.element_type not in FLOATS
    low, high = rule(node, integer, *given)
    if low.dtype == np.bool_:
        return Interval(low, high)
    lost = np.isnan(low) | np.isnan(high)
    if lost.any():
        low, high = np.where(lost, -np.inf, low), np.where(lost, np.inf, high)
    if not integer:
        # The target rounds in its own type: bounds that were computed in float64 are widened by its rounding.
        slack = 8 * _limits(value.element_type)[0]
        low, high = low - slack * _finite(low), high + slack * _finite(high)
    return Interval(low, high)


def _finite(bound: Array) -> Array:
    return np.where(np.isfinite(bound), np.abs(bound), 0.0)


def _limits(element_type: int) -> tuple[float, float]:
    """The rounding and the largest number of a floating-point type."""
    info: Any = ml_dtypes.finfo(numpy_type(element_type))  # type: ignore[no-untyped-call]
    return float(info.eps), float(info.max)


_Bounds: TypeAlias = tuple[Array, Array]
_Rule: TypeAlias = Callable[..., _Bounds]


def _increasing(function: Callable[[Array], Array]) -> _Rule:
    return lambda node, integer, x: (function(x.low), function(x.high))


def _corners(function: Callable[[Array, Array], Array]) -> _Rule:
    def rule(node: onnx.NodeProto, integer: bool, x: Interval, y: Interval) -> _Bounds:
        corners = [function(a, b) for a in x[:2] for b in y[:2]]
        # np.minimum passes NaN on, which the caller turns into "anything".
        return _fold(np.minimum, corners), _fold(np.maximum, corners)

    return rule


def _fold(function: Any, items: Sequence[Array]) -> Array:
    first = items[0]
    for item in items[1:]:
        first = function(first, item)
    return np.asarray(first)


def _div(node: onnx.NodeProto, integer: bool, x: Interval, y: Interval) -> _Bounds:
    low, high = _corners(np.divide)(node, integer, x, y)
    unsafe = (y.low <= 0) & (y.high >= 0)
    low, high = np.where(unsafe, np.nan, low), np.where(unsafe, np.nan, high)
    return (np.trunc(low), np.trunc(high)) if integer else (low, high)


def _mod(node: onnx.NodeProto, integer: bool, x: Interval, y: Interval) -> _Bounds:
    # By one positive number; all else is anything. C's remainder of a negative number is negative.
    like_c = any(item.name == "fmod" and item.i for item in node.attribute)
    signed = (x.low >= 0) if like_c else np.isfinite(x.low)
    known = signed & (y.low == y.high) & (y.low > 0) & np.isfinite(x.high)
    size = np.where(known, y.low, 1.0)
    same = np.floor_divide(x.low, size) == np.floor_divide(x.high, size)
    low = np.where(same, np.mod(x.low, size), 0.0)
    high = np.where(same, np.mod(x.high, size), size)
    return np.where(known, low, np.nan), np.where(known, high, np.nan)


def _abs(node: onnx.NodeProto, integer: bool, x: Interval) -> _Bounds:
    low, high = np.abs(x.low), np.abs(x.high)
    crosses = (x.low <= 0) & (x.high >= 0)
    return np.where(crosses, 0.0, np.minimum(low, high)), np.maximum(low, high)


def _where(node: onnx.NodeProto, integer: bool, c: Interval, x: Interval, y: Interval) -> _Bounds:
    low = np.where(c.low, x.low, np.where(c.high, np.minimum(x.low, y.low), y.low))
    high = np.where(c.low, x.high, np.where(c.high, np.maximum(x.high, y.high), y.high))
    return low, high


def _cast(node: onnx.NodeProto, integer: bool, x: Interval) -> _Bounds:
    to = next(item.i for item in node.attribute if item.name == "to")
    if to == onnx.TensorProto.BOOL:
        if x.low.dtype == np.bool_:
            return x.low, x.high
        return (x.low > 0) | (x.high < 0), (x.low != 0) | (x.high != 0)
    low, high = x.low.astype(np.float64), x.high.astype(np.float64)
    return (np.trunc(low), np.trunc(high)) if integer else (low, high)


def _equal(node: onnx.NodeProto, integer: bool, x: Interval, y: Interval) -> _Bounds:
    always = (x.low == x.high) & (y.low == y.high) & (x.low == y.low)
    return always, ~((x.high < y.low) | (y.high < x.low)) if x.low.dtype != np.bool_ else _may_equal(x, y)


def _may_equal(x: Interval, y: Interval) -> Array:
    return np.asarray(~((x.low == x.high) & (y.low == y.high) & (x.low != y.low)))


def _clip(node: onnx.NodeProto, integer: bool, x: Interval, *limits: Interval) -> _Bounds:
    low, high = x.low, x.high
    if limits:
        low, high = np.maximum(low, limits[0].low), np.maximum(high, limits[0].high)
    if limits[1:]:
        low, high = np.minimum(low, limits[1].low), np.minimum(high, limits[1].high)
    return low, high


def _gather(node: onnx.NodeProto, integer: bool, x: Interval, index: Interval) -> _Bounds:
    return x.low.min(), x.high.max()


def _each(function: Any) -> _Rule:
    return lambda node, integer, *x: (
        _fold(function, [i.low for i in x]),
        _fold(function, [i.high for i in x]),
    )


_RULES: dict[str, _Rule] = {
    "Abs": _abs,
    "Add": _each(np.add),
    "And": _each(np.logical_and),
    "Cast": _cast,
    "Ceil": _increasing(np.ceil),
    "Clip": _clip,
    "Div": _div,
    "Equal": _equal,
    "Exp": _increasing(np.exp),
    "Floor": _increasing(np.floor),
    "Gather": _gather,
    "Greater": lambda node, integer, x, y: (x.low > y.high, x.high > y.low),
    "GreaterOrEqual": lambda node, integer, x, y: (x.low >= y.high, x.high >= y.low),
    "Identity": _increasing(lambda x: x),
    "Less": lambda node, integer, x, y: (x.high < y.low, x.low < y.high),
    "LessOrEqual": lambda node, integer, x, y: (x.high <= y.low, x.low <= y.high),
    "Log": _increasing(np.log),
    "Max": _each(np.maximum),
    "Min": _each(np.minimum),
    "Mod": _mod,
    "Mul": _corners(np.multiply),
    "Neg": lambda node, integer, x: (-x.high, -x.low),
    "Not": lambda node, integer, x: (~x.high, ~x.low),
    "Or": _each(np.logical_or),
    "Relu": _increasing(lambda x: np.maximum(x, 0)),
    "Round": _increasing(np.round),
    "Sigmoid": _increasing(lambda x: 1 / (1 + np.exp(-x))),
    "Sqrt": _increasing(np.sqrt),
    "Sub": lambda node, integer, x, y: (x.low - y.high, x.high - y.low),
    "Sum": _each(np.add),
    "Tanh": _increasing(np.tanh),
    "Where": _where,
}
