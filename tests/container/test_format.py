"""docs/format.md says the numbers that the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aotpack.common import paths
from aotpack.common.values import MAX_KEYS
from aotpack.container import format as layout
from aotpack.container import reader
from aotpack.container.compressing import compress
from aotpack.container.format import Preamble
from aotpack.errors import FormatError
from aotpack.manifest import values as manifest

PAGE = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("length of the manifest's JSON; at most {}", layout.MAX_MANIFEST_BYTES),
        ("Reading the first {} bytes", layout.FIRST_READ),
        ("the window must be at most {} bytes", layout.MAX_WINDOW_SIZE),
        ("length of its content, 1 to {}", manifest.MAX_SEGMENT_SIZE),
        ("A raw segment of {} bytes or more", manifest.ALIGNED_FROM),
        ("starts at a multiple of {},", manifest.PAGE_SIZE),
        ("hold at most {} times the bytes of the package", reader.MAX_EXPANSION),
        ("in its text | {} |", manifest.MAX_VALUES),
        ("| components | {} |", manifest.MAX_COMPONENTS),
        ("| variants of a component | {} |", manifest.MAX_VARIANTS),
        ("| files of a variant | {} |", manifest.MAX_FILES),
        ("| segments of the package, and of a file | {} |", manifest.MAX_SEGMENTS),
        ("of 1 to {} characters", paths.MAX_PATH),
        ("| keys of an object, a map or not | {} |", MAX_KEYS),
    ],
)
def test_the_page_and_the_code_agree(words: str, value: int) -> None:
    assert words.format(f"{value:,}") in re.sub(r"\s+", " ", PAGE)


def test_the_preamble_is_as_long_as_the_page_says() -> None:
    rows = [tuple(map(int, row)) for row in re.findall(r"^\| (\d+) \| (\d+) \|", PAGE, re.MULTILINE)]
    ends = [offset + length for offset, length in rows]
    assert [offset for offset, _ in rows] == [0, *ends[:-1]]
    assert ends[-1] == layout.PREAMBLE_SIZE
    assert layout.MAGIC.hex(" ").upper() in PAGE


def test_a_preamble_reads_back() -> None:
    preamble = Preamble.of(b"manifest", b"stored", "zstd")
    assert Preamble.unpack(preamble.pack(), "here") == preamble


@pytest.mark.parametrize("content", [b"x" * 1000, bytes(range(256)) * 5])
def test_what_is_compressed_reads_back(content: bytes) -> None:
    assert layout.decompress(compress(content, 3), len(content), "here") == content


@pytest.mark.parametrize("size", [0, 999, 1001, 2**40])
def test_another_size_is_refused_before_it_is_allocated(size: int) -> None:
    with pytest.raises(FormatError, match=f"found 1000; expected {size}"):
        layout.decompress(compress(b"x" * 1000, 3), size, "here")
