"""Rebuild the stale variants of a package with the toolchains of this machine, and only those."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from aotpack.builder.build import build
from aotpack.builder.repair import shapes_of
from aotpack.builder.report import BuildReport, Row
from aotpack.builder.schedule import Event
from aotpack.container.partial import check_writable
from aotpack.doctor import Finding, examine
from aotpack.edit import adopt, prune
from aotpack.errors import BuildFailed, UsageError
from aotpack.machine import Machine, probe
from aotpack.manifest import Component
from aotpack.package import Package, open_package
from aotpack.target import PORTABLE

__all__ = ["refresh"]


def refresh(
    package: Path, output: Path, *, machine: Machine | None = None, on_event: Event | None = None
) -> BuildReport:
    """Write a package in which the variants that `aotpack.doctor.examine` calls stale are compiled anew.

    They are compiled for the same targets and shapes, from the portable ONNX of their component. One that
    cannot be compiled here stays as it is. All others are copied as they are stored.

    Args:
        package: the package, which is left as it is unless it is `output`.
        output: the package to write.
        machine: whose runtimes make a variant stale; by default this computer's.
        on_event: as for `aotpack.build`.

    Raises:
        UsageError: a component with stale variants has no portable one.
        PackageError, OutputError: the package is damaged, or `output` cannot be written.
    """
    check_writable(output)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="aotpack-refresh-") as scratch:
        latest = package
        with open_package(package) as opened:
            stale = [item for item in examine(opened.manifest, machine or probe()) if item.state == "stale"]
            for index, component in enumerate(opened.manifest.components):
                mine = [item for item in stale if item.component == component.name]
                if mine:
                    folder = Path(scratch) / str(index)
                    folder.mkdir()
                    latest, built = _rebuild(opened, component, mine, latest, folder, on_event)
                    rows.extend(built)
        seconds = sum(row.seconds for row in rows)
        if latest != package or output != package:
            with open_package(latest) as done:
                prune(done.reader, output)
    return BuildReport(package=str(output), size=output.stat().st_size, seconds=seconds, rows=tuple(rows))


def _rebuild(
    opened: Package,
    component: Component,
    stale: Iterable[Finding],
    latest: Path,
    folder: Path,
    on_event: Event | None,
) -> tuple[Path, list[Row]]:
    """The package with what could be rebuilt, and a row for each stale variant."""
    portable = next((variant for variant in component.variants if variant.target == PORTABLE), None)
    if portable is None:
        raise UsageError(
            "has no portable variant to compile from",
            where=f"{opened.name}: component {component.name}",
            hint="build it again with `aotpack build`",
        )
    model, *_ = opened.extract(portable.id, folder / "portable", component=component.name)
    rows: list[Row] = []
    for index, finding in enumerate(stale):
        variant = finding.variant
        old = folder / f"old-{index}.onnx"
        opened.reader.copy_file(variant.files[0], old)
        built = folder / f"built-{index}.aotpack"
        report = _build(model, variant.target, built, component, shapes_of(old), on_event)
        rows.extend(report.rows)
        if report.package is None:
            continue
        grown, pruned = folder / f"grown-{index}.aotpack", folder / f"pruned-{index}.aotpack"
        with open_package(latest) as before, open_package(built) as new:
            adopt(before.reader, before.component(component.name), new.reader, grown)
            (fresh,) = new.component().variants
        with open_package(grown) as package:
            prune(package.reader, pruned, drop=[variant.id] if fresh.id != variant.id else [])
        latest = pruned
    return latest, rows


def _build(
    model: Path,
    target: str,
    output: Path,
    component: Component,
    shapes: dict[str, tuple[int, ...]],
    on_event: Event | None,
) -> BuildReport:
    wanted = {info.name for info in component.inputs}
    try:
        return build(
            model,
            targets=[target],
            output=output,
            shapes={name: shape for name, shape in shapes.items() if name in wanted},
            name=component.name,
            portable=False,
            on_event=on_event,
        )
    except BuildFailed as error:
        return error.report
