"""A cache that a caller chose takes all that comes of a package, and the user's own takes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

import aotpack
from aotpack.builder.add import add
from aotpack.builder.refresh import refresh
from aotpack.builder.tune import tune
from aotpack.cache.variants import Cache
from aotpack.selection.policy import Policy


@pytest.fixture
def default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the cache of whoever chooses none."""
    monkeypatch.setenv("AOTPACK_CACHE", str(tmp_path / "default"))
    return tmp_path / "default"


@pytest.fixture
def portable(small_model: Path, tmp_path: Path) -> Path:
    """A package with nothing but the portable variant."""
    path = tmp_path / "portable.aotpack"
    aotpack.build(small_model, targets=["portable"], output=path, cache=Cache(tmp_path / "building"))
    return path


def test_a_variant_that_is_compiled_at_load_is_kept_in_it(
    portable: Path, tmp_path: Path, default: Path
) -> None:
    mine = Cache(tmp_path / "mine")
    policy = Policy(eps=frozenset({"CPUExecutionProvider"}))
    with aotpack.open(portable, cache=mine) as package:
        loaded = package.load_first(on_miss="compile", policy=policy)
        assert loaded.candidate.variant.target == "ort-cpu", loaded.refused
        tune(package, policy=policy, runs=1)
    kept = {path.name for path in mine.root.iterdir() if path.is_dir() and any(path.rglob("*.json"))}
    assert kept >= {"compiled", "results", "tuning"}
    assert not default.exists()


def test_building_adding_and_refreshing_keep_their_results_in_it(
    small_model: Path, portable: Path, tmp_path: Path, default: Path
) -> None:
    mine = Cache(tmp_path / "mine")
    output = tmp_path / "added.aotpack"
    add(portable, targets=["ort-cpu"], output=output, cache=mine)
    assert list((mine.root / "results").glob("*/done.json"))
    refresh(output, tmp_path / "fresh.aotpack", cache=mine)
    report = aotpack.build(small_model, targets=["ort-cpu"], output=tmp_path / "b.aotpack", cache=mine)
    assert [row.cached for row in report.rows if row.target == "ort-cpu"] == [True]
    assert not default.exists()
