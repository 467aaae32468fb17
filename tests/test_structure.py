"""What may import what: packages stand in an order, each knows those before it, and nothing is circular."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command_line import ROOT

#: Each package and module at the top of aotpack imports those before it alone. docs/architecture.md draws it.
ORDER = (
    "_text",
    "errors",
    "version",
    "extras",
    "common",
    "files",
    "manifest",
    "machine",
    "targets",
    "sources",
    "container",
    "selection",
    "cache",
    "flex",
    "toolchains",
    "runtime",
    "builder",
    "documents",
    "testing",
    "cli",
    "__main__",
)
#: A load compiles what is missing where it is asked to, and imports the builder only then.
EXCEPTIONS = {("aotpack.runtime.loading", "aotpack.builder.repair")}

FILES = {
    ".".join(part for part in path.relative_to(ROOT).with_suffix("").parts if part != "__init__"): path
    for path in sorted((ROOT / "aotpack").rglob("*.py"))
}


def imported(path: Path) -> Iterator[str]:
    """The modules of aotpack that are imported anywhere in a file, but for type checkers alone."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "aotpack":
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                yield whole if whole in FILES else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] == "aotpack")
        waiting += ast.iter_child_nodes(node)


IMPORTS = {name: set(imported(path)) for name, path in FILES.items()}


def place(module: str) -> int:
    """Of a module in `ORDER`; aotpack itself imports nothing until it is used."""
    return ORDER.index(module.split(".")[1]) if "." in module else -1


def test_the_order_names_all_that_is_at_the_top() -> None:
    entries = {path.stem for path in (ROOT / "aotpack").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert entries - {"__init__", "__pycache__", "py"} == set(ORDER)


@pytest.mark.parametrize("module", FILES)
def test_a_module_imports_what_stands_before_its_package(module: str) -> None:
    after = {each for each in IMPORTS[module] if place(each) > place(module)}
    assert {(module, each) for each in after} <= EXCEPTIONS


@pytest.mark.parametrize("pair", sorted(EXCEPTIONS))
def test_an_exception_is_one(pair: tuple[str, str]) -> None:
    assert pair[1] in IMPORTS[pair[0]]


def test_no_module_imports_itself_through_others() -> None:
    """Imports in functions count: they hide a circle and do not open it."""
    left = {name: {each for each in found if each != name} for name, found in IMPORTS.items()}
    while True:
        ends = {name for name, found in left.items() if not found & left.keys()}
        if not ends:
            break
        left = {name: found for name, found in left.items() if name not in ends}
    # What is left lies on a circle or leads to one.
    assert not left
