"""``aotpack merge``.

::

    aotpack merge linux.aotpack windows.aotpack -o all.aotpack
    aotpack merge m.aotpack --records phone.json -o m.aotpack
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aotpack.cli import output
from aotpack.cli.options import AsJson, Force, NewPackage

__all__ = ["merge"]


def merge(
    packages: Annotated[
        list[Path], typer.Argument(metavar="PACKAGE", help="One or more.", show_default=False)
    ],
    out: NewPackage,
    name: Annotated[str | None, typer.Option(help="By default the first one's.", show_default=False)] = None,
    version: Annotated[
        str | None, typer.Option(help="By default the first one's.", show_default=False)
    ] = None,
    records: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="A file of `aotpack check --record`; can be repeated.", show_default=False
        ),
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Make one package of several, and add what machines found."""
    from contextlib import ExitStack

    from aotpack.container.reader import PackageReader
    from aotpack.manifest.records import other_variants, read_records
    from aotpack.runtime.edit import merge as merge_packages

    found = [read_records(path) for path in records or []]
    with ExitStack() as stack:
        readers = [stack.enter_context(PackageReader.open(path)) for path in packages]
        progress = stack.enter_context(output.progress("merging"))
        manifest = merge_packages(
            readers, out, name=name, version=version, records=found, progress=progress, force=force
        )
    if others := other_variants(manifest.components, found):
        told = f"{', '.join(others[:3])}{', …' if len(others) > 3 else ''}"
        output.note(f"records of other files were left out: {told}")
    output.print_written(out, as_json)
