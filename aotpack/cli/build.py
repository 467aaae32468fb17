"""``aotpack build``."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aotpack.cli import output
from aotpack.cli.options import AsJson, parse_size
from aotpack.errors import BuildFailed

if TYPE_CHECKING:
    from rich.progress import TaskID

    from aotpack.builder.report import BuildReport, Row
    from aotpack.builder.schedule import Event
    from aotpack.builder.variant import Built

__all__ = ["build"]


def build(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX model.", show_default=False)],
    out: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The package to write.", show_default=False)
    ],
    target: Annotated[
        list[str] | None,
        typer.Option("--target", "-t", metavar="NAME", help="Again for each (`aotpack targets`)."),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            "--shape", metavar="NAME=SIZES", help="Fix an input (input=1,576) or a dimension (batch=1)."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the package; by default the model's.")] = None,
    version: Annotated[str, typer.Option(help="Of the package.")] = "0",
    portable: Annotated[
        bool, typer.Option("--portable/--no-portable", help="Add the untouched ONNX.")
    ] = True,
    tolerance: Annotated[
        float | None, typer.Option(help="Largest error of a variant.", show_default="by precision")
    ] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", "-k", help="Failed targets are no failure.")
    ] = False,
    time_limit: Annotated[float, typer.Option(metavar="SECONDS", help="For each worker process.")] = 900.0,
    memory_limit: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="For each worker process.", show_default="90 % of the machine's"),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Workers at once.", show_default="cores, memory")
    ] = None,
    compress: Annotated[
        int, typer.Option(metavar="LEVEL", min=0, max=22, help="zstd level where it pays; 0: never.")
    ] = 3,
    as_json: AsJson = False,
) -> None:
    """Compile a model for each target and pack what comes out."""
    from aotpack.builder.build import build as build_package
    from aotpack.builder.spec import parse_shape

    with ExitStack() as stack:
        try:
            report = build_package(
                model,
                targets=target or [],
                output=out,
                shapes=parse_shape(shape or []),
                name=name,
                version=version,
                portable=portable,
                tolerance=tolerance,
                keep_going=keep_going,
                time_limit=time_limit,
                memory_limit=None if memory_limit is None else parse_size(memory_limit, "--memory-limit"),
                jobs=jobs,
                compress=compress or None,
                on_event=_progress(stack),
            )
        except BuildFailed as error:
            stack.close()
            _show(error.report, as_json)
            raise
    _show(report, as_json)


def _show(report: BuildReport, as_json: bool) -> None:
    if as_json:
        output.print_json(report)
        return
    output.table(
        ["target", "state", "time", "size", "nodes", "error", "ran on"],
        [_cells(row) for row in report.rows],
        right=["time", "size", "nodes", "error"],
    )
    for row in report.rows:
        if row.reason:
            output.print_text(f"{row.target}: {row.reason}")
    if report.package is not None and report.size is not None:
        output.print_text(f"{report.package}: {output.size(report.size)}, {report.seconds:.1f} s")


def _cells(row: Row) -> list[str]:
    coverage, numerics = row.coverage, row.numerics
    return [
        row.target,
        row.state,
        f"{row.seconds:.1f} s",
        output.size(row.size) if row.size is not None else "",
        f"{coverage.compiled}/{coverage.nodes}" if coverage is not None and coverage.partitions else "",
        f"{numerics.error:.1e}" if numerics is not None else "",
        numerics.ran_on if numerics is not None else "",
    ]


def _progress(stack: ExitStack) -> Event:
    """A live line on a terminal, plain lines in a pipe."""
    if not sys.stderr.isatty():
        return _lines

    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    progress = stack.enter_context(
        Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=output.stderr_console(),
            transient=True,
        )
    )
    tasks: dict[tuple[str, str], TaskID] = {}

    def live(what: str, component: str, target: str, built: Built | None) -> None:
        if what == "end" and built is not None:
            progress.remove_task(tasks.pop((component, target)))
            progress.console.print(_line(what, component, target, built))
        elif what != "end":
            for key in [key for key in tasks if key[1] == ""]:
                progress.remove_task(tasks.pop(key))
            tasks[component, target] = progress.add_task(_line(what, component, target, built), total=None)

    return live


def _lines(what: str, component: str, target: str, built: Built | None) -> None:
    if what != "start":
        output.note(_line(what, component, target, built))


def _line(what: str, component: str, target: str, built: Built | None) -> str:
    if built is not None:
        row = built.row
        mark = "built" if row.state == "built" else "FAILED"
        return f"{mark:<6} {component}/{target} ({row.seconds:.1f} s)"
    return {
        "reference": f"running {component} as it is, for the numbers of the others",
        "start": f"compiling {component}/{target}",
        "pack": "packing",
    }[what]
