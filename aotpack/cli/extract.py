"""``aotpack extract``.

::

    aotpack extract m.aotpack --variant ort-cpu -o files
    aotpack extract m.aotpack --variant decoder/ort-cpu -o files
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aotpack.cli import output
from aotpack.cli.options import AsJson, ComponentName, PackagePath

__all__ = ["extract"]


def extract(
    package: PackagePath,
    variant: Annotated[
        str,
        typer.Option(
            metavar="[COMPONENT/]NAME",
            help="The variant's target or id (`aotpack inspect`).",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="A new folder for its files.", show_default=False),
    ],
    component: ComponentName = None,
    as_json: AsJson = False,
) -> None:
    """Write the files of one variant into a folder, checked."""
    from aotpack.documents.verbs import ExtractDocument
    from aotpack.runtime.package import open_package
    from aotpack.selection.variant_names import split_name

    with open_package(package) as opened:
        component, variant = split_name(variant, component)
        found = opened.variant(variant, component)
        written = opened.extract(found.id, out, component=component)
        name = opened.component(component).name
    if as_json:
        output.print_json(
            ExtractDocument(
                package=str(package),
                component=name,
                variant=found.id,
                folder=str(out),
                files=tuple(map(str, written)),
            )
        )
        return
    for path in written:
        output.print_text(f"{path}  {output.size(path.stat().st_size)}")
