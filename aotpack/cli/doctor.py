"""``aotpack doctor``.

::

    aotpack doctor
    aotpack doctor m.aotpack other.aotpack
    aotpack doctor m.aotpack --machine rtx-40
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aotpack.cli import output
from aotpack.cli.choice import MachineName, machine_of
from aotpack.cli.options import AsJson

if TYPE_CHECKING:
    from aotpack.documents.doctor import DoctorDocument

__all__ = ["doctor"]

#: Exit status: some variants are stale.
_STALE = 3


def doctor(
    packages: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PACKAGE", help="By default none: only toolchains are looked at.", show_default=False
        ),
    ] = None,
    machine: MachineName = None,
    as_json: AsJson = False,
) -> None:
    """Say which variants the installed runtimes are too new for.

    Toolchains of other packages that failed here are shown with the reason.

    Exit status: 0 if they take all, 3 if some are stale.
    """
    from aotpack.documents.doctor import DoctorDocument, FailedToolchainDocument, FindingDocument
    from aotpack.runtime.doctor import examine
    from aotpack.runtime.package import open_package
    from aotpack.runtime.probing import probe
    from aotpack.toolchains import failed_toolchains

    examined = machine_of(machine) or probe()
    findings = []
    for path in packages or ():
        with open_package(path) as opened:
            findings += [
                FindingDocument.of(item, package=str(path)) for item in examine(opened.manifest, examined)
            ]
    document = DoctorDocument(
        findings=tuple(findings),
        failed_toolchains=tuple(FailedToolchainDocument.of(each) for each in failed_toolchains()),
    )
    if as_json:
        output.print_json(document)
    else:
        _show(document, bool(packages))
    if any(item.state == "stale" for item in document.findings):
        raise typer.Exit(_STALE)


def _show(document: DoctorDocument, packages: bool) -> None:
    for toolchain in document.failed_toolchains:
        output.paragraph(toolchain.reason)
    if not packages:
        if not document.failed_toolchains:
            output.print_text("No installed toolchain failed.")
        return
    output.entries(
        [
            (
                (item.state, Path(item.package).name, item.variant, f"[{item.code}]" if item.code else ""),
                (item.reason,),
            )
            for item in document.findings
        ]
    )
    if not document.findings:
        output.print_text("Nothing was compiled: portable variants are never stale.")
    stale = sum(item.state == "stale" for item in document.findings)
    if stale:
        output.print_text(f"{stale} stale: `aotpack refresh PACKAGE -o NEW` builds them anew.")
