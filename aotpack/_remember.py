"""Remember what was made of the last argument, known again by its identity.

A machine is judged against thousands of variants, and to hash it would take longer than most of what is asked
of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

__all__ = ["remember_last"]

_Argument = TypeVar("_Argument")
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
