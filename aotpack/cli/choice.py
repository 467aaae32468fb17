"""Options of every verb that chooses a variant: for which machine, and by which policy."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aotpack.cli.options import Emulate
from aotpack.common.sizes import parse_size
from aotpack.errors import UsageError
from aotpack.selection.policy import DEFAULT_MIN_COMPILED, Policy

if TYPE_CHECKING:
    from aotpack.machine.profile import Machine

__all__ = ["MachineName", "Shapes", "machine_of", "policy_of", "shapes_of", "takes_policy"]

#: ``--machine``.
MachineName = Annotated[
    str | None,
    typer.Option(
        "--machine",
        metavar="NAME|FILE",
        help="For this machine: a profile, or one of `aotpack machine --list`; by default this computer.",
        show_default=False,
    ),
]


#: ``--shape`` of what is chosen for.
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="NAME=SIZES",
        help="Only variants that take this (input=1,576, batch=1); can be repeated.",
        show_default=False,
    ),
]


def shapes_of(texts: list[str] | None) -> dict[str, tuple[int, ...]]:
    """The shapes that ``--shape`` options give.

    Raises:
        UsageError, ShapeError: one is no shape.
    """
    from aotpack.selection.shapes import parse_shape

    return parse_shape(texts or [])


def policy_of(
    *,
    variant: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Only this variant: its target or id (`aotpack inspect`).",
            show_default=False,
        ),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="Device types to take, best first: npu,gpu,cpu.", show_default=False
        ),
    ] = None,
    prefer: Annotated[
        str, typer.Option(metavar="WHAT", help="efficiency: npu, gpu, cpu; latency: gpu, npu, cpu.")
    ] = "efficiency",
    ep: Annotated[
        list[str] | None, typer.Option("--ep", metavar="NAME", help="Only this EP; can be repeated.")
    ] = None,
    memory_limit: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Only variants that take no more.", show_default=False),
    ] = None,
    min_compiled: Annotated[
        float,
        typer.Option(metavar="SHARE", help="Prefer variants with this share of the nodes compiled, 0 to 1."),
    ] = DEFAULT_MIN_COMPILED,
    measured: Annotated[
        bool, typer.Option("--measured", help="In the order that `aotpack tune` measured.")
    ] = False,
    emulate: Emulate = False,
) -> Policy:
    """The policy that the options describe.

    Raises:
        UsageError: an option has a value that it cannot have.
    """
    if devices is not None and not devices.strip(", "):
        raise UsageError("names no device type", where="--devices", expected="such as npu,cpu")
    return Policy(
        # What is not a device type is the policy's to refuse.
        devices=tuple(part.strip() for part in devices.split(",")) if devices else None,  # type: ignore[misc]
        prefer=prefer,  # type: ignore[arg-type]
        eps=frozenset(ep) if ep else None,
        memory_limit=None if memory_limit is None else parse_size(memory_limit, "--memory-limit"),
        measured=measured,
        variant=variant,
        emulate=emulate,
        min_compiled=min_compiled,
    )


def takes_policy(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb with a parameter ``policy`` the options of `policy_of` in its place.

    Args:
        names: of the options; by default all.
    """
    options = _parameters(policy_of)
    chosen = [options[name] for name in names or options]

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        own = _parameters(verb, without="policy")

        @functools.wraps(verb)
        def wrapped(**values: Any) -> None:
            given = {each.name: values.pop(each.name) for each in chosen}
            verb(policy=policy_of(**given), **values)

        parameters = [each.replace(kind=each.KEYWORD_ONLY) for each in (*own.values(), *chosen)]
        # Both are read by typer.
        wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {each.name: each.annotation for each in parameters}
        return wrapped

    return decorate


def _parameters(function: Callable[..., Any], without: str | None = None) -> dict[str, inspect.Parameter]:
    """The parameters of a function, their annotations evaluated."""
    scope = function.__globals__
    return {
        name: each.replace(annotation=eval(each.annotation, scope))  # noqa: S307 - our own source
        for name, each in inspect.signature(function).parameters.items()
        if name != without
    }


def machine_of(name: str | None) -> Machine | None:
    """The machine of that name or profile; None is this computer.

    Raises:
        UnknownName, ProfileError: there is none.
    """
    from aotpack.machine.profile import find_machine

    return None if name is None else find_machine(name)
