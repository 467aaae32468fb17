"""What is measured and compared stays in the cache while another process empties it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import aotpack as api
from aotpack.builder import tune as tuning
from aotpack.builder.check import check
from aotpack.builder.jobs.supervise import Workers, run_worker
from aotpack.builder.tune import tune
from aotpack.cache.variants import Cache
from tests.command_line import aotpack


@pytest.fixture(scope="module")
def package(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "small.aotpack"
    done = aotpack("build", small_model, "-t", "ort-cpu", "-o", path)
    assert done.status == 0, done.err
    return path


@pytest.fixture(autouse=True)
def emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache is emptied at the start of every process that is given a variant."""
    monkeypatch.setenv("AOTPACK_CACHE", str(tmp_path / "cache"))

    def first_empty(real: Any) -> Any:
        def run(*arguments: Any, **options: Any) -> Any:
            Cache().prune(0)
            return real(*arguments, **options)

        return run

    monkeypatch.setattr(tuning, "run_worker", first_empty(run_worker))
    monkeypatch.setattr(Workers, "run", first_empty(Workers.run))


def test_tune_measures_all(package: Path) -> None:
    with api.open(package) as opened:
        measured = tune(opened, runs=1).measurements
    assert [each.failure for each in measured] == [None, None]


def test_check_compares_all(package: Path) -> None:
    with api.open(package) as opened:
        file, good = check(opened, runs=1)
    assert good
    assert [entry.record.failure for entry in file.entries] == [None, None]
    assert all(entry.record.numerics is not None for entry in file.entries)
