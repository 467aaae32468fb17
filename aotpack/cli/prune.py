"""``aotpack prune``.

::

    aotpack prune m.aotpack --keep ort-cpu --keep portable -o small.aotpack
    aotpack prune m.aotpack --machine rtx-40 -o rtx.aotpack
"""

from __future__ import annotations

from typing import Annotated

import typer

from aotpack.cli import output
from aotpack.cli.options import AsJson, Force, NewPackage, PackagePath
from aotpack.errors import UsageError

__all__ = ["prune"]


def prune(
    package: PackagePath,
    out: NewPackage,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="TARGET", help="Keep only this target or variant; can be repeated."),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(metavar="TARGET", help="Leave out this target or variant; can be repeated."),
    ] = None,
    machine: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME|FILE", help="Keep what this machine may use; can be repeated."),
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write a package with those variants of another that you need."""
    from aotpack.container.reader import PackageReader
    from aotpack.machine.profile import find_machine
    from aotpack.runtime.edit import prune as prune_package

    if not (keep or drop or machine):
        raise UsageError(
            "nothing says what to keep", where="aotpack prune", hint="give --keep, --drop or --machine"
        )
    machines = [find_machine(name) for name in machine or []]
    with PackageReader.open(package) as reader, output.progress("writing") as progress:
        prune_package(
            reader, out, keep=keep or [], drop=drop or [], machines=machines, progress=progress, force=force
        )
    output.print_written(out, as_json)
