"""What a process does not load when it only looks."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import ROOT
from tests.conftest import BuiltPackage

#: Loaded by what builds and runs; each costs more than looking at a package takes.
SLOW = {"onnx", "onnxruntime", "onnx_ir", "numpy", "aotpack.builder.build"}


def without_coverage() -> dict[str, str]:
    """This process's environment, without what starts coverage in others: it imports much itself."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}


def loaded(*arguments: str, env: dict[str, str] | None = None) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        env=without_coverage() | {"PYTHONPATH": str(ROOT)} | (env or {}),
        capture_output=True,
        text=True,
        check=True,
    )
    return set(re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.MULTILINE))


def test_the_package_by_itself_is_itself_alone() -> None:
    """A program that may load a package later pays a millisecond for it now: not even typing is imported."""
    bare = loaded("-c", "import importlib, __future__")
    assert loaded("-c", "import importlib, __future__, aotpack") - bare == {"aotpack"}


@pytest.mark.parametrize(("verb", "needs"), [("inspect", set()), ("verify", {"numpy"})])
def test_looking_at_a_package_imports_neither_onnx_nor_onnxruntime(
    vad: BuiltPackage, verb: str, needs: set[str]
) -> None:
    modules = loaded("-m", "aotpack", verb, str(vad.path))
    assert "aotpack.runtime.package" in modules
    # Weights that were shuffled are put in order by numpy, and only a reader of weights imports it.
    assert modules & SLOW == needs


#: Each is for a first load, another verb, another system or a miss.
NOT_FOR_A_WARM_LOAD = {
    "aotpack.container.partial",
    "aotpack.container.writer",
    "aotpack.runtime.refusals",
    "aotpack.cache.local",
    "aotpack.runtime.tuning",
    "concurrent.futures",
    "email.parser",
    "filelock",
    "html",
    "platformdirs",
    "psutil",
}


def test_a_load_of_what_is_in_the_cache_imports_what_it_needs(vad: BuiltPackage, tmp_path: Path) -> None:
    """Whoever loads one model in a new process waits for each import."""
    environment = {"AOTPACK_CACHE": str(tmp_path), "AOTPACK_VARIANT": "ort-cpu"}
    code = "import sys, os, aotpack; aotpack.load(sys.argv[1]); os._exit(0)"
    first = loaded("-c", code, str(vad.path), env=environment)
    assert {"filelock", "concurrent.futures"} & first
    assert not loaded("-c", code, str(vad.path), env=environment) & NOT_FOR_A_WARM_LOAD


def test_loading_a_package_imports_nothing_that_builds(vad: BuiltPackage) -> None:
    code = "import sys, os, aotpack; aotpack.load(sys.argv[1]); os._exit(0)"
    modules = loaded("-c", code, str(vad.path))
    assert "onnxruntime" in modules
    assert not modules & {"onnx", "onnx_ir", "typer", "rich", "aotpack.builder", "aotpack.cli"}


#: Where a cache is chosen, if the caller chose none: where calls and processes begin.
EDGES = {
    "aotpack/runtime/package.py": {"cache"},
    "aotpack/builder/build.py": {"build_spec"},
    "aotpack/builder/jobs/remote_task.py": {"run_remote_task"},
    "aotpack/cli/cache.py": {"_list", "prune", "verify"},
}


def test_a_cache_is_chosen_at_the_edges_alone() -> None:
    """All else is given one: what a caller chose must not be written around."""
    made = {
        (path.relative_to(ROOT).as_posix(), getattr(function, "name", "the module"))
        for path in (ROOT / "aotpack").rglob("*.py")
        for function, call in _calls(ast.parse(path.read_text(encoding="utf-8")))
        if ast.unparse(call.func).split(".")[-1] == "Cache"
    }
    allowed = {(path, name) for path, names in EDGES.items() for name in names}
    assert made == allowed


def _calls(tree: ast.AST, function: ast.AST | None = None) -> list[tuple[ast.AST | None, ast.Call]]:
    """Each call with the function that it is in."""
    found: list[tuple[ast.AST | None, ast.Call]] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call):
            found.append((function, node))
        found += _calls(node, node if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else function)
    return found
