"""Names of dimensions, and sizes that are expressions of others, such as ``past_length + sequence_length``.

To ONNX the name of a dimension is an opaque text (``dim_param``). Exporters write arithmetic into it: optimum
writes ``past_sequence_length + 1``, torch's dynamo exporter what sympy prints, such as ``2*s0`` or
``floor(s1/2)``. Some write a text that only says that a size is not known, the same for unrelated axes.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

__all__ = ["Expression", "expression", "is_anonymous", "solve"]

#: Characters of an expression; sympy's longest in real exports have some hundred.
_MAX_TEXT = 1024
#: Of parentheses in each other.
_MAX_DEPTH = 32
#: No size is larger, nor any value on the way to it.
_MAX_VALUE = 2**63

#: Texts that exporters write for "not known", each axis by itself.
_ANONYMOUS = frozenset({"none", "unk", "unknown", "dynamic", "any"})

_TOKEN = re.compile(r"\s*(?:(?P<number>\d{1,19})|(?P<name>[^\W\d][\w.:]*)|(?P<mark>\*\*|//|[-+*/%(),]))\s*")


def is_anonymous(name: str) -> bool:
    """Whether `name` names no dimension: two axes called ``?`` need not be of one size."""
    return not any(letter.isalpha() or letter == "_" for letter in name) or name.casefold() in _ANONYMOUS


@dataclass(frozen=True, slots=True)
class Expression:
    """A size that follows from others."""

    text: str
    #: Names that occur in it.
    names: frozenset[str]
    _value: Callable[[Mapping[str, int]], Fraction]

    def value(self, sizes: Mapping[str, int]) -> int | None:
        """The size, given those of the names; None where one is missing or no whole number comes out."""
        if not self.names <= sizes.keys():
            return None
        try:
            value = self._value(sizes)
        except (ArithmeticError, ValueError):
            return None
        return int(value) if value.denominator == 1 and abs(value) <= _MAX_VALUE else None


@functools.lru_cache(maxsize=4096)
def expression(text: str) -> Expression | None:
    """The expression that the name of a dimension is; None if it is only a name."""
    if len(text) > _MAX_TEXT:
        return None
    tokens: list[str] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            return None
        tokens.append(match[0].strip())
        at = match.end()
    parser = _Parser(tokens)
    try:
        value = parser.sum(0)
    except ValueError:
        return None
    # One name or one number by itself is none.
    if parser.at != len(tokens) or len(tokens) < 2 or not parser.names:
        return None
    return Expression(text, frozenset(parser.names), value)


def solve(wanted: Expression, value: int, sizes: Mapping[str, int]) -> tuple[str, Fraction] | None:
    """The only name in `wanted` without a size, and the number that makes the expression `value`.

    The number is no size if no size does. None where several names are missing, or where the expression does
    not grow evenly with the missing one.
    """
    missing = wanted.names - sizes.keys()
    if len(missing) != 1:
        return None
    (name,) = missing
    first, second, third = (wanted.value({**sizes, name: trial}) for trial in (1, 2, 3))
    if first is None or second is None or third is None or not first - second == second - third != 0:
        return None
    size = 1 + Fraction(value - first, second - first)
    if size.denominator == 1 and size >= 1 and wanted.value({**sizes, name: int(size)}) != value:
        return None
    return name, size


_Value = Callable[[Mapping[str, int]], Fraction]


class _Parser:
    """Sums of products of powers, with functions; each method gives what computes its part."""

    def __init__(self, tokens: list[str]) -> None:
        self.names: set[str] = set()
        self.at = 0
        self._tokens = tokens

    def sum(self, depth: int) -> _Value:
        """Parts with ``+`` and ``-`` between them."""
        value = self._product(depth)
        while (mark := self._take("+", "-")) is not None:
            value = _applied(_BINARY[mark], value, self._product(depth))
        return value

    def _product(self, depth: int) -> _Value:
        value = self._signed(depth)
        while (mark := self._take("*", "/", "//", "%")) is not None:
            value = _applied(_BINARY[mark], value, self._signed(depth))
        return value

    def _signed(self, depth: int) -> _Value:
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deeply")
        if self._take("-") is not None:
            return _applied(lambda value: -value, self._signed(depth + 1))
        value = self._part(depth)
        if self._take("**") is not None:
            return _applied(_power, value, self._signed(depth + 1))
        return value

    def _part(self, depth: int) -> _Value:
        mark = self._next()
        if mark == "(":
            value = self.sum(depth + 1)
            self._expect(")")
            return value
        if mark.isdecimal():
            number = Fraction(int(mark))
            return lambda sizes: number
        if not (mark[0].isalpha() or mark[0] == "_"):
            raise ValueError(mark)
        if self._take("(") is not None:
            values = [self.sum(depth + 1)]
            while self._take(",") is not None:
                values.append(self.sum(depth + 1))
            self._expect(")")
            function, count = _FUNCTIONS.get(mark.casefold(), (None, 0))
            if function is None or count not in (0, len(values)):
                raise ValueError(mark)
            return _applied(function, *values)
        self.names.add(mark)
        return lambda sizes: Fraction(sizes[mark])

    def _next(self) -> str:
        if self.at >= len(self._tokens):
            raise ValueError("ends too early")
        self.at += 1
        return self._tokens[self.at - 1]

    def _take(self, *marks: str) -> str | None:
        if self.at < len(self._tokens) and self._tokens[self.at] in marks:
            return self._next()
        return None

    def _expect(self, mark: str) -> None:
        if self._take(mark) is None:
            raise ValueError(f"no {mark}")


def _applied(function: Callable[..., Fraction], *values: _Value) -> _Value:
    def value(sizes: Mapping[str, int]) -> Fraction:
        result = Fraction(function(*_each(values, sizes)))
        if abs(result) > _MAX_VALUE:
            raise ValueError("too large")
        return result

    return value


def _each(values: tuple[_Value, ...], sizes: Mapping[str, int]) -> Iterator[Fraction]:
    return (value(sizes) for value in values)


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    # Bounded before it is computed.
    if exponent.denominator != 1 or not 0 <= exponent <= 64:
        raise ValueError("no such power")
    return base ** int(exponent)


def _floor_div(first: Fraction, second: Fraction) -> Fraction:
    return Fraction(first // second)


_BINARY: Mapping[str, Callable[..., Fraction]] = {
    "+": lambda first, second: first + second,
    "-": lambda first, second: first - second,
    "*": lambda first, second: first * second,
    "/": lambda first, second: first / second,
    "//": _floor_div,
    "%": lambda first, second: first % second,
}

#: Name to the function and how many arguments it takes; 0: any number. Those that sympy prints of shapes.
_FUNCTIONS: Mapping[str, tuple[Callable[..., Fraction], int]] = {
    "floor": (lambda value: Fraction(math.floor(value)), 1),
    "ceil": (lambda value: Fraction(math.ceil(value)), 1),
    "ceiling": (lambda value: Fraction(math.ceil(value)), 1),
    "max": (lambda *values: max(values), 0),
    "min": (lambda *values: min(values), 0),
    "mod": (_BINARY["%"], 2),
    "floordiv": (_floor_div, 2),
    "cleandiv": (_BINARY["/"], 2),
    "ceildiv": (lambda first, second: Fraction(-(-first // second)), 2),
}
