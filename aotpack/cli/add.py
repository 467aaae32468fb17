"""``aotpack add``.

::

    aotpack add m.aotpack -t ort-cpu --shape input=1,576
    aotpack add m.aotpack -t ort-cpu -o more.aotpack
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from aotpack.cli.build import show_report, targets_of
from aotpack.cli.build_progress import build_progress
from aotpack.cli.options import AsJson, Check, ComponentName, CustomOps, Force, Inputs, PackagePath, Tolerance
from aotpack.errors import BuildFailed

__all__ = ["add"]


def add(
    package: PackagePath,
    target: Annotated[
        list[str],
        typer.Option("--target", "-t", metavar="NAME", help="A target to compile for; can be repeated."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="By default the package itself.", show_default=False
        ),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option("--shape", metavar="[TARGET:]NAME=SIZES", help="As for `aotpack build`."),
    ] = None,
    component: ComponentName = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", "-k", help="Exit with 0 although targets failed.")
    ] = False,
    tolerance: Tolerance = None,
    inputs: Inputs = None,
    check: Check = True,
    custom_ops: CustomOps = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Compile a package's portable ONNX for more targets."""
    from aotpack.builder.add import add as add_targets
    from aotpack.builder.spec import parse_shapes, parse_tolerances
    from aotpack.selection.custom_ops import checked_libraries

    shapes, own_shapes = parse_shapes(shape or [], target)
    overall, of_outputs = parse_tolerances(tolerance or [])
    targets = targets_of(target, shapes=own_shapes)
    with ExitStack() as stack:
        try:
            report = add_targets(
                package,
                targets=[replace(each, tolerance=overall, tolerances=of_outputs) for each in targets],
                output=out,
                component=component,
                shapes=shapes,
                keep_going=keep_going,
                inputs=inputs or (),
                check=check,
                force=force,
                custom_ops=checked_libraries(custom_ops or (), where="--custom-ops"),
                on_event=build_progress(stack),
            )
        except BuildFailed as error:
            stack.close()
            show_report(error.report, as_json)
            raise
    show_report(report, as_json)
