"""The options of `aotpack.select`, `aotpack.load` and the methods of `Package`, as one value each.

A new option is a field here: in the value, and in the `TypedDict` beside it, which is how type checkers see
the keyword arguments. The functions that take them pass them on as they are (`takes`).
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, TypeVar, cast, get_args

from aotpack.errors import UsageError
from aotpack.runtime.events import OnEvent
from aotpack.selection.custom_ops import GivenLibraries, checked_libraries
from aotpack.selection.policy import Policy
from aotpack.selection.shapes import Wanted

if TYPE_CHECKING:
    import onnxruntime

__all__ = [
    "LoadKeywords",
    "LoadOptions",
    "OnMiss",
    "SelectKeywords",
    "SelectOptions",
    "SessionChange",
    "takes",
]

#: At a miss: take it; compile for this machine into the cache, first or in the background; or raise.
OnMiss = Literal["portable", "compile", "compile-in-background", "error"]

#: A function that changes the `onnxruntime.SessionOptions` that it is given; it returns None, or those.
SessionChange = Callable[["onnxruntime.SessionOptions"], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectOptions:
    """How a variant is chosen.

    Raises:
        UsageError: there is no such library in `custom_ops`, or the policy is none.
    """

    #: What the user wants of the choice; None: `Policy()`.
    policy: Policy | None = None
    #: An emulated device counts as a device. The same as `Policy.emulate`.
    emulate: bool = False
    #: What the inputs will be like: input name to its shape, or symbolic dimension to its one size. Variants
    #: that were compiled for other shapes are refused. Without a component, or with the name of one that has
    #: buckets, they choose among the buckets too.
    shapes: Wanted | None = None
    #: Paths of the libraries of custom operators that the model needs, absolute once they were checked.
    #: Without any, variants with such operators are refused. A session loads them into this process.
    custom_ops: GivenLibraries = ()

    def __post_init__(self) -> None:
        if self.policy is not None and not isinstance(self.policy, Policy):
            found = type(self.policy).__name__
            raise UsageError("has the wrong type", where="policy", found=found, expected="an aotpack.Policy")
        object.__setattr__(self, "custom_ops", checked_libraries(self.custom_ops))

    @property
    def libraries(self) -> tuple[Path, ...]:
        """`custom_ops` as it was checked."""
        return cast("tuple[Path, ...]", self.custom_ops)

    @property
    def whole_policy(self) -> Policy:
        """The policy, with `emulate` in it."""
        policy = self.policy or Policy()
        return replace(policy, emulate=True) if self.emulate else policy


class SelectKeywords(TypedDict, total=False):
    """The fields of `SelectOptions` as keyword arguments."""

    policy: Policy | None
    emulate: bool
    shapes: Wanted | None
    custom_ops: GivenLibraries


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions(SelectOptions):
    """How a variant is chosen, and how its session is made.

    Raises:
        UsageError: `on_miss` is unknown, `on_event` cannot be called, or as for `SelectOptions`.
    """

    #: What to do where nothing but the portable variant is left, or where the best one would be better
    #: compiled anew: ``portable`` takes it; ``compile`` compiles for this machine into the cache, in a worker
    #: process, ``compile-in-background`` does so for the next load; ``error`` raises rather than take the
    #: portable one.
    on_miss: OnMiss = "portable"
    #: Called for every refusal and every recompilation.
    on_event: OnEvent | None = None
    #: Of the session: threads, log level, arena, profiling. Options that you prepared, which are never
    #: changed and may serve any number of loads; or a function that changes those that it is given. Neither
    #: can take away what the package needs (`aotpack.runtime.session_options`).
    session_options: onnxruntime.SessionOptions | SessionChange | None = None

    def __post_init__(self) -> None:
        SelectOptions.__post_init__(self)
        if self.on_miss not in get_args(OnMiss):
            raise UsageError(f"unknown on_miss {self.on_miss!r}", expected=", ".join(get_args(OnMiss)))
        if self.on_event is not None and not callable(self.on_event):
            found = type(self.on_event).__name__
            raise UsageError("has the wrong type", where="on_event", found=found, expected="a function")


class LoadKeywords(SelectKeywords, total=False):
    """The fields of `LoadOptions` as keyword arguments."""

    on_miss: OnMiss
    on_event: OnEvent | None
    session_options: onnxruntime.SessionOptions | SessionChange | None


_Function = TypeVar("_Function", bound=Callable[..., object])


def takes(options: type[SelectOptions]) -> Callable[[_Function], _Function]:
    """Have a function that takes ``**keywords`` show the fields of `options` in their place.

    `help`, editors and `inspect.signature` then name each one with its default.
    """

    def decorate(function: _Function) -> _Function:
        signature = inspect.signature(function)
        own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
        fields = [
            inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type
            )
            for field in dataclasses.fields(options)
        ]
        function.__signature__ = signature.replace(parameters=[*own, *fields])  # type: ignore[attr-defined]
        return function

    return decorate
