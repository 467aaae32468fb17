"""What each variant adds to a package, and what it shares with which other one."""

from __future__ import annotations

from collections.abc import Iterable

from aotpack.builder.report import Row
from aotpack.manifest.values import Manifest

__all__ = ["with_footprints"]


def with_footprints(rows: Iterable[Row], manifest: Manifest) -> tuple[Row, ...]:
    """`rows` with `stored`, `adds` and `shares` filled in, in bytes as they are stored.

    Args:
        rows: of the build; their order decides who adds what several have.
        manifest: of the package that was written.
    """
    stored = [segment.stored for segment in manifest.segments]
    segments = {
        (component.name, variant.id): frozenset(index for file in variant.files for index in file.segments)
        for component in manifest.components
        for variant in component.variants
    }
    seen: set[int] = set()
    filled = []
    for row in rows:
        own = segments.get((row.component, row.id or ""))
        if own is None:
            filled.append(row)
            continue
        shares = {
            f"{component}/{variant}": sum(stored[index] for index in own & theirs)
            for (component, variant), theirs in segments.items()
            if (component, variant) != (row.component, row.id) and own & theirs
        }
        filled.append(
            row.replace(
                stored=sum(stored[index] for index in own),
                adds=sum(stored[index] for index in own - seen),
                shares=shares,
            )
        )
        seen |= own
    return tuple(filled)
