"""Segments of open packages are decompressed once while others are made of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aotpack.container import reader as reader_module
from aotpack.container.format import decompress
from aotpack.container.reader import PackageReader
from aotpack.container.unpacked import Unpacked
from aotpack.container.writer import write
from aotpack.errors import DigestMismatch, FormatError
from aotpack.manifest.values import Component, Manifest, Source, Variant
from aotpack.runtime.edit import adopt, merge

#: Bytes of the weights of each package.
SIZE = 12_000_000


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two packages of one variant each, which have the same weights in another order."""
    folder = tmp_path_factory.mktemp("packages")
    weights = np.random.default_rng(0).standard_normal(SIZE // 4).astype(np.float32).tobytes()
    parts = [weights[start : start + 300_001] for start in range(0, SIZE, 300_001)]
    random.Random(1).shuffle(parts)
    return package(folder, "one", weights), package(folder, "other", b"header" + b"".join(parts))


def package(folder: Path, name: str, content: bytes) -> Path:
    variant = Variant(id=name, target=name, toolchain="ort", ep="CPUExecutionProvider", device="cpu")
    source = Source(sha256="a" * 64, size=1, opsets={"": 17})
    component = Component(name="main", source=source, inputs=(), outputs=(), variants=(variant,))
    (folder / name).write_bytes(content)
    output = folder / f"{name}.aotpack"
    write(
        output,
        Manifest(name=name, components=(component,)),
        {("main", name): [("model.onnx", folder / name)]},
    )
    return output


@pytest.fixture
def decompressed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all segments that are decompressed."""
    sizes: list[int] = []
    inner: Callable[[bytes, int, str], bytes] = decompress

    def counting(stored: bytes, size: int, where: str) -> bytes:
        if "segments" in where:
            sizes.append(size)
        return inner(stored, size, where)

    monkeypatch.setattr(reader_module, "decompress", counting)
    return sizes


@pytest.mark.parametrize("verb", ["adopt", "merge"])
def test_a_segment_is_decompressed_once_however_many_parts_it_is_split_into(
    packages: tuple[Path, Path], tmp_path: Path, decompressed: list[int], verb: str
) -> None:
    output = tmp_path / "both.aotpack"
    with PackageReader.open(packages[0]) as one, PackageReader.open(packages[1]) as other:
        if verb == "adopt":
            made = adopt(one, one.manifest.components[0], other, output)
        else:
            made = merge([one, other], output)
        segments = [*one.manifest.segments, *other.manifest.segments]
    assert len(made.segments) > len(segments), "they were split"
    assert sum(segment.size for segment in made.segments) < 1.05 * SIZE, "and shared"
    assert sum(decompressed) <= sum(segment.size for segment in segments if segment.codec == "zstd")
    with PackageReader.open(output) as both:
        both.verify()


def test_taking_variants_out_decompresses_each_segment_once(
    packages: tuple[Path, Path], tmp_path: Path, decompressed: list[int]
) -> None:
    with PackageReader.open(packages[0]) as one:
        merge([one], tmp_path / "copy.aotpack")
        assert sum(decompressed) <= sum(segment.size for segment in one.manifest.segments)


@pytest.mark.parametrize("max_memory", [0, 5_000_000, 1 << 30])
def test_parts_are_those_of_the_segment_whether_kept_in_memory_or_not(
    packages: tuple[Path, Path], tmp_path: Path, decompressed: list[int], max_memory: int
) -> None:
    chance = random.Random(max_memory)
    with PackageReader.open(packages[0]) as reader, Unpacked(tmp_path, max_memory=max_memory) as unpacked:
        whole = [reader.read_segment(index) for index in range(len(reader.manifest.segments))]
        decompressed.clear()
        for _ in range(100):
            index = chance.randrange(len(whole))
            first = chance.randrange(len(whole[index]))
            length = chance.randrange(len(whole[index]) - first + 1)
            part = unpacked.read(reader, index, first, length)
            assert part == whole[index][first : first + length]
        assert len(decompressed) <= len(whole)
        assert not list(tmp_path.iterdir()), "the file has no name"


@pytest.mark.parametrize("read_before", [False, True])
def test_a_segment_that_changes_meanwhile_is_not_taken_over(
    packages: tuple[Path, Path], tmp_path: Path, read_before: bool
) -> None:
    copy = tmp_path / "copy.aotpack"
    copy.write_bytes(packages[0].read_bytes())
    with PackageReader.open(copy) as reader, Unpacked() as unpacked:
        if read_before:
            unpacked.read(reader, 0, 0, 1)
        assert unpacked.stored(reader, 0) == reader.read_stored(0)
        segment = reader.manifest.segments[0]
        with copy.open("r+b") as file:
            file.seek(segment.offset + segment.stored - 9)
            file.write(b"\xff" * 8)
        with pytest.raises((DigestMismatch, FormatError)):
            unpacked.stored(reader, 0)
