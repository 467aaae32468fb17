"""``aotpack inspect``.

::

    aotpack inspect m.aotpack
    aotpack inspect m.aotpack --json
    aotpack inspect m.aotpack --report page.html
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aotpack.cli import output
from aotpack.cli.options import AsJson, PackagePath
from aotpack.selection.shapes import shape_text
from aotpack.targets.catalogue import PORTABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aotpack.manifest.values import Component, Numerics, Variant
    from aotpack.runtime.package import Package
    from aotpack.runtime.refusals import RefusedVariant

__all__ = ["inspect"]


def inspect(
    package: PackagePath,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="Write a page to look at, too.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what is in a package; only its manifest is read."""
    from aotpack.runtime.package import open_package
    from aotpack.runtime.refusals import refused

    with open_package(package) as opened:
        manifest = opened.manifest
        found = refused(manifest.components)
        if report is not None:
            from aotpack.builder.packaged_report import packaged_report
            from aotpack.cli.extra_file import write_page

            write_page(packaged_report(package, manifest), report)
        if not as_json:
            _show(opened, {(each.component, each.variant): each for each in found})
        elif found:
            from aotpack.documents.verbs import InspectDocument

            output.print_json(InspectDocument.of(manifest, found))
        else:
            output.print_json(manifest)


def _show(package: Package, refused: Mapping[tuple[str, str], RefusedVariant]) -> None:
    manifest = package.manifest
    stored = sum(segment.stored for segment in manifest.segments)
    files = sum(variant.size for variant in manifest.variants())
    output.print_text(
        f"{manifest.name} {manifest.version} (format {manifest.aotpack}), sha256 {package.digest}"
    )
    output.print_text(
        f"{output.size(files)} of files in {output.size(stored)}, {len(manifest.segments)} segments"
    )
    for component in manifest.components:
        _show_component(component, refused)


def _show_component(component: Component, refused: Mapping[tuple[str, str], RefusedVariant]) -> None:
    opsets = ", ".join(
        f"{domain or 'ai.onnx'} {version}" for domain, version in component.source.opsets.items()
    )
    output.print_text(f"\ncomponent {component.name} ({component.kind}; opset {opsets})")
    for kind, values in (("in", component.inputs), ("out", component.outputs)):
        for value in values:
            output.print_text(f"  {kind:<4}{value.name}: {value.dtype} {shape_text(value.shape)}")
    output.print_text("")
    output.table(
        ["variant", "device", "size", "nodes", "error", "ran on"],
        [_cells(variant) for variant in component.variants],
        right=["size", "nodes", "error"],
    )
    for variant in component.variants:
        output.print_text(f"{variant.id}")
        if refusal := refused.get((component.name, variant.id)):
            output.paragraph(f"  UNSUPPORTED everywhere [{refusal.code}]: {refusal.reason}")
        if variant.target != PORTABLE and variant.shapes:
            shapes = ", ".join(f"{name} {shape_text(shape)}" for name, shape in variant.shapes.items())
            output.print_text(f"  shapes   {shapes}")
        output.print_text(f"  string   {variant.compatibility.ep_string or 'none (the EP writes none)'}")
        needs = variant.compatibility.requires.to_builtins()
        shown = "; ".join(
            f"{key} {value if isinstance(value, str) else ', '.join(value)}" for key, value in needs.items()
        )
        output.print_text(f"  needs    {shown or 'nothing beside its EP'}")
        if variant.built_with:
            output.print_text(
                "  built by " + ", ".join(f"{key} {value}" for key, value in variant.built_with.items())
            )
        _show_checks(variant)
        if variant.coverage is not None and variant.coverage.left_on_cpu:
            left = ", ".join(f"{count} {kind}" for kind, count in variant.coverage.left_on_cpu.items())
            output.print_text(f"  on CPU   {left}")


def _cells(variant: Variant) -> list[str]:
    coverage, numerics = variant.coverage, variant.numerics
    return [
        variant.id,
        variant.device,
        output.size(variant.size),
        f"{coverage.compiled}/{coverage.nodes}" if coverage is not None and coverage.partitions else "",
        numerics.error_text if numerics is not None else "",
        _ran_on(variant),
    ]


def _ran_on(variant: Variant) -> str:
    good = [
        record
        for record in variant.records
        if record.failure is None and record.numerics is not None and record.numerics.ran_on == "host"
    ]
    machines = f"{len(good)} {'machine' if len(good) == 1 else 'machines'}" if good else ""
    here = variant.numerics.ran_on if variant.numerics is not None else ""
    return ", ".join(filter(None, (here, machines))) or "has not run"


def _show_checks(variant: Variant) -> None:
    """What its numbers were compared with, output by output, and what other machines found."""
    if variant.not_compared is not None:
        output.paragraph(variant.not_compared, "  numbers  ", "           ")
    if variant.numerics is not None and variant.numerics.outputs:
        _show_numerics(variant.numerics, "  numbers  ")
    for record in variant.records:
        versions = ", ".join(f"{key} {value}" for key, value in record.versions.items())
        times = "" if record.run_seconds is None else f", {record.run_seconds * 1e3:.2f} ms a run"
        driver = "" if record.driver is None else f", driver {record.driver}"
        output.paragraph(
            f"{record.machine} ({record.os} {record.arch}{driver}; {versions}){times}",
            "  checked  ",
            "           ",
        )
        if record.failure is not None:
            output.paragraph(record.failure, "           ", "           ")
        if record.numerics is not None:
            _show_numerics(record.numerics, "           ")


def _show_numerics(numerics: Numerics, first: str) -> None:
    whose = "given" if numerics.inputs == "given" else "made-up"
    count = f"{numerics.samples} {'sample' if numerics.samples == 1 else 'samples'}"
    output.print_text(f"{first}{numerics.ran_on}, on {count} of {whose} inputs")
    for each in numerics.outputs:
        if each.not_compared is not None:
            told = f"not compared: {each.not_compared}"
        else:
            told = f"{each.measure} error {each.error:.1e} of at most {each.tolerance:.1e}"
            told += "" if each.cosine is None else f", cosine {each.cosine:.6f}"
            told += "" if each.remark is None else f"; {each.remark}"
        output.paragraph(f"{each.name}: {told}", "           ", "             ")
