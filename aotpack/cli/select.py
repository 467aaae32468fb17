"""``aotpack select``.

::

    aotpack select m.aotpack --compared
    aotpack select m.aotpack --machine rtx-40 --devices gpu,cpu
    aotpack select m.aotpack --shape x=1,576
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from aotpack.cli import output
from aotpack.cli.choice import (
    Devices,
    Eps,
    MachineName,
    Measured,
    MemoryLimit,
    Prefer,
    Shapes,
    machine_of,
    policy_of,
    shapes_of,
)
from aotpack.cli.options import AsJson, ComponentName, Emulate, PackagePath

if TYPE_CHECKING:
    from aotpack.selection import Selection

__all__ = ["select"]


def select(
    package: PackagePath,
    component: ComponentName = None,
    machine: MachineName = None,
    devices: Devices = None,
    prefer: Prefer = "efficiency",
    ep: Eps = None,
    memory_limit: MemoryLimit = None,
    measured: Measured = False,
    emulate: Emulate = False,
    shape: Shapes = None,
    compared: Annotated[
        bool, typer.Option("--compared", help="Show what was found beside what is needed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show every variant's verdict on a machine, the winner first."""
    from aotpack.documents import SelectionDocument
    from aotpack.package import open_package

    policy = policy_of(
        devices=devices,
        prefer=prefer,
        eps=ep,
        memory_limit=memory_limit,
        measured=measured,
        emulate=emulate,
    )
    with open_package(package) as opened:
        selection = opened.select(
            component=component, machine=machine_of(machine), policy=policy, shapes=shapes_of(shape)
        )
    if as_json:
        output.print_json(SelectionDocument.of(selection, package=str(package)))
    else:
        _show(selection, compared)


def _show(selection: Selection, compared: bool) -> None:
    from aotpack.explain import remarks, rows, side_by_side

    output.entries(
        [
            (
                (row.mark, row.variant, row.grade, f"[{row.code}]"),
                (row.reason, *(side_by_side(item) for item in row.compared if compared)),
            )
            for row in rows(selection)
        ]
    )
    for remark in remarks(selection):
        output.paragraph(remark)
