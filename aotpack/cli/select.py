"""``aotpack select``.

::

    aotpack select m.aotpack --compared
    aotpack select m.aotpack --machine rtx-40 --devices gpu,cpu
    aotpack select m.aotpack --machine rtx-40 --require-compiled
    aotpack select m.aotpack --shape x=1,576
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from aotpack.cli import output
from aotpack.cli.choice import MachineName, Shapes, machine_of, shapes_of, takes_policy
from aotpack.cli.options import AsJson, CustomOps, OneComponent, PackagePath

if TYPE_CHECKING:
    from aotpack.selection.policy import Policy
    from aotpack.selection.select import Selection

__all__ = ["select"]

#: Exit status: nothing that is known to fit, or that was required, is there.
_NOTHING_FITS = 3


@takes_policy()
def select(
    package: PackagePath,
    component: OneComponent = None,
    machine: MachineName = None,
    shape: Shapes = None,
    compared: Annotated[
        bool, typer.Option("--compared", help="Show what was found beside what is needed.")
    ] = False,
    require_compiled: Annotated[
        bool, typer.Option("--require-compiled", help="The portable variant is not enough.")
    ] = False,
    custom_ops: CustomOps = None,
    as_json: AsJson = False,
    *,
    policy: Policy,
) -> None:
    """Show every variant's verdict on a machine, the winner first.

    Exit status: 0 if each component has a variant that is known to fit, 3 if one has none; with
    --require-compiled, 3 also if one has no other than the portable variant.
    """
    from aotpack.documents.verbs import SelectionDocument
    from aotpack.runtime.load_options import SelectOptions
    from aotpack.runtime.package import open_package
    from aotpack.selection.custom_ops import checked_libraries

    with open_package(package) as opened:
        options = SelectOptions(
            policy=policy,
            shapes=shapes_of(shape),
            custom_ops=checked_libraries(custom_ops or (), where="--custom-ops"),
        )
        selections = opened.select_all(options, component=component, machine=machine_of(machine))
    names = [selection.component for selection in selections]
    if as_json:
        first, *others = selections
        output.print_json(SelectionDocument.of(first, package=str(package), others=others))
    else:
        for selection in selections:
            with output.component(selection.component, names):
                _show(selection, compared)
    if not all(_is_enough(selection, require_compiled) for selection in selections):
        raise typer.Exit(_NOTHING_FITS)


def _is_enough(selection: Selection, require_compiled: bool) -> bool:
    chosen = selection.chosen
    if chosen is None or selection.last_resort:
        return False
    return not (require_compiled and chosen.portable)


def _show(selection: Selection, compared: bool) -> None:
    from aotpack.selection.explain import remarks, rows, side_by_side

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
