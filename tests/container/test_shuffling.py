"""The shuffle filter is what docs/format.md says, and compressing takes it where it shrinks a segment."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aotpack.container.compressing import Frame, compressed
from aotpack.container.format import decompress
from aotpack.container.reader import PackageReader
from aotpack.container.shuffling import WIDTHS, planes, unshuffled
from aotpack.manifest.values import Width
from tests.attacks.forge import shuffled
from tests.container.packages import contents_of, package


def weights(dtype: str, size: int) -> bytes:
    return np.random.default_rng(0).standard_normal(size // np.dtype(dtype).itemsize).astype(dtype).tobytes()


def content_of(frame: Frame, size: int) -> bytes:
    content = decompress(frame.stored, size, "here")
    return content if frame.width is None else b"".join(unshuffled(content, frame.width))


@given(st.binary(max_size=100), st.sampled_from(WIDTHS))
def test_it_is_what_the_page_says(content: bytes, width: Width) -> None:
    arranged = b"".join(bytes(part) for part in planes(memoryview(content), width))
    assert arranged == shuffled(content, width)
    assert b"".join(unshuffled(arranged, width)) == content


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("size", [262_143, 262_144, 262_145, 1_000_003])
def test_what_is_longer_than_a_block_reads_back(size: int, width: Width) -> None:
    content = random.Random(size).randbytes(size)
    arranged = b"".join(bytes(part) for part in planes(memoryview(content), width))
    assert b"".join(unshuffled(arranged, width)) == content


@pytest.mark.parametrize("size", [60_000, 3_000_000])
@pytest.mark.parametrize(
    ("make", "width", "at_most"),
    [
        (lambda size: weights("float32", size), 4, 0.87),
        (lambda size: weights("float16", size), 2, 0.87),
        (lambda size: b"a few words " * (size // 12), None, 0.01),
        (lambda size: weights("int8", size), None, 0.3),
    ],
    ids=["f32", "f16", "words", "int8"],
)
def test_the_best_way_is_taken(
    make: Callable[[int], bytes], width: Width | None, at_most: float, size: int
) -> None:
    content = make(size)
    frame = compressed(memoryview(content), 3)
    assert frame is not None
    assert frame.width == width
    assert len(frame.stored) <= at_most * len(content)
    assert content_of(frame, len(content)) == content


def test_noise_is_left_as_it_is() -> None:
    assert compressed(memoryview(random.Random(0).randbytes(2_000_000)), 3) is None


@given(st.binary(max_size=300).map(lambda some: some * 40), st.integers(1, 6))
def test_whatever_is_compressed_reads_back(content: bytes, level: int) -> None:
    frame = compressed(memoryview(content), level) if content else None
    assert frame is None or content_of(frame, len(content)) == content


def test_a_package_of_weights_reads_back(tmp_path: Path) -> None:
    variant = {"f32": weights("float32", 9_000_000), "f16": b"x" + weights("float16", 1_000_000)}
    files = {"main": {"a": variant}}
    path = package(tmp_path, files)
    assert contents_of(path) == files
    assert path.stat().st_size < 0.86 * 10_000_000
    with PackageReader.open(path) as reader:
        assert {segment.shuffle for segment in reader.manifest.segments} == {2, 4}
        reader.verify()
        for file in reader.manifest.components[0].variants[0].files:
            reader.copy_file(file, tmp_path / file.path)
            assert (tmp_path / file.path).read_bytes() == variant[file.path]
