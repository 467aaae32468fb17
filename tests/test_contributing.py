"""The guides name files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: A path of this repository, but for the names that stand for the reader's own.
PATH = re.compile(
    r"`((?:aotpack|benchmarks|docs|samples|schemas|tests)/[\w./-]*|[A-Z]\w+\.md|pyproject\.toml)`"
)


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/stability.md"])
def test_the_files_that_a_guide_names_are_there(page: str) -> None:
    named = PATH.findall((ROOT / page).read_text(encoding="utf-8"))
    missing = [name for name in named if not re.search("NAME|acme", name) and not (ROOT / name).exists()]
    assert not missing
    if page == "CONTRIBUTING.md":
        assert len(named) >= 20


def test_modules_that_are_promised_can_be_imported() -> None:
    text = (ROOT / "docs" / "stability.md").read_text(encoding="utf-8")
    modules = re.findall(r"`(aotpack(?:\.[a-z_]+)*)`", text)
    assert len(modules) >= 5
    for module in modules:
        path = ROOT.joinpath(*module.split("."))
        assert path.with_suffix(".py").exists() or (path / "__init__.py").exists(), module
