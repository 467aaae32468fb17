"""The matrix of a fleet: a character for each variant, in 80 columns however many there are."""

from __future__ import annotations

import io

import pytest

from aotpack.cli import coverage, output
from aotpack.machine.profile import Machine
from aotpack.runtime.fleet import Coverage, cover, machines_of
from aotpack.targets.catalogue import PORTABLE, catalogue
from aotpack.toolchains.qnn.string import string_for
from tests.made_packages import component, portable, variant

V73 = variant("qnn-htp-v73", string_for(73, 60, 8, "5.51.0"))


def shown(covered: Coverage, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    written = io.StringIO()
    monkeypatch.setattr(output, "_stdout", written)
    monkeypatch.delenv("COLUMNS", raising=False)
    coverage._show(covered)
    return written.getvalue().splitlines()


def test_a_few_variants_are_named_where_they_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(
        cover(component(V73, portable()), machines_of(["snapdragon-8-gen-3", "rtx-40"])), monkeypatch
    )
    assert [" ".join(line.split()) for line in lines[:6] if "─" not in line] == [
        f"1 {V73.id}",
        "2 portable",
        "machine 12 gets",
        f"snapdragon-8-gen-3 >+ {V73.id}",
        "rtx-40 .> portable",
    ]


@pytest.mark.parametrize("count", [1, 20, 21, 40, 41, 100])
def test_every_variant_has_its_mark_in_80_columns(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [name for name in catalogue() if name != PORTABLE]
    made = [
        variant(names[index % len(names)], called=f"{names[index % len(names)]}-{index}")
        for index in range(count - 1)
    ]
    covered = cover(component(*made, portable()), machines_of([]))
    lines = shown(covered, monkeypatch)
    assert max(map(len, lines)) <= 80
    for name, selection in covered.selections.items():
        rows = [line.split() for line in lines if line.startswith(f"{name} ")]
        marks = "".join("".join(cells[1:-1]) for cells in rows)
        assert len(marks) == count
        assert selection.chosen is not None
        number = [each.id for each in covered.component.variants].index(selection.chosen.id)
        assert marks.index(">") == number
        assert {cells[-1] for cells in rows} == {selection.chosen.id if count <= 20 else str(number + 1)}


def test_a_machine_of_which_nobody_can_say_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(cover(component(V73), {"blank": Machine()}), monkeypatch)
    assert [" ".join(line.split()) for line in lines if line.startswith("blank")] == ["blank ? nothing"]
    assert "not known to get anything: blank" in lines
    assert not any("would help" in line for line in lines)
