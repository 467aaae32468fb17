"""A package that is there as the report of a build, for its page: without times, with records."""

from __future__ import annotations

from pathlib import Path

from aotpack.builder.footprint import with_footprints
from aotpack.builder.report import BuildReport, Row
from aotpack.manifest.values import Component, Manifest, Variant

__all__ = ["packaged_report"]


def packaged_report(path: Path, manifest: Manifest) -> BuildReport:
    """One row for each variant of the package at `path`.

    Raises:
        OSError: it is gone.
    """
    rows = [_row(component, variant) for component in manifest.components for variant in component.variants]
    return BuildReport(package=str(path), size=path.stat().st_size, rows=with_footprints(rows, manifest))


def _row(component: Component, variant: Variant) -> Row:
    return Row(
        target=variant.target,
        component=component.name,
        state="built",
        seconds=0.0,
        id=variant.id,
        reason=variant.not_compared,
        size=variant.size,
        ep_string=variant.compatibility.ep_string,
        coverage=variant.coverage,
        numerics=variant.numerics,
        records=variant.records,
    )
