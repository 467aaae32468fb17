"""Mods by name, as a command line gives them: ``causal``, ``softcap:30``, ``natten2d:7,32,32``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from aotpack.errors import UnknownName, UsageError
from aotpack.flex import library
from aotpack.flex.mod import Mod

__all__ = ["NAMED", "Named", "parse_mods"]


@dataclass(frozen=True, slots=True)
class Named:
    """A mod that has a name on the command line."""

    #: Names of its arguments, in order; those in brackets may be left out.
    arguments: tuple[str, ...]
    make: Callable[..., Mod]
    #: Whether it changes probabilities instead of scores.
    is_prob_mod: bool = False


def _documents(*lengths: float) -> Mod:
    ids = [number for number, length in enumerate(map(_whole, lengths)) for _ in range(length)]
    return library.document(ids)


def _global_window(tokens: float, size: float) -> Mod:
    return library.sliding_window(_whole(size)) | library.first_keys(_whole(tokens))


def _of_integers(make: Callable[..., Mod]) -> Callable[..., Mod]:
    return lambda *values: make(*map(_whole, values))


#: All of them. What has a table of weights (relative bias, sinks) is written in Python.
NAMED: Mapping[str, Named] = {
    "causal": Named(("[offset]",), _of_integers(library.causal)),
    "window": Named(("size", "[offset]"), _of_integers(library.sliding_window)),
    "dilated": Named(("size", "dilation"), _of_integers(library.dilated_window)),
    "prefix-lm": Named(("length",), _of_integers(library.prefix_lm)),
    "document": Named(("length", "..."), _documents),
    "global-window": Named(("tokens", "size"), _global_window),
    "alibi": Named(("heads",), _of_integers(library.alibi)),
    "softcap": Named(("cap",), library.softcap),
    "natten1d": Named(("kernel", "length"), _of_integers(library.natten1d)),
    "natten2d": Named(("kernel", "height", "width"), _of_integers(library.natten2d)),
    "quantize": Named(("levels",), _of_integers(library.quantize), is_prob_mod=True),
}


def parse_mods(texts: Iterable[str]) -> tuple[Mod | None, Mod | None]:
    """The score_mod and the prob_mod that these mods make together, each in the order given.

    Args:
        texts: each ``NAME`` or ``NAME:VALUE,VALUE``.

    Raises:
        UnknownName: there is no mod of a name.
        UsageError: a mod has the wrong values.
        FlexError: a value does not fit its mod.
    """
    made: dict[bool, list[Mod]] = {False: [], True: []}
    for text in texts:
        name, _, rest = text.partition(":")
        if name not in NAMED:
            raise UnknownName("mod", name, NAMED)
        named = NAMED[name]
        made[named.is_prob_mod].append(named.make(*_values(text, rest, named)))
    score, prob = (
        functools.reduce(lambda one, other: one & other, mods) if mods else None for mods in made.values()
    )
    return score, prob


def _values(text: str, rest: str, named: Named) -> list[float]:
    expected = f"{text.partition(':')[0]}:{','.join(named.arguments)}"
    try:
        values = [float(value) for value in rest.split(",")] if rest else []
    except ValueError:
        raise UsageError("has a value that is no number", where=f"--mod {text}", expected=expected) from None
    needed = sum(not argument.startswith(("[", ".")) for argument in named.arguments)
    most = None if "..." in named.arguments else len(named.arguments)
    if len(values) < needed or (most is not None and len(values) > most):
        raise UsageError(f"has {len(values)} values", where=f"--mod {text}", expected=expected)
    return values


def _whole(value: float) -> int:
    if not value.is_integer():
        raise UsageError("is no whole number", where="--mod", found=value)
    return int(value)
