"""``aotpack coverage``.

::

    aotpack coverage m.aotpack
    aotpack coverage m.aotpack --machines rtx-40,avx2-desktop
    aotpack coverage m.aotpack --machines profiles/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from aotpack.cli import output
from aotpack.cli.choice import takes_policy
from aotpack.cli.options import AsJson, OneComponent, PackagePath

if TYPE_CHECKING:
    from aotpack.runtime.fleet import Coverage
    from aotpack.selection.policy import Policy
    from aotpack.selection.select import Candidate

__all__ = ["coverage"]


@takes_policy("devices", "prefer", "ep", "min_compiled")
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
    component: OneComponent = None,
    as_json: AsJson = False,
    *,
    policy: Policy,
) -> None:
    """Show what each machine of a fleet gets, and what would help."""
    from aotpack.documents.verbs import CoverageDocument
    from aotpack.runtime.fleet import cover, machines_of
    from aotpack.runtime.package import open_package

    names = [name for text in machines or [] for name in text.split(",") if name]
    with open_package(package) as opened:
        components = opened.component_names if component is None else [component]
        fleet = machines_of(names)
        covered = [cover(opened.component(each), fleet, policy) for each in components]
    if as_json:
        first, *others = covered
        output.print_json(CoverageDocument.of(first, package=str(package), others=others))
        return
    for each in covered:
        with output.component(each.component.name, components):
            _show(each)


#: Variants in a row of the matrix, of which each takes one column.
_BAND = 40

#: Of these, ids fit beside the matrix; beside a wider one stand their numbers.
_FEW = 20


def _show(covered: Coverage) -> None:
    ids = [variant.id for variant in covered.component.variants]
    for index, variant in enumerate(ids, start=1):
        output.print_text(f"{index:>3}  {variant}")
    for start in range(0, len(ids), _BAND):
        band = range(start, min(start + _BAND, len(ids)))
        ruler = _in_tens("".join(str((index + 1) % 10) for index in band))
        rows = []
        for name, selection in covered.selections.items():
            chosen = covered.gets(name)
            marks = {each.id: _mark(each, each is chosen) for each in selection.candidates}
            gets = "nothing"
            if chosen is not None:
                gets = chosen.id if len(ids) <= _FEW else str(ids.index(chosen.id) + 1)
            rows.append([name, _in_tens("".join(marks[ids[index]] for index in band)), gets])
        output.table(["machine", ruler, "gets"], rows)
    output.print_text("> gets  + would take  ~ better compiled anew  ? not known  . does not fit")
    for what, names in (
        ("portable only", covered.portable_only),
        ("gets nothing", covered.without),
        ("not known to get anything", covered.unsure),
        ("nobody gets", covered.unused),
    ):
        if names:
            output.paragraph(f"{what}: {', '.join(names)}")
    for index, item in enumerate(covered.helpful):
        most = "would help most" if index == 0 else "would then help"
        output.paragraph(f"{item.target.name} {most}: {', '.join(item.machines)}")
    for each in covered.component.variants:
        for record in each.records:
            how = record.failure or "good"
            driver = "" if record.driver is None else f", driver {record.driver}"
            output.paragraph(f"{each.id} checked on {record.machine} ({record.os}{driver}): {how}")
    if covered.not_considered:
        output.paragraph(
            f"not installed here, so that nobody can say whether a target of theirs would help: "
            f"{', '.join(covered.not_considered)}"
        )


def _in_tens(text: str) -> str:
    return " ".join(text[start : start + 10] for start in range(0, len(text), 10))


def _mark(candidate: Candidate, chosen: bool) -> str:
    if chosen:
        return ">"
    grade = candidate.verdict.grade.value
    return {"OPTIMAL": "+", "PREFER_RECOMPILATION": "~", "UNKNOWN": "?"}.get(grade, ".")
