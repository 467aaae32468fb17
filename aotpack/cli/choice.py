"""Options of every verb that chooses a variant: for which machine, and by which policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from aotpack._size import parse_size
from aotpack.errors import UsageError

if TYPE_CHECKING:
    from aotpack.machine import Machine
    from aotpack.policy import Policy

__all__ = [
    "Devices",
    "Eps",
    "MachineName",
    "Measured",
    "MemoryLimit",
    "Prefer",
    "Shapes",
    "machine_of",
    "policy_of",
    "shapes_of",
]

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
#: ``--devices``.
Devices = Annotated[
    str | None,
    typer.Option(metavar="LIST", help="Device types to take, best first: npu,gpu,cpu.", show_default=False),
]
#: ``--prefer``.
Prefer = Annotated[
    str, typer.Option(metavar="WHAT", help="efficiency: npu, gpu, cpu; latency: gpu, npu, cpu.")
]
#: ``--ep``.
Eps = Annotated[list[str] | None, typer.Option("--ep", metavar="NAME", help="Only this EP; again for each.")]
#: ``--memory-limit``.
MemoryLimit = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Only variants that take no more.", show_default=False)
]
#: ``--measured``.
Measured = Annotated[bool, typer.Option("--measured", help="In the order that `aotpack tune` measured.")]


#: ``--shape`` of what is chosen for.
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="NAME=SIZES",
        help="Only variants that take this (input=1,576, batch=1); again for each.",
        show_default=False,
    ),
]


def shapes_of(texts: list[str] | None) -> dict[str, tuple[int, ...]]:
    """The shapes that ``--shape`` options give.

    Raises:
        UsageError, ShapeError: one is no shape.
    """
    from aotpack.shapes import parse_shape

    return parse_shape(texts or [])


def policy_of(
    *,
    devices: str | None = None,
    prefer: str = "efficiency",
    eps: list[str] | None = None,
    memory_limit: str | None = None,
    measured: bool = False,
    variant: str | None = None,
    emulate: bool = False,
) -> Policy:
    """The policy that the options describe.

    Raises:
        UsageError: an option has a value that it cannot have.
    """
    from aotpack.policy import Policy

    if devices is not None and not devices.strip(", "):
        raise UsageError("names no device type", where="--devices", expected="such as npu,cpu")
    return Policy(
        # What is not a device type is the policy's to refuse.
        devices=tuple(part.strip() for part in devices.split(",")) if devices else None,  # type: ignore[misc]
        prefer=prefer,  # type: ignore[arg-type]
        eps=frozenset(eps) if eps else None,
        memory_limit=None if memory_limit is None else parse_size(memory_limit, "--memory-limit"),
        measured=measured,
        variant=variant,
        emulate=emulate,
    )


def machine_of(name: str | None) -> Machine | None:
    """The machine of that name or profile; None is this computer.

    Raises:
        UnknownName, ProfileError: there is none.
    """
    from aotpack.machine import find_machine

    return None if name is None else find_machine(name)
