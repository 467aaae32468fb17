"""Remember what was made of an argument, within a bound.

A machine is judged against thousands of variants, most of which say the same. What is remembered must not
grow with what packages hold: a program may open any number of them, and of a closed one nothing is kept but a
few short texts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Generic, ParamSpec, TypeVar

__all__ = ["MAX_ENTRIES", "MAX_LENGTH", "Remembered", "remember_last", "remember_short"]

#: Results that are kept. However many variants a package has, their strings and requirements are some tens.
MAX_ENTRIES = 128
#: Characters, and items, of arguments whose result is kept. Compatibility strings have some hundred.
MAX_LENGTH = 1024

_Argument = TypeVar("_Argument")
_Arguments = ParamSpec("_Arguments")
_Made = TypeVar("_Made")


def remember_last(make: Callable[[_Argument], _Made]) -> Callable[[_Argument], _Made]:
    """`make`, called again only when its argument is another object than the last time."""
    last: tuple[_Argument, _Made] | None = None

    @functools.wraps(make)
    def remembering(argument: _Argument) -> _Made:
        nonlocal last
        # One read and one write of one variable: threads at worst make the same thing twice.
        known = last
        if known is None or known[0] is not argument:
            last = known = (argument, make(argument))
        return known[1]

    return remembering


class Remembered(Generic[_Arguments, _Made]):
    """A function that is not called again for the last `MAX_ENTRIES` arguments of at most `MAX_LENGTH`."""

    __slots__ = ("_make", "_remembered")

    def __init__(self, make: Callable[_Arguments, _Made]) -> None:
        self._make = make
        self._remembered = functools.lru_cache(maxsize=MAX_ENTRIES)(make)

    def __call__(self, *arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Made:
        """What `make` gives for these, remembered where they are few and short."""
        if named or _length(arguments) > MAX_LENGTH:
            return self._make(*arguments, **named)
        return self._remembered(*arguments)

    def forget(self) -> None:
        """Call it again for each argument."""
        self._remembered.cache_clear()


def remember_short(make: Callable[_Arguments, _Made]) -> Remembered[_Arguments, _Made]:
    """`make`, a function of texts, tuples of them, and None, as `Remembered`."""
    return Remembered(make)


def _length(values: tuple[Hashable, ...]) -> int:
    length = len(values)
    for value in values:
        if isinstance(value, str):
            length += len(value)
        elif isinstance(value, tuple):
            length += _length(value)
    return length
