"""``aotpack refresh``.

::

    aotpack refresh m.aotpack -o fresh.aotpack
"""

from __future__ import annotations

from contextlib import ExitStack

from aotpack.cli import output
from aotpack.cli.build import show_report
from aotpack.cli.build_progress import build_progress
from aotpack.cli.choice import MachineName, machine_of
from aotpack.cli.options import AsJson, Check, CustomOps, Force, Inputs, NewPackage, PackagePath, Tolerance

__all__ = ["refresh"]


def refresh(
    package: PackagePath,
    out: NewPackage,
    machine: MachineName = None,
    tolerance: Tolerance = None,
    inputs: Inputs = None,
    check: Check = True,
    custom_ops: CustomOps = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Compile the stale variants of a package anew (`aotpack doctor`)."""
    from aotpack.builder.refresh import refresh as refresh_package
    from aotpack.builder.spec import parse_tolerances
    from aotpack.selection.custom_ops import checked_libraries

    overall, of_outputs = parse_tolerances(tolerance or [])
    with ExitStack() as stack:
        report = refresh_package(
            package,
            out,
            machine=machine_of(machine),
            on_event=build_progress(stack),
            tolerance=overall,
            tolerances=of_outputs,
            inputs=inputs or (),
            check=check,
            force=force,
            custom_ops=checked_libraries(custom_ops or (), where="--custom-ops"),
        )
    if report.rows or as_json:
        show_report(report, as_json)
    else:
        output.print_text(f"{out}: no variant is stale")
