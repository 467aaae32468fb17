"""``aotpack refresh``."""

from __future__ import annotations

from aotpack.cli import output
from aotpack.cli.build import show_report
from aotpack.cli.choice import MachineName, machine_of
from aotpack.cli.options import AsJson, NewPackage, PackagePath

__all__ = ["refresh"]


def refresh(
    package: PackagePath, out: NewPackage, machine: MachineName = None, as_json: AsJson = False
) -> None:
    """Compile the stale variants of a package anew (`aotpack doctor`)."""
    from aotpack.builder.refresh import refresh as refresh_package

    report = refresh_package(
        package,
        out,
        machine=machine_of(machine),
        on_event=lambda what, part, name, built: output.note(f"{what} {part}/{name}"),
    )
    show_report(report, as_json)
