from __future__ import annotations

import itertools
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from aotpack.container import chunking
from aotpack.container.sharing import plan

NOISE = random.Random(2).randbytes(3_000_000)


def distinct(tmp_path: Path, *contents: bytes) -> int:
    """Bytes that a package of these files stores; that they read back is checked on the way."""
    paths = []
    for number, content in enumerate(contents):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(content)
    with ThreadPoolExecutor(2) as pool:
        found = plan(paths, pool)
    pieces = [piece.read() for piece in found.pieces]
    assert [b"".join(pieces[index] for index in file) for file in found.files] == list(contents)
    return sum(map(len, pieces))


def test_bytes_that_moved_cost_nothing_but_the_seam(tmp_path: Path) -> None:
    assert distinct(tmp_path, NOISE, b"a header of its own" + NOISE) < len(NOISE) + 300


def test_sharing_is_followed_to_the_byte(tmp_path: Path) -> None:
    # As vendors' compilers lay one network out for two devices: the same tiles, in other places.
    tiles = [NOISE[start : start + 100_000] for start in range(0, 3_000_000, 100_000)]
    random.Random(3).shuffle(tiles)
    assert distinct(tmp_path, NOISE, b"".join(tiles)) < len(NOISE) * 1.01


def test_what_changed_in_the_middle_is_all_that_is_new(tmp_path: Path) -> None:
    changed = NOISE[:1_234_567] + b"changed" * 10 + NOISE[1_234_567 + 70 :]
    assert distinct(tmp_path, NOISE, changed) < len(NOISE) + 1000


def test_runs_of_equal_bytes_are_stored_once(tmp_path: Path) -> None:
    assert distinct(tmp_path, bytes(5_000_000)) < 200_000


def test_cutting_in_windows_is_cutting_the_whole() -> None:
    seen: list[bytes] = []

    def cut(window: int) -> list[chunking.Chunk]:
        before, chunking._WINDOW = chunking._WINDOW, window
        try:
            return chunking.cut(
                lambda offset, length, buffer: memoryview(NOISE)[offset : offset + length],
                len(NOISE),
                chunking.AVERAGE_CHUNK,
                7,
                lambda p: seen.append(bytes(p)),
            )
        finally:
            chunking._WINDOW = before

    whole = cut(len(NOISE))
    assert cut(300_000) == whole
    assert b"".join(seen) == NOISE * 2


@given(
    sequences=st.lists(st.lists(st.integers(0, 7), max_size=12), min_size=1, max_size=4),
    longest=st.sampled_from([None, 3]),
)
def test_runs_put_every_sequence_together_again(sequences: list[list[int]], longest: int | None) -> None:
    order = list(dict.fromkeys(chunk for sequence in sequences for chunk in sequence))
    numbered = [[order.index(chunk) for chunk in sequence] for sequence in sequences]
    joined, used = chunking.runs(numbered, [1] * len(order), longest)
    assert [[chunk for run in file for chunk in joined[run]] for file in used] == numbered
    assert sorted(chunk for run in joined for chunk in run) == list(range(len(order)))
    assert all(len(run) <= (longest or len(run)) for run in joined)
    if longest is None:
        # Nothing more could be joined: what always stands together is one run.
        for one, other in itertools.permutations(range(len(joined)), 2):
            assert any(
                (run == one and following != other) or (run != one and following == other)
                for sequence in used
                for run, following in itertools.pairwise((-1, *sequence, -1))
            )
