"""``aotpack diff``.

::

    aotpack diff old.aotpack new.aotpack
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aotpack.cli import output
from aotpack.cli.options import AsJson

if TYPE_CHECKING:
    from aotpack.runtime.difference import Difference

__all__ = ["diff"]


def diff(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="A package.", show_default=False)],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="Another one.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Show how two packages differ: targets, strings, sizes, bytes."""
    from aotpack.container.reader import PackageReader
    from aotpack.runtime.difference import diff as compare

    with PackageReader.open(before) as one, PackageReader.open(after) as other:
        found = compare(one, other)
    if as_json:
        output.print_json(found)
    elif found.is_empty:
        output.print_text("Both packages say and hold the same.")
    else:
        _show(found)


def _show(found: Difference) -> None:
    for change in found.changes:
        output.paragraph(f"{change.field}: {change.before or '-'} -> {change.after or '-'}")
    if found.variants:
        output.table(
            ["", "variant", "before", "after"],
            [
                [
                    {"added": "+", "removed": "-", "changed": "~"}[each.kind],
                    f"{each.component}/{each.id}",
                    output.size(each.size_before) if each.kind != "added" else "",
                    output.size(each.size_after) if each.kind != "removed" else "",
                ]
                for each in found.variants
            ],
            right=["before", "after"],
        )
    for each in found.variants:
        for change in each.changes:
            output.paragraph(f"{each.id} {change.field}: {change.before or '-'} -> {change.after or '-'}")
    output.paragraph(
        f"distinct bytes: {output.size(found.bytes_before)} before, {output.size(found.bytes_after)} after, "
        f"{output.size(found.bytes_shared)} in both"
    )
