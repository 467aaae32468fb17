from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aotpack.container import writer
from aotpack.container.reader import PackageReader
from aotpack.errors import OutputError, UsageError
from aotpack.manifest.values import ALIGNED_FROM, PAGE_SIZE
from tests.container.packages import contents_of, manifest_of, package


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def test_a_package_reads_back(tmp_path: Path) -> None:
    files = {"main": {"a": {"model.onnx": b"onnx", "model.bin": noise(3_000_000)}, "b": {"model.onnx": b""}}}
    path = package(tmp_path, files)
    assert contents_of(path) == files
    with PackageReader.open(path) as reader:
        reader.verify()


def test_equal_bytes_are_stored_once(tmp_path: Path) -> None:
    weights = noise(5_000_000)
    files = {
        "main": {
            "a": {"m.onnx": b"a", "m.bin": weights},
            "b": {"m.onnx": b"b", "m.bin": noise(100_000, 1) + weights},
        }
    }
    path = package(tmp_path, files, compress=None)
    assert contents_of(path) == files
    assert path.stat().st_size < 5_000_000 + 100_000 + 300_000


def test_runs_are_merged_into_few_segments(tmp_path: Path) -> None:
    path = package(tmp_path, {"main": {"a": {"m.bin": noise(20_000_000)}}}, compress=None)
    with PackageReader.open(path) as reader:
        assert len(reader.manifest.segments) <= 7


def test_only_what_pays_is_compressed(tmp_path: Path) -> None:
    files = {"main": {"a": {"random": noise(100_000), "text": b"weights " * 100_000}}}
    with PackageReader.open(package(tmp_path, files)) as reader:
        variant = reader.manifest.components[0].variants[0]
        codecs = [{reader.manifest.segments[s].codec for s in file.segments} for file in variant.files]
        assert codecs == [{"raw"}, {"zstd"}]
        assert reader.path is not None
        assert reader.path.stat().st_size < 150_000


def test_large_raw_segments_start_at_pages(tmp_path: Path) -> None:
    files = {"main": {"a": {"small": noise(100), "large": noise(300_000, 1), "other": noise(200_000, 2)}}}
    with PackageReader.open(package(tmp_path, files)) as reader:
        segments = reader.manifest.segments
        assert any(segment.size >= ALIGNED_FROM for segment in segments)
        assert all(segment.offset % PAGE_SIZE == 0 for segment in segments if segment.size >= ALIGNED_FROM)


def test_the_same_files_give_the_same_package(tmp_path: Path) -> None:
    files = {"main": {"a": {"m": noise(9_000_000)}, "b": {"m": noise(9_000_000)[100:] + b"x" * 500_000}}}
    first = package(tmp_path, files, output=tmp_path / "1.aotpack")
    second = package(tmp_path, files, output=tmp_path / "2.aotpack")
    assert first.read_bytes() == second.read_bytes()


def test_other_processes_give_the_same_package(tmp_path: Path) -> None:
    for number, size in enumerate((5_000_000, 3_000_000)):
        (tmp_path / str(number)).write_bytes(noise(size) + bytes(100_000 * number))
    script = """
import sys
from pathlib import Path
from aotpack.container import writer
from tests.container.packages import manifest_of

folder, workers = Path(sys.argv[1]), int(sys.argv[2])
writer._WORKERS, writer._ON_THE_WAY = workers, 2 * workers + 1
manifest = manifest_of({"main": {"a": {}, "b": {}}})
contents = {("main", each): [("m", folder / str(number))] for number, each in enumerate("ab")}
writer.write(folder / f"{workers}.aotpack", manifest, contents)
"""
    for workers in ("1", "7"):
        subprocess.run(
            [sys.executable, "-c", script, tmp_path, workers],
            check=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": workers},
        )
    assert (tmp_path / "1.aotpack").read_bytes() == (tmp_path / "7.aotpack").read_bytes()


