"""``aotpack check``.

::

    aotpack check m.aotpack
    aotpack check m.aotpack --inputs samples/ --tolerance logits=0.05
    aotpack check m.aotpack --record phone.json --name "Galaxy S24"
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aotpack.cli import output
from aotpack.cli.choice import takes_policy
from aotpack.cli.extra_file import check_extra_file, write_extra_file
from aotpack.cli.options import AsJson, CustomOps, Inputs, PackagePath, Tolerance
from aotpack.errors import CheckFailed

if TYPE_CHECKING:
    from aotpack.builder.check import Checked
    from aotpack.manifest.records import RecordFile
    from aotpack.selection.policy import Policy

__all__ = ["check"]


@takes_policy("variant", "devices", "ep", "emulate")
def check(
    package: PackagePath,
    component: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this one.", show_default="all")
    ] = None,
    inputs: Inputs = None,
    tolerance: Tolerance = None,
    runs: Annotated[int, typer.Option(min=3, help="Timed runs of each variant, at most.")] = 20,
    time_limit: Annotated[float, typer.Option(metavar="SECONDS", help="For each process.")] = 300.0,
    record: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write what was found, for `aotpack merge --records`.", show_default=False
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of this machine in the records.", show_default="its device's")
    ] = None,
    custom_ops: CustomOps = None,
    as_json: AsJson = False,
    *,
    policy: Policy,
) -> None:
    """Run variants on this machine, and compare their numbers."""
    from aotpack.builder.check import check as check_package
    from aotpack.builder.spec import Limits, parse_tolerances
    from aotpack.manifest.records import RECORDS_BEGIN, records_text
    from aotpack.runtime.package import open_package
    from aotpack.selection.custom_ops import checked_libraries

    if record is not None:
        check_extra_file(record, RECORDS_BEGIN, "a file of records")
    overall, of_outputs = parse_tolerances(tolerance or [])
    with open_package(package) as opened:
        found, good = check_package(
            opened,
            component=component,
            policy=policy,
            inputs=inputs or [],
            tolerance=overall,
            tolerances=of_outputs,
            runs=runs,
            limits=Limits(seconds=time_limit),
            machine_name=name,
            custom_ops=checked_libraries(custom_ops or (), where="--custom-ops"),
            on_checked=_tell,
        )
        left = sum(len(each.variants) for each in opened.manifest.components) - len(found.entries)
    if record is not None:
        write_extra_file(record, records_text(found), RECORDS_BEGIN, "a file of records")
    if as_json:
        output.print_json(found)
    else:
        _show(found, left)
    if not good:
        raise CheckFailed("a variant does not run here, or its numbers are off", where=package)


def _tell(checked: Checked) -> None:
    output.note(f"checked {checked.entry.component}/{checked.entry.variant}")


def _show(found: RecordFile, left: int) -> None:
    several = len({entry.component for entry in found.entries}) > 1
    rows = []
    for entry in found.entries:
        record = entry.record
        numerics = record.numerics
        rows.append(
            [
                f"{entry.component}/{entry.variant}" if several else entry.variant,
                "" if numerics is None or numerics.error is None else f"{numerics.error:.1e}",
                "" if numerics is None or numerics.tolerance is None else f"{numerics.tolerance:.1e}",
                "" if record.run_seconds is None else f"{record.run_seconds * 1e3:.2f} ms",
                "" if record.peak_memory is None else output.size(record.peak_memory),
                "" if numerics is None else numerics.ran_on,
            ]
        )
    output.table(
        ["variant", "error", "tolerance", "run", "memory", "ran on"],
        rows,
        right=["error", "tolerance", "run", "memory"],
    )
    for entry in found.entries:
        if entry.record.failure is not None:
            output.paragraph(f"{entry.variant}: {entry.record.failure}")
        for each in entry.record.numerics.outputs if entry.record.numerics else ():
            if each.not_compared is not None:
                output.paragraph(f"{entry.variant}: output {each.name} was not compared: {each.not_compared}")
    if left:
        output.print_text(f"{left} other variants were not checked: `aotpack select` says why not")
