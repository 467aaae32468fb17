"""What variants add and share, by a rule that must hold for any package."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from aotpack.builder.footprint import with_footprints
from aotpack.builder.report import Row
from aotpack.manifest.values import File, Manifest, Segment
from tests.container.packages import manifest_of

DIGEST = "0" * 64


@st.composite
def packages(draw: st.DrawFn) -> tuple[Manifest, list[Row]]:
    """Up to three components with up to three variants each, whose files are any segments, twice perhaps."""
    stored = draw(st.lists(st.integers(1, 10**9), min_size=1, max_size=8))
    indices = st.lists(st.integers(0, len(stored) - 1), max_size=6).map(tuple)
    names = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    bare = manifest_of({f"c{i}": {f"v{j}": {} for j in range(count)} for i, count in enumerate(names)})

    def files() -> tuple[File, ...]:
        drawn = draw(st.lists(indices, min_size=1, max_size=2))
        return tuple(
            File(path=f"f{number}", size=0, sha256=DIGEST, segments=each) for number, each in enumerate(drawn)
        )

    manifest = bare.replace(
        segments=tuple(
            Segment(offset=0, stored=size, size=1, codec="raw", sha256=DIGEST, xxh3="0" * 32)
            for size in stored
        ),
        components=tuple(
            component.replace(
                variants=tuple(variant.replace(files=files()) for variant in component.variants)
            )
            for component in bare.components
        ),
    )
    rows = [
        Row(target=variant.id, component=component.name, state="built", seconds=0, id=variant.id)
        for component in manifest.components
        for variant in component.variants
    ]
    failed = Row(target="x", component="c0", state="failed", seconds=0)
    return manifest, draw(st.permutations([*rows, failed]))


def used_by(manifest: Manifest, row: Row) -> set[int]:
    return {
        index
        for component in manifest.components
        for variant in component.variants
        if (component.name, variant.id) == (row.component, row.id)
        for file in variant.files
        for index in file.segments
    }


@given(packages())
def test_what_is_added_sums_to_the_package_and_sharing_is_mutual(package: tuple[Manifest, list[Row]]) -> None:
    manifest, rows = package
    filled = with_footprints(rows, manifest)
    assert [row.target for row in filled] == [row.target for row in rows]
    built = [row for row in filled if row.id is not None]
    every = set().union(*(used_by(manifest, row) for row in built))
    assert sum(row.adds or 0 for row in built) == sum(manifest.segments[index].stored for index in every)
    by_name: dict[str, Any] = {f"{row.component}/{row.id}": row for row in built}
    seen: set[int] = set()
    for name, row in by_name.items():
        own = used_by(manifest, row)
        assert row.stored == sum(manifest.segments[index].stored for index in own)
        # What it does not add is what those before it have.
        assert row.stored - row.adds == sum(manifest.segments[index].stored for index in own & seen)
        seen |= own
        assert name not in row.shares
        for other, shared in row.shares.items():
            assert 0 < shared <= min(row.stored, by_name[other].stored)
            assert by_name[other].shares[name] == shared


def test_a_row_without_a_variant_is_left_as_it_is() -> None:
    row = Row(target="x", component="c", state="failed", seconds=1)
    assert with_footprints([row], manifest_of({"c": {"v": {}}})) == (row,)
