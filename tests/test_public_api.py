"""What is public, and what every module may import, name and grow to: rules for each file on disk."""

from __future__ import annotations

import ast
import functools
import inspect
import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "aotpack").rglob("*.py"))

#: These compile, render or are tools of ours. All else may be on the way from a package to a session.
OFF_THE_LOADING_PATH = (
    "aotpack.builder",
    "aotpack.cli",
    "aotpack.flex",
    "aotpack.interop",
    "aotpack.documents.schema",
    "aotpack.testing",
)

#: What only those may import: each costs 100 ms or more, or is a build's affair.
HEAVY = (
    "ml_dtypes",
    "onnx",
    "onnx_ir",
    "pyfastcdc",
    "typer",
    "rich",
    "pytest",
    "aotpack.builder",
    "aotpack.cli",
    "aotpack.flex",
    "aotpack.testing",
)

#: These make sessions; opening and inspecting a package must do without.
MAY_IMPORT_ONNXRUNTIME = ("aotpack.runtime.session", "aotpack.toolchains")

MAX_LINES = 500

#: Vendors, their products and what only they have; as words where the letters occur in others.
VENDORS = re.compile(
    r"openvino|qnn|qualcomm|snapdragon|hexagon|tensorrt|nvidia|webgpu|swiftshader|onednn|coreml|vitis"
    r"|\b(?:intel|htp|cuda|apple|amd)\b",
    re.IGNORECASE,
)


def _name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == each or name.startswith(each + ".") for each in packages)


MODULES = {_name(file): file for file in FILES if file.name != "__main__.py"}
PUBLIC = [name for name in MODULES if "._" not in name]
LOADING_PATH = [name for name in MODULES if not _within(name, OFF_THE_LOADING_PATH)]


#: Imports each module that it is given in a process of its own, forked from one that has imported little.
_IMPORT_EACH = """
import json, os, sys
import asyncio, dataclasses, hashlib, importlib.metadata, logging, re, tempfile, typing
import msgspec, packaging.specifiers, packaging.version
for name in json.loads(sys.argv[1]):
    if (child := os.fork()) == 0:
        __import__(name)
        print(json.dumps([name, sorted(sys.modules)]), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, name
"""


@functools.cache
def _imported() -> dict[str, frozenset[str]]:
    """All modules that a process holds after importing one of the loading path, for each of these."""
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT_EACH, json.dumps(LOADING_PATH)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return {name: frozenset(modules) for name, modules in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_module_says_what_is_public(name: str) -> None:
    module = import_module(name)
    assert module.__doc__
    statements = ast.parse(MODULES[name].read_text(encoding="utf-8")).body
    if len(statements) == 1:  # the docstring of a package that gives out nothing itself
        assert not hasattr(module, "__all__")
        return
    assert list(module.__all__) == sorted(set(module.__all__), key=_isort), "sort __all__ as ruff does"
    undocumented = [public for public in module.__all__ if not _is_documented(module, public)]
    assert not undocumented, "needs a docstring, or `#:` above a constant"


def _isort(name: str) -> tuple[int, str]:
    # CONSTANTS, then Classes, then functions.
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def _is_documented(module: ModuleType, public: str) -> bool:
    item = getattr(module, public)
    if inspect.isclass(item) or inspect.isroutine(item):
        return bool(item.__doc__)
    # Constants and aliases have no docstring of their own: Sphinx's `#:` stands in, where they are defined.
    comment = re.compile(rf"^#: .*\n{public}\b", re.MULTILINE)
    return any(comment.search(file.read_text(encoding="utf-8")) for file in FILES)


def test_the_front_door_imports_nothing_that_is_slow() -> None:
    code = "import sys, aotpack; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert not set(done.stdout.split()) & {*HEAVY, "onnxruntime", "pydantic", "numpy"}


@pytest.mark.parametrize("name", LOADING_PATH)
def test_the_loading_path_imports_nothing_of_the_build(name: str) -> None:
    assert not _imported()[name] & set(HEAVY)


#: The values that say what to build.
SPEC = ("aotpack.builder.flex_settings", "aotpack.builder.spec")

#: What the packages of the builder may import of it.
BEFORE = {
    "aotpack.builder.numerics": ("aotpack.builder.numerics",),
    "aotpack.builder.models": ("aotpack.builder.models", "aotpack.builder.numerics", *SPEC),
    "aotpack.builder.jobs": (
        "aotpack.builder.jobs",
        "aotpack.builder.models",
        "aotpack.builder.numerics",
        *SPEC,
    ),
}


@pytest.mark.parametrize("package", BEFORE)
def test_a_package_of_the_builder_knows_nothing_of_those_after_it(package: str) -> None:
    """Wherever in a module it is imported: a function's import is one as well."""
    imported = {
        node.module
        for name, file in MODULES.items()
        if _within(name, (package,))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and _within(node.module, ("aotpack.builder",))
    }
    assert imported
    assert not {module for module in imported if not _within(module, BEFORE[package])}


@pytest.mark.parametrize("name", [name for name in LOADING_PATH if not _within(name, MAY_IMPORT_ONNXRUNTIME)])
def test_a_package_is_opened_without_onnxruntime(name: str) -> None:
    assert "onnxruntime" not in _imported()[name]


def test_vendors_are_named_by_their_toolchains_and_the_catalogue_alone() -> None:
    package = ROOT / "aotpack"
    texts = {
        file.relative_to(package): file.read_text(encoding="utf-8")
        for file in package.rglob("*")
        if file.suffix in {".py", ".toml", ".json", ".html", ".css", ".js", ".jinja"}
    }
    named = [
        f"aotpack/{path}:{number}: {line.strip()}"
        for path, text in texts.items()
        if path.parts[0] != "toolchains" and path.name != "catalog.toml"
        for number, line in enumerate(text.splitlines(), start=1)
        if VENDORS.search(line)
    ]
    assert not named, "\n".join(named)


@pytest.mark.parametrize("file", FILES, ids=_name)
def test_a_module_has_one_subject(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= MAX_LINES
