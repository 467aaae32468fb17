"""``aotpack select``."""

from __future__ import annotations

from aotpack.cli import output
from aotpack.cli.options import AsJson, ComponentName, Emulate, PackagePath

__all__ = ["select"]


def select(
    package: PackagePath, component: ComponentName = None, emulate: Emulate = False, as_json: AsJson = False
) -> None:
    """Show each variant with its verdict and reason on this machine, the winner first."""
    from aotpack.documents import SelectionDocument
    from aotpack.package import open_package

    with open_package(package) as opened:
        selection = opened.select(component=component, emulate=emulate)
    if as_json:
        output.print_json(SelectionDocument.of(selection, package=str(package)))
        return
    rows = []
    for candidate in selection.candidates:
        mark = "->" if candidate is selection.chosen else "ok" if candidate.accepted else "no"
        verdict = candidate.verdict
        rows.append([mark, candidate.id, f"{verdict.grade.value}\n[{verdict.code.value}]", verdict.reason])
    output.table(["", "variant", "verdict", "reason"], rows)
    if selection.last_resort:
        output.print_text("Nothing is known to fit; what is accepted are variants that nobody can judge.")
    if selection.chosen is None:
        output.print_text("No variant fits this machine.")
