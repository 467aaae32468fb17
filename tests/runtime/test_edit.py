from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from aotpack.container.reader import PackageReader
from aotpack.errors import UnknownName, UsageError
from aotpack.machine.profile import parse_profile
from aotpack.runtime import edit
from tests.container.packages import Files, contents_of, package

WEIGHTS = random.Random(3).randbytes(2_000_000)
SOURCE = b"portable" + WEIGHTS

#: As three build machines would make them: each has the portable variant.
ONE: Files = {"main": {"portable": {"model.onnx": SOURCE}, "a": {"m.onnx": b"a", "m.bin": WEIGHTS + b"a"}}}
TWO: Files = {"main": {"portable": {"model.onnx": SOURCE}, "b": {"m.onnx": b"b", "m.bin": b"bb" + WEIGHTS}}}
TEXT: Files = {"other": {"c": {"m.onnx": bytes(random.Random(4).choices(b"weights", k=500_000))}}}


def merge(output: Path, *packages: Path) -> None:
    with ExitStack() as stack:
        edit.merge([stack.enter_context(PackageReader.open(path)) for path in packages], output)


def test_merged_packages_hold_what_all_held(tmp_path: Path) -> None:
    paths = [
        package(tmp_path, files, name=name) for name, files in (("one", ONE), ("two", TWO), ("text", TEXT))
    ]
    merged = tmp_path / "merged.aotpack"
    merge(merged, *paths)
    assert contents_of(merged) == {
        "main": {**ONE["main"], **TWO["main"]},
        "other": TEXT["other"],
    }
    with PackageReader.open(merged) as reader:
        reader.verify()
        assert reader.manifest.name == "one"
    # What the packages share is found although no two of them were built together.
    assert merged.stat().st_size < len(SOURCE) + paths[2].stat().st_size + 20_000


def test_the_portable_variant_is_last_in_a_merged_package_too(tmp_path: Path) -> None:
    paths = [
        package(tmp_path, {"main": {name: {"m": name.encode()}}}, name=name, target=target)
        for name, target in (("a", "ort-cpu"), ("p", "portable"), ("b", "ort-cpu"))
    ]
    merge(tmp_path / "merged.aotpack", *paths)
    assert list(contents_of(tmp_path / "merged.aotpack")["main"]) == ["a", "b", "p"]


def test_merging_is_as_good_as_building_together(tmp_path: Path) -> None:
    one, two = package(tmp_path, ONE, name="one"), package(tmp_path, TWO, name="two")
    merge(tmp_path / "merged.aotpack", one, two)
    together = package(tmp_path, {"main": {**ONE["main"], **TWO["main"]}}, name="together")
    assert (tmp_path / "merged.aotpack").stat().st_size < together.stat().st_size + 10_000


def test_what_stays_whole_is_not_compressed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, text = package(tmp_path, ONE, name="one"), package(tmp_path, TEXT, name="text")
    monkeypatch.setattr("aotpack.container.writer._stored_anew", None)
    merge(tmp_path / "merged.aotpack", one, text)
    assert contents_of(tmp_path / "merged.aotpack") == {**ONE, **TEXT}


def test_a_package_merged_with_itself_is_itself(tmp_path: Path) -> None:
    one = package(tmp_path, ONE, name="one")
    before = one.read_bytes()
    merge(one, one, one)
    assert one.read_bytes() == before


def test_another_model_is_not_merged(tmp_path: Path) -> None:
    one = package(tmp_path, ONE, name="one")
    other = package(tmp_path, {"main": {"x": {"m": b"x"}}}, name="other", source=b"another model")
    with pytest.raises(UsageError, match="component main: has another source"):
        merge(tmp_path / "merged.aotpack", one, other)
    assert not (tmp_path / "merged.aotpack").exists()


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ({"name": "two words"}, "two words: is not a valid package name"),
        ({"name": ""}, "'': is not a valid package name"),
        ({"version": "1\n"}, r"'1\\n': is no version of a package"),
        ({"version": "\udcff"}, r"'\\udcff': is no version of a package"),
        ({"version": "1" * 2000}, "at most 1024 printable characters"),
    ],
)
def test_a_title_that_no_manifest_can_have(tmp_path: Path, title: dict[str, Any], expected: str) -> None:
    with (
        PackageReader.open(package(tmp_path, ONE, name="one")) as reader,
        pytest.raises(UsageError, match=expected),
    ):
        edit.merge([reader], tmp_path / "merged.aotpack", **title)
    assert not (tmp_path / "merged.aotpack").exists()


def test_nothing_to_merge(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to merge"):
        edit.merge([], tmp_path / "merged.aotpack")


@pytest.fixture
def both(tmp_path: Path) -> Iterator[PackageReader]:
    with PackageReader.open(package(tmp_path, {"main": {**ONE["main"], **TWO["main"]}})) as reader:
        yield reader


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"keep": ["a", "portable"]}, ["portable", "a"]),
        ({"drop": ["b"]}, ["portable", "a"]),
        ({"keep": ["ort-cpu"], "drop": ["portable"]}, ["a", "b"]),
        ({}, ["portable", "a", "b"]),
    ],
)
def test_prune_keeps_what_is_asked(
    both: PackageReader, tmp_path: Path, options: dict[str, Any], left: list[str]
) -> None:
    edit.prune(both, tmp_path / "pruned.aotpack", **options)
    everything = contents_of(tmp_path / "sample.aotpack")["main"]
    assert contents_of(tmp_path / "pruned.aotpack") == {"main": {name: everything[name] for name in left}}
    with PackageReader.open(tmp_path / "pruned.aotpack") as reader:
        reader.verify()


def test_prune_leaves_no_bytes_behind(both: PackageReader, tmp_path: Path) -> None:
    manifest = edit.prune(both, tmp_path / "pruned.aotpack", keep=["portable"])
    assert sum(segment.size for segment in manifest.segments) == len(SOURCE)


def test_prune_for_a_machine(tmp_path: Path) -> None:
    path = package(tmp_path, ONE, requires={"a": {"os": ("windows",)}})
    machine = parse_profile(b'{"os": "linux", "arch": "x86_64", "onnxruntime": "1.32.0"}', where="profile")
    with PackageReader.open(path) as reader:
        edit.prune(reader, tmp_path / "pruned.aotpack", machines=[machine])
    assert list(contents_of(tmp_path / "pruned.aotpack")["main"]) == ["portable"]


def test_prune_of_everything_or_nothing_known_is_refused(both: PackageReader, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="component main: would be left without variants"):
        edit.prune(both, tmp_path / "pruned.aotpack", drop=["ort-cpu"])
    with pytest.raises(UnknownName, match="did you mean portable"):
        edit.prune(both, tmp_path / "pruned.aotpack", keep=["portabel"])
    assert not (tmp_path / "pruned.aotpack").exists()
