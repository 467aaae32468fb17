"""``aotpack build``.

::

    aotpack build model.onnx -o m.aotpack -t ort-cpu --shape input=1,576
    aotpack build aotpack.toml --report page.html --explain-rebuild
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from aotpack.builder.flex_settings import FlexSettings, parse_flex
from aotpack.builder.spec import Limits, TargetSpec
from aotpack.cli import output
from aotpack.cli.build_progress import build_progress
from aotpack.cli.extra_file import check_page, write_page
from aotpack.cli.options import (
    AsJson,
    Block,
    Check,
    CustomOps,
    Force,
    Inputs,
    KvHeads,
    Lowering,
    MaskedRows,
    Tolerance,
)
from aotpack.common.sizes import parse_size
from aotpack.errors import BuildFailed, UnknownName, UsageError
from aotpack.files.scratch import scratch_folder
from aotpack.selection.custom_ops import checked_libraries
from aotpack.targets.catalogue import Precision

if TYPE_CHECKING:
    from aotpack.builder.report import BuildReport, Row
    from aotpack.builder.spec import BuildSpec

__all__ = ["build", "run_build", "show_report", "targets_of"]


#: Of the table of a build.
_COLUMNS = ["target", "state", "seconds", "size", "adds", "error", "ran on"]
#: Further ones where there is room, and the letters of a string that are worth a column.
_MORE, _LEAST_OF_STRING = ["nodes", "compatibility string"], 27

_MODEL = typer.Argument(metavar="MODEL", help="An ONNX model, or a build file (*.toml).", show_default=False)


def build(
    model: Annotated[Path, _MODEL],
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The package to write.", show_default=False),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            metavar="NAME",
            help="A target to compile for (`aotpack targets`); can be repeated.",
        ),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            "--shape",
            metavar="[TARGET:]NAME=SIZES",
            help="Fix an input (input=1,576) or a dimension (batch=1), for one target or all.",
        ),
    ] = None,
    constant: Annotated[
        list[str] | None,
        typer.Option(
            "--constant", metavar="NAME=VALUE", help="Fix the value of an input, and remove the input."
        ),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(metavar="[TARGET=]TYPE", help="f32, bf16 or f16, where the EP lets one choose."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the package; by default the model's.")] = None,
    version: Annotated[str | None, typer.Option(help="Version of the package.", show_default="0")] = None,
    portable: Annotated[
        bool, typer.Option("--portable/--no-portable", help="Add the untouched ONNX.")
    ] = True,
    tolerance: Tolerance = None,
    inputs: Inputs = None,
    check: Check = True,
    min_compiled: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="Refuse variants with fewer nodes compiled, 0 to 1.", show_default="any"
        ),
    ] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", "-k", help="Exit with 0 although targets failed.")
    ] = False,
    time_limit: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="For each worker process.", show_default="900")
    ] = None,
    memory_limit: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="For each worker process.", show_default="90 % of the machine's"),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Workers at once.", show_default="cores, memory")
    ] = None,
    executor: Annotated[
        str | None, typer.Option(metavar="dask://HOST:PORT", help="Have a Dask cluster do it.")
    ] = None,
    compress: Annotated[
        int | None,
        typer.Option(
            metavar="LEVEL", min=0, max=22, help="zstd level where it pays; 0: never.", show_default="3"
        ),
    ] = None,
    reuse: Annotated[
        bool, typer.Option("--reuse/--no-reuse", help="Take what earlier builds did, and keep this one's.")
    ] = True,
    explain_rebuild: Annotated[
        bool, typer.Option("--explain-rebuild", help="Say why each target was built anew.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a page to look at, too.")
    ] = None,
    extract: Annotated[
        str | None,
        typer.Option(metavar="flex", help="Make a component of each distinct FlexAttention subgraph, too."),
    ] = None,
    masked_rows: MaskedRows = None,
    lowering: Lowering = None,
    block: Block = None,
    kv_heads: KvHeads = None,
    custom_ops: CustomOps = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Compile a model, or what a build file says, for each target."""
    from aotpack.builder.build import one_model, refuse_input
    from aotpack.builder.spec import parse_constants, parse_shapes, parse_tolerances
    from aotpack.builder.spec_file import read_build_file

    shapes, own_shapes = parse_shapes(shape or [], target or [])
    overall, of_outputs = parse_tolerances(tolerance or [])
    flex_texts = {
        "--masked-rows": [masked_rows] if masked_rows else [],
        "--lowering": lowering or [],
        "--block": block or [],
        "--kv-heads": kv_heads or [],
    }
    given: dict[str, Sequence[object] | None] = {
        "--target": target,
        "--shape": shape,
        "--constant": constant,
        "--precision": precision,
        "--inputs": inputs,
        **flex_texts,
    }
    flex, own_flex = parse_flex(flex_texts, target or [])
    targets = targets_of(target or [], precision or [], own_shapes, own_flex)
    if model.suffix == ".toml":
        for option, value in given.items():
            if value:
                raise UsageError("is not for build files", where=option, hint=f"write it into {model}")
        spec = read_build_file(model)
    elif out is None:
        raise UsageError("is missing", where="--output", expected="a file to write the package to")
    else:
        spec = one_model(
            model,
            targets=targets,
            output=out,
            shapes=shapes,
            constants=parse_constants(constant or []),
            inputs=inputs or [],
            flex=flex,
            name=name,
        )
    refuse_input(out or spec.output, [model])
    memory = None if memory_limit is None else parse_size(memory_limit, "--memory-limit")
    changes: dict[str, Any] = {
        "output": out,
        "name": name,
        "version": version,
        "tolerance": overall,
        "tolerances": {**spec.tolerances, **of_outputs},
        "check": None if check else False,
        "min_compiled": min_compiled,
        "portable": None if portable else False,
        "jobs": jobs,
        "custom_ops": checked_libraries(custom_ops, where="--custom-ops") if custom_ops else None,
        "limits": Limits(
            seconds=spec.limits.seconds if time_limit is None else time_limit,
            memory=spec.limits.memory if memory is None else memory,
        ),
    }
    spec = replace(
        spec, **{key: value for key, value in changes.items() if value is not None}, reuse=reuse, force=force
    )
    if compress is not None:
        spec = replace(spec, compress=compress or None)
    if extract not in (None, "flex"):
        raise UnknownName("kind of subgraph in --extract", extract, ["flex"])
    if report is not None:
        check_page(report)
    with ExitStack() as stack:
        if extract is not None:
            from aotpack.builder.models.subgraphs import with_subgraphs

            scratch = stack.enter_context(scratch_folder("flex"))
            spec = with_subgraphs(spec, scratch)
        built = run_build(
            spec, as_json, executor=executor, keep_going=keep_going, page=report, explain=explain_rebuild
        )
    show_report(built, as_json, explain=explain_rebuild)
    write_page(built, report)


