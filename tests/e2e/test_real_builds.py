"""Real models and targets, as docs/models.md has them: every outcome is the one that is explained there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aotpack.targets.catalogue import catalogue
from samples import software_gpu
from samples.real_builds import TARGETS, build_real, known, surprise
from samples.real_inputs import MAKERS
from tests.hardware import compilable

PAGE = Path(__file__).parents[2] / "docs" / "models.md"

QUICK = [name for name, real in known().items() if real.quick]


@pytest.mark.parametrize("name", QUICK)
def test_the_targets_that_are_cheap_to_check(name: str, tmp_path: Path) -> None:
    real = known()[name]
    rows = build_real(real, compilable(*real.quick), tmp_path, samples=1)
    assert [text for row in rows if (text := surprise(real, row)) is not None] == []


@pytest.mark.long
@pytest.mark.parametrize("name", known())
def test_every_target(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in (software_gpu.environment() or {}).items():
        monkeypatch.setenv(variable, value)
    real = known()[name]
    rows = build_real(real, compilable(*TARGETS), tmp_path)
    assert [text for row in rows if (text := surprise(real, row)) is not None] == []


def test_the_page_has_every_model_and_what_became_of_it() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    cells = {}
    for row in rows:
        model, _, *outcomes = (cell.strip() for cell in row.strip("|").split("|"))
        cells[model.strip("`")] = dict(zip(TARGETS, outcomes, strict=True))
    assert set(cells) == set(known())
    for name, real in known().items():
        expected = {**dict.fromkeys(real.refused, "**refused**"), **dict.fromkeys(real.fails, "**fails**")}
        for target, cell in cells[name].items():
            if target in expected:
                assert cell == expected[target], (name, target)
            else:
                assert re.fullmatch(r"(\d\.\de[-+]\d\d|not run|not compared|not here)( \(.*\))?", cell), cell


def test_the_page_explains_every_target_that_has_no_variant() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name, real in known().items():
        for target in (*real.refused, *real.fails):
            assert f"- `{name}` for `{target}`: **" in page


@pytest.mark.parametrize("name", known())
def test_a_table_names_targets_and_makers_that_there_are(name: str) -> None:
    real = known()[name]
    assert {*real.refused, *real.fails, *real.remarks, *real.quick} <= set(TARGETS) <= set(catalogue())
    assert not set(real.refused) & set(real.fails)
    assert all("value" in how or how["like"] in MAKERS for how in real.inputs.values())