def test_a_stored_file_is_copied_as_it_is(tmp_path: Path) -> None:
    files = {"main": {"a": {"m": b"abc" * 1_000_000, "n": noise(1_000_000)}, "b": {"m": b"abc" * 1_000_000}}}
    with PackageReader.open(package(tmp_path, files)) as reader:
        contents = {
            (component.name, variant.id): [
                (file.path, writer.StoredFile(reader, file)) for file in variant.files
            ]
            for component in reader.manifest.components
            for variant in component.variants
        }
        copy = tmp_path / "copy.aotpack"
        written = writer.write(copy, manifest_of(files), contents, compress=None)
        assert [s.codec for s in written.segments] == [s.codec for s in reader.manifest.segments]
    assert copy.read_bytes() == (tmp_path / "sample.aotpack").read_bytes()


def test_an_estimate_too_low_costs_a_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"main": {"a": {"m": noise(3_000_000)}}}
    monkeypatch.setattr(writer, "_estimated_length", lambda *_: 0)
    assert contents_of(package(tmp_path, files)) == files


def test_contents_of_other_variants_are_refused(tmp_path: Path) -> None:
    manifest = manifest_of({"main": {"a": {}}})
    with pytest.raises(UsageError, match="main/b"):
        writer.write(tmp_path / "x.aotpack", manifest, {("main", "b"): []})


@pytest.mark.parametrize("name", ["aux.bin", "weights/CON", "layer:0", "data.", "data ", "../up", "a\\b", ""])
def test_names_that_not_every_system_can_have_are_refused_before_anything_is_written(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(UsageError, match=r"^main/a: the file name .*\(name the file or its external data"):
        package(tmp_path, {"main": {"a": {"m.onnx": b"a", name: b"b"}}})
    assert not list(tmp_path.glob("*.aotpack*"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    manifest = manifest_of({"main": {"a": {}}})
    with pytest.raises(OutputError, match=r"gone\.onnx"):
        writer.write(tmp_path / "x.aotpack", manifest, {("main", "a"): [("m", tmp_path / "gone.onnx")]})
    assert list(tmp_path.iterdir()) == []


def test_progress_ends_at_all(tmp_path: Path) -> None:
    source = tmp_path / "m"
    source.write_bytes(noise(9_000_000))
    seen: list[tuple[int, int]] = []
    writer.write(
        tmp_path / "x.aotpack",
        manifest_of({"main": {"a": {}}}),
        {("main", "a"): [("m", source)]},
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (9_000_000, 9_000_000)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


# Pieces that files are put together from, so that they share some bytes and not others.
pieces = st.lists(
    st.one_of(
        st.binary(max_size=300),
        st.builds(noise, st.integers(1, 400_000), st.integers(0, 3)),
        st.builds(lambda size: bytes(size), st.integers(1, 700_000)),
    ),
    max_size=4,
).map(b"".join)
paths = st.sampled_from(["model.onnx", "model.bin", "weights/0.bin", "weights/1.bin", "é"])
variants = st.dictionaries(paths, pieces, min_size=1, max_size=3)
components = st.dictionaries(st.sampled_from("abc"), variants, min_size=1, max_size=3)
packages = st.dictionaries(st.sampled_from(["main", "flex"]), components, min_size=1, max_size=2)


@given(files=packages, level=st.sampled_from([None, 1, 3]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_files_read_back(
    tmp_path: Path, files: dict[str, dict[str, dict[str, bytes]]], level: int | None
) -> None:
    path = package(tmp_path, files, compress=level)
    assert contents_of(path) == files
    with PackageReader.open(path) as reader:
        reader.verify()
        stored = [segment.sha256 for segment in reader.manifest.segments]
        assert len(set(stored)) == len(stored)
        for component in reader.manifest.components:
            for variant in component.variants:
                for file in variant.files:
                    dest = tmp_path / "dest"
                    dest.unlink(missing_ok=True)
                    reader.copy_file(file, dest)
                    assert dest.read_bytes() == files[component.name][variant.id][file.path]