def run_build(
    spec: BuildSpec,
    as_json: bool,
    *,
    executor: str | None = None,
    keep_going: bool = False,
    page: Path | None = None,
    explain: bool = False,
) -> BuildReport:
    """Build with progress on the terminal; what failed is printed before its error goes on."""
    from aotpack.builder.build import build_spec

    with ExitStack() as stack:
        try:
            return build_spec(spec, executor=executor, keep_going=keep_going, on_event=build_progress(stack))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                "what was finished is kept for the next build" if spec.reuse else "nothing is kept"
            ) from None
        except BuildFailed as error:
            stack.close()
            show_report(error.report, as_json, explain=explain)
            write_page(error.report, page)
            raise


def targets_of(
    names: list[str],
    precisions: Sequence[str] = (),
    shapes: Mapping[str, Mapping[str, tuple[int, ...]]] = MappingProxyType({}),
    flex: Mapping[str, FlexSettings] = MappingProxyType({}),
) -> list[TargetSpec]:
    """The targets, each with the precision that was given for it or for all, and what is its own."""
    chosen: dict[str, str] = {}
    for text in precisions:
        target, _, precision = text.rpartition("=")
        if precision not in get_args(Precision):
            raise UsageError(
                "is no precision", where=f"--precision {text}", expected=", ".join(get_args(Precision))
            )
        if target and target not in names:
            raise UnknownName("target in --precision", target, names)
        chosen[target] = precision
    return [
        TargetSpec(
            target=name,
            precision=cast("Precision | None", chosen.get(name, chosen.get(""))),
            shapes=shapes.get(name, {}),
            flex=flex.get(name, FlexSettings()),
        )
        for name in names
    ]


def show_report(report: BuildReport, as_json: bool, *, explain: bool = False) -> None:
    """Print a build report."""
    if as_json:
        output.print_json(report)
        return
    components = list(dict.fromkeys(row.component for row in report.rows))
    several = len(components) > 1
    columns = [*_COLUMNS, *_MORE]
    lines: list[list[str]] = []
    for component in components:
        if several:
            lines.append([component, *[""] * (len(columns) - 1)])
        indent = "  " if several else ""
        lines += [_cells(row, indent) for row in report.rows if row.component == component]
    # Between columns are two spaces.
    taken = sum(max(map(len, column)) + 2 for column in list(zip(columns, *lines, strict=True))[:-1])
    room = output.console().width - taken
    if room < _LEAST_OF_STRING:
        columns, lines = _COLUMNS, [cells[: len(_COLUMNS)] for cells in lines]
    else:
        for cells in lines:
            cells[-1] = cells[-1] if len(cells[-1]) <= room else f"{cells[-1][: room - 1]}…"
    output.table(columns, lines, right=[*_COLUMNS[2:6], "nodes"])
    told: dict[str, list[str]] = {}
    for row in report.rows:
        called = f"{row.component}/{row.target}" if several else row.target
        why = row.why or ("Taken from an earlier build." if row.cached else "Nothing had to be done for it.")
        for text in (row.reason, why if explain else None):
            if text:
                told.setdefault(text, []).append(called)
    for text, names in told.items():
        output.paragraph(f"{', '.join(names)}: {text}")
    if report.package is not None and report.size is not None:
        output.print_text(f"{report.package}: {output.size(report.size)}, {report.seconds:.1f} s")


def _cells(row: Row, indent: str) -> list[str]:
    coverage, numerics = row.coverage, row.numerics
    state: str = "kept" if row.cached and row.state == "built" else row.state
    if coverage is not None and coverage.partitions and coverage.compiled < coverage.nodes:
        state = "partly"
    return [
        indent + row.target,
        state,
        row.steps_text,
        output.size(row.size) if row.size is not None else "",
        output.size(row.adds) if row.adds is not None else "",
        numerics.error_text if numerics is not None else "",
        numerics.ran_on if numerics is not None else "not run" if row.state == "built" else "",
        f"{coverage.compiled}/{coverage.nodes}" if coverage is not None and coverage.partitions else "",
        row.ep_string or "",
    ]
