from __future__ import annotations

import random
from pathlib import Path

from aotpack.container.reader import PackageReader
from aotpack.container.writer import write
from aotpack.runtime.difference import Difference, diff
from tests.container.packages import Files, manifest_of, package

WEIGHTS = random.Random(5).randbytes(1_000_000)


def difference(tmp_path: Path, before: Files, after: Files) -> Difference:
    paths = [package(tmp_path, files, name=name) for name, files in (("before", before), ("after", after))]
    with PackageReader.open(paths[0]) as one, PackageReader.open(paths[1]) as other:
        return diff(one, other)


def test_variants_that_came_went_and_changed(tmp_path: Path) -> None:
    found = difference(
        tmp_path,
        {"main": {"same": {"m": b"s"}, "gone": {"m": b"gone"}, "changed": {"m": b"old", "n": WEIGHTS}}},
        {"main": {"same": {"m": b"s"}, "changed": {"m": b"newer", "n": WEIGHTS}, "new": {"m": b"12345"}}},
    )
    assert [(v.kind, v.id, v.size_before, v.size_after) for v in found.variants] == [
        ("removed", "gone", 4, 0),
        ("changed", "changed", 1_000_003, 1_000_005),
        ("added", "new", 0, 5),
    ]
    assert [change.field for change in found.variants[1].changes] == ["files.m.size", "files.m.sha256"]
    assert [(change.field, change.before, change.after) for change in found.changes] == [
        ("name", "before", "after")
    ]
    assert found.bytes_shared == 1_000_001
    assert found.bytes_before == 1_000_001 + 4 + 3


def test_shared_bytes_are_found_whatever_the_segments(tmp_path: Path) -> None:
    found = difference(
        tmp_path,
        {"main": {"a": {"m": WEIGHTS}}},
        {"main": {"b": {"m": WEIGHTS[:600_000] + bytes(10) + WEIGHTS[600_000:]}}},
    )
    assert found.bytes_shared > 900_000


def test_a_package_is_no_different_from_itself(tmp_path: Path) -> None:
    path = package(tmp_path, {"main": {"a": {"m": WEIGHTS}}})
    with PackageReader.open(path) as one, PackageReader.open(path) as other:
        found = diff(one, other)
    assert found.is_empty
    assert found.bytes_shared == found.bytes_before == found.bytes_after == len(WEIGHTS)


def test_another_licence_is_a_difference(tmp_path: Path) -> None:
    files: Files = {"main": {"a": {"m": b"m"}}}
    paths = []
    for spdx in ("MIT", None):
        paths.append(tmp_path / f"{spdx}.aotpack")
        (tmp_path / "m").write_bytes(b"m")
        manifest = manifest_of(files).replace(license=spdx)
        write(paths[-1], manifest, {("main", "a"): [("m", tmp_path / "m")]})
    with PackageReader.open(paths[0]) as one, PackageReader.open(paths[1]) as other:
        (change,) = diff(one, other).changes
    assert (change.field, change.before, change.after) == ("license", "MIT", None)
