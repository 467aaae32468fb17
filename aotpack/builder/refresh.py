"""Rebuild the stale variants of a package with the toolchains of this machine, and only those."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from aotpack.builder.build import build
from aotpack.builder.jobs.libraries import check_loadable
from aotpack.builder.jobs.supervise import Workers
from aotpack.builder.numerics.samples import sample_files
from aotpack.builder.repair import compiled_shapes
from aotpack.builder.report import BuildReport, Row
from aotpack.builder.spec import TargetSpec, check_tolerances
from aotpack.cache.variants import Cache
from aotpack.container.model_files import check_packaged_model
from aotpack.container.partial import check_writable
from aotpack.errors import BuildFailed, UnknownName, UsageError
from aotpack.files.scratch import scratch_folder
from aotpack.machine.profile import Machine
from aotpack.manifest.model_check import ANY_DOMAIN, Allowance
from aotpack.manifest.values import Component, Variant
from aotpack.runtime.doctor import Finding, examine
from aotpack.runtime.edit import adopt, prune
from aotpack.runtime.events import OnEvent
from aotpack.runtime.package import Package, open_package
from aotpack.runtime.probing import probe
from aotpack.selection.custom_ops import GivenLibraries, checked_libraries
from aotpack.targets.catalogue import PORTABLE, Precision, Target, catalogue
from aotpack.toolchains import toolchains

__all__ = ["refresh"]


def refresh(
    package: Path,
    output: Path,
    *,
    machine: Machine | None = None,
    tolerance: float | None = None,
    tolerances: Mapping[str, float] = MappingProxyType({}),
    inputs: Sequence[str | os.PathLike[str]] = (),
    check: bool = True,
    on_event: OnEvent | None = None,
    force: bool = False,
    custom_ops: GivenLibraries = (),
    cache: Cache | None = None,
) -> BuildReport:
    """Write a package in which those variants are compiled anew that `aotpack.runtime.doctor` calls stale.

    They are compiled for the same targets, options and shapes, from the portable ONNX of their component. One
    that cannot be compiled here stays as it is. All others are copied as they are stored.

    Args:
        package: the package, which is left as it is unless it is `output`.
        output: the package to write.
        machine: whose runtimes make a variant stale; by default this computer's.
        tolerance: the largest error; by default by precision, whatever the former build was told.
        tolerances: output to its own.
        inputs: what variants are compared on, as for `aotpack.build`.
        check: run variants that can run here, and compare them with the portable model.
        on_event: as for `aotpack.build`.
        force: replace a file at `output` that is not a package, too.
        custom_ops: as for `aotpack.build`.
        cache: of results of builds; by default the user's.

    Raises:
        UsageError: a component with stale variants has no portable one, a library cannot be loaded, no
            component has an output of a tolerance, or there are no such inputs.
        PackageError, OutputError: the package is damaged, or `output` cannot be written.
    """
    check_tolerances(tolerance, tolerances)
    samples = [Path(each) for each in inputs]
    sample_files(samples)
    check_writable(output, force=force)
    libraries = checked_libraries(custom_ops)
    with Workers() as workers:
        check_loadable(libraries, workers)
    rows: list[Row] = []
    with scratch_folder("refresh") as scratch:
        latest = package
        with open_package(package, cache=cache) as opened:
            known = {info.name for component in opened.manifest.components for info in component.outputs}
            for name in tolerances:
                if name not in known:
                    raise UnknownName("output with a tolerance", name, known)
            settings = _Settings(
                tolerance=tolerance,
                tolerances=tolerances,
                passed_on={
                    "inputs": samples,
                    "check": check,
                    "on_event": on_event,
                    "custom_ops": libraries,
                    "cache": opened.cache,
                },
            )
            stale = [item for item in examine(opened.manifest, machine or probe()) if item.state == "stale"]
            for index, component in enumerate(opened.manifest.components):
                mine = [item for item in stale if item.component == component.name]
                if mine:
                    folder = scratch / str(index)
                    folder.mkdir()
                    latest, built = _rebuild(opened, component, mine, latest, folder, settings)
                    rows.extend(built)
        seconds = sum(row.seconds for row in rows)
        if latest != package or output != package:
            with open_package(latest) as done:
                prune(done.reader, output, force=force)
    return BuildReport(package=str(output), size=output.stat().st_size, seconds=seconds, rows=tuple(rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    """What the user says of all variants that are compiled."""

    tolerance: float | None
    tolerances: Mapping[str, float]
    #: To `aotpack.build`, as it is.
    passed_on: Mapping[str, Any]


#: What is lost where each component is compiled by itself; sessions are told to share by their settings.
_ALONE = "It shares no weights with other components any more; `aotpack build` makes variants that do"


def _rebuild(
    opened: Package,
    component: Component,
    stale: Iterable[Finding],
    latest: Path,
    folder: Path,
    settings: _Settings,
) -> tuple[Path, list[Row]]:
    """The package with what could be rebuilt, and a row for each stale variant."""
    portable = next((variant for variant in component.variants if variant.target == PORTABLE), None)
    if portable is None:
        raise UsageError(
            "has no portable variant to compile from",
            where=f"{opened.name}: component {component.name}",
            hint="build it again with `aotpack build`",
        )
    check_packaged_model(opened.reader, portable, Allowance(domains=ANY_DOMAIN))
    model, *_ = opened.extract(portable.id, folder / "portable", component=component.name)
    rows: list[Row] = []
    for index, finding in enumerate(stale):
        variant = finding.variant
        built = folder / f"built-{index}.aotpack"
        shapes = compiled_shapes(opened.reader, variant)
        report = _build(model, variant, built, component, shapes, settings)
        # A build of one model calls its component otherwise.
        named = [row.replace(component=component.name) for row in report.rows]
        if report.package is None:
            rows += named
            continue
        grown = folder / f"grown-{index}.aotpack"
        with open_package(latest) as before, open_package(built) as new:
            now = before.component(component.name)
            adopt(before.reader, now, new.reader, grown, instead_of=variant.id)
            (fresh,) = new.component().variants
        alone = variant.session.config.keys() - fresh.session.config.keys()
        rows += [row.replace(reason=_ALONE) if alone else row for row in named]
        latest = grown
    return latest, rows


def _build(
    model: Path,
    variant: Variant,
    output: Path,
    component: Component,
    shapes: dict[str, tuple[int, ...]],
    settings: _Settings,
) -> BuildReport:
    wanted = {info.name for info in component.inputs}
    outputs = {info.name for info in component.outputs}
    own = {name: value for name, value in settings.tolerances.items() if name in outputs}
    try:
        return build(
            model,
            targets=[replace(_target_of(variant), tolerance=settings.tolerance, tolerances=own)],
            output=output,
            shapes={name: shape for name, shape in shapes.items() if name in wanted},
            name=component.name,
            portable=False,
            **settings.passed_on,
        )
    except BuildFailed as error:
        return error.report
    except UsageError as error:
        # It costs its own row, and the variant stays as it is.
        row = Row(
            target=variant.target, component=component.name, state="failed", seconds=0.0, reason=str(error)
        )
        return BuildReport(package=None, rows=(row,))


def _target_of(variant: Variant) -> TargetSpec:
    """What compiles such a variant again; a build file may have changed its target, and called it otherwise.

    Raises:
        UsageError: it is called otherwise, and nothing else tells which of the known targets it was.
    """
    known = toolchains()
    own = known.get(variant.toolchain)
    named = own.target_named(variant.target) if own is not None else None
    all_known = catalogue(target for toolchain in known.values() for target in toolchain.targets())
    base = named or all_known.get(variant.target) or _alike(variant, all_known.values())
    return TargetSpec(
        target=base.name,
        name=variant.target,
        options=variant.session.provider_options,
        precision=None if variant.precision == base.precision else cast(Precision, variant.precision),
    )


def _alike(variant: Variant, known: Iterable[Target]) -> Target:
    options = variant.session.provider_options
    alike = [
        target
        for target in known
        if (target.toolchain, target.device, target.specificity, target.requires.isa)
        == (variant.toolchain, variant.device, variant.specificity, variant.compatibility.requires.isa)
        and target.provider_options.keys() <= options.keys()
    ]
    # Told its options a target differs from another one in these alone.
    if len({(target.architectures, tuple(target.environment.items())) for target in alike}) != 1:
        raise UsageError(
            "its target is none that is known here",
            where=variant.target,
            hint="build it again with `aotpack build`",
        )
    return max(alike, key=lambda target: len(target.provider_options.items() & options.items()))
