"""``aotpack coverage``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from aotpack.cli import output
from aotpack.cli.choice import Devices, Eps, Prefer, policy_of
from aotpack.cli.options import AsJson, ComponentName, PackagePath

if TYPE_CHECKING:
    from aotpack.fleet import Coverage
    from aotpack.selection import Candidate

__all__ = ["coverage"]


def coverage(
    package: PackagePath,
    machines: Annotated[
        list[str] | None,
        typer.Option(
            "--machines",
            metavar="DIR|NAMES",
            help="Folder of profiles, profile, or names with commas; by default all of `machine --list`.",
            show_default=False,
        ),
    ] = None,
    component: ComponentName = None,
    devices: Devices = None,
    prefer: Prefer = "efficiency",
    ep: Eps = None,
    as_json: AsJson = False,
) -> None:
    """Show what each machine of a fleet gets, and what would help."""
    from aotpack.documents import CoverageDocument
    from aotpack.fleet import cover, machines_of
    from aotpack.package import open_package

    names = [name for text in machines or [] for name in text.split(",") if name]
    with open_package(package) as opened:
        covered = cover(
            opened.component(component),
            machines_of(names),
            policy_of(devices=devices, prefer=prefer, eps=ep),
        )
    if as_json:
        output.print_json(CoverageDocument.of(covered, package=str(package)))
    else:
        _show(covered)


def _show(covered: Coverage) -> None:
    numbers = {variant.id: str(index) for index, variant in enumerate(covered.component.variants, start=1)}
    for variant, number in numbers.items():
        output.print_text(f"{number:>3}  {variant}")
    rows = []
    for name, selection in covered.selections.items():
        marks = {
            candidate.id: _mark(candidate, candidate is selection.chosen)
            for candidate in selection.candidates
        }
        got = selection.chosen.id if selection.chosen is not None else "nothing"
        rows.append([name, *(marks[variant] for variant in numbers), got])
    output.table(["machine", *numbers.values(), "gets"], rows)
    output.print_text("> gets  + would take  ~ better compiled anew  ? not known  . does not fit")
    for what, names in (
        ("portable only", covered.portable_only),
        ("gets nothing", covered.without),
        ("nobody gets", covered.unused),
    ):
        if names:
            output.paragraph(f"{what}: {', '.join(names)}")
    for index, item in enumerate(covered.helpful):
        most = "would help most" if index == 0 else "would help"
        output.paragraph(f"{item.target.name} {most}: {', '.join(item.machines)}")


def _mark(candidate: Candidate, chosen: bool) -> str:
    if chosen:
        return ">"
    grade = candidate.verdict.grade.value
    return {"OPTIMAL": "+", "PREFER_RECOMPILATION": "~", "UNKNOWN": "?"}.get(grade, ".")
