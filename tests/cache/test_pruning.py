"""Variants are loaded while other processes empty, trim or check the same cache."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from aotpack.cache.variants import Cache
from aotpack.container.reader import PackageReader
from tests.container.packages import package, variants_that_share

FILES = variants_that_share(random.Random(3).randbytes(300_000))
SECONDS = [2, pytest.param(60, marks=pytest.mark.long)]


def load(path: Path, root: Path, seed: int, until: float, answers: multiprocessing.Queue) -> None:
    seen: Counter[str] = Counter()
    pick = random.Random(seed)
    with PackageReader.open(path) as reader:
        (component,) = reader.manifest.components
        while time.time() < until:
            variant = pick.choice(component.variants)
            try:
                with Cache(root).hold(reader, component, variant) as held:
                    found = {file.path: (held.folder / file.path).read_bytes() for file in variant.files}
                seen["right" if found == FILES["main"][variant.id] else "wrong"] += 1
            except Exception as error:
                seen[f"{type(error).__name__}: {error}"] += 1
    answers.put(seen)


def clear(root: Path, limit: int | None, until: float, answers: multiprocessing.Queue) -> None:
    seen: Counter[str] = Counter()
    while time.time() < until:
        try:
            if limit is None:
                Cache(root).verify()
            else:
                Cache(root).prune(limit)
            seen["cleared"] += 1
        except Exception as error:
            seen[f"{type(error).__name__}: {error}"] += 1
    answers.put(seen)


@pytest.mark.parametrize("limit", [0, 400_000, None], ids=["empty", "trim", "verify"])
@pytest.mark.parametrize("seconds", SECONDS)
def test_a_cache_that_is_cleared_gives_the_right_bytes_and_no_error(
    tmp_path: Path, seconds: float, limit: int | None
) -> None:
    path, root = package(tmp_path, FILES), tmp_path / "cache"
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.Queue = context.Queue()
    until = time.time() + seconds
    processes = [
        *(context.Process(target=load, args=(path, root, seed, until, answers)) for seed in range(3)),
        *(context.Process(target=clear, args=(root, limit, until, answers)) for _ in range(2)),
    ]
    for process in processes:
        process.start()
    seen: Counter[str] = sum((answers.get(timeout=seconds + 60) for _ in processes), Counter())
    for process in processes:
        process.join(60)
    assert set(seen) == {"right", "cleared"}
    Cache(root).prune(0)
    assert [file.name for file in root.rglob("*") if not file.is_dir()] == ["CACHEDIR.TAG"]
