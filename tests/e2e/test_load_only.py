"""Where only ``pip install aotpack`` was done: packages load, and what builds says what to install."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import aotpack as api
from aotpack.extras import EXTRAS
from tests.command_line import ROOT, aotpack
from tests.conftest import BuiltPackage
from tests.toolchains.venvs import load_only_python, project

MISSING = (
    "building, checking or changing a package needs Python packages that are not installed; "
    "found no ml_dtypes, onnx, pyfastcdc (pip install 'aotpack[build]')"
)


def oldest_onnxruntime() -> str:
    """What pyproject.toml allows."""
    (requirement,) = (
        found for found in map(Requirement, project()["dependencies"]) if found.name == "onnxruntime"
    )
    (at_least,) = requirement.specifier
    assert at_least.operator == ">="
    return at_least.version + ".0" * (2 - at_least.version.count("."))


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return load_only_python(tmp_path_factory.mktemp("load-only") / "venv")


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return load_only_python(tmp_path_factory.mktemp("oldest") / "venv", oldest_onnxruntime())


@pytest.fixture(scope="module")
def small(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package whose inputs are all fixed."""
    path = tmp_path_factory.mktemp("load-only") / "small.aotpack"
    assert aotpack("build", small_model, "-o", path, "-t", "ort-cpu").status == 0
    return path


def said_by(python: Path, code: str, *arguments: object) -> str:
    """What `code` prints in that environment."""
    done = subprocess.run(
        [python, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LOAD = """
import json, sys
import numpy as np
import onnxruntime
import aotpack

told = []
session = aotpack.load(sys.argv[1], on_event=told.append)
x = np.load(sys.argv[2])
(name,) = (each.name for each in session.get_inputs())
np.save(sys.argv[3], session.run(None, {name: x})[0])
print(json.dumps([onnxruntime.__version__, *(each.code for each in told)]))
"""


@pytest.mark.parametrize(("end", "target"), [("python", "ort-cpu"), ("oldest", "portable")])
def test_a_package_of_the_newest_is_chosen_from_loaded_and_run(
    end: str, target: str, small: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """At both ends of the range of ONNX Runtime.

    What was compiled requires the release that it was built with; the untouched ONNX runs in any.
    """
    python: Path = request.getfixturevalue(end)
    selection = aotpack("select", small, "--json", python=python).document("selection")
    (chosen,) = [each for each in selection["candidates"] if each["id"] == selection["chosen"]]
    assert (chosen["target"], chosen["verdict"]) == (target, "OPTIMAL")
    x = np.random.default_rng(0).standard_normal(_input(small)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    said = said_by(python, LOAD, small, tmp_path / "x.npy", tmp_path / "y.npy")
    version, *events = json.loads(said)
    assert version == (onnxruntime.__version__ if end == "python" else oldest_onnxruntime())
    assert events[-1] == "loaded"
    session = api.load(small)
    (expected, *_) = session.run(None, {session.get_inputs()[0].name: x})
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-4, atol=1e-5)
    run = aotpack("run", small, "--runs", 1, "--json", python=python).document("run")
    assert run["variant"] == chosen["id"]


def _input(path: Path) -> tuple[int, ...]:
    with api.open(path) as package:
        (info,) = package.component().inputs
        return tuple(size for size in info.shape or () if isinstance(size, int))


def test_a_compiled_variant_says_which_onnxruntime_it_needs(small: Path, oldest: Path) -> None:
    selection = aotpack("select", small, "--json", python=oldest).document("selection")
    (compiled,) = [each for each in selection["candidates"] if each["target"] == "ort-cpu"]
    assert (compiled["verdict"], compiled["code"]) == ("UNSUPPORTED", "onnxruntime-version")
    needs = Version(onnxruntime.__version__)
    assert f"needs onnxruntime >={needs.major}.{needs.minor}" in compiled["reason"]


def test_the_oldest_knows_the_devices_of_a_linux_machine(oldest: Path) -> None:
    """It has no discovery of its own: they are read where newer releases read them."""
    code = "import aotpack; found = aotpack.probe(); print(found.gpus == (), found.npus == ())"
    here = api.probe()
    assert said_by(oldest, code).split() == [str(here.gpus == ()), str(here.npus == ())]


def test_measuring_and_looking_need_no_more(
    vad: BuiltPackage, small: Path, python: Path, tmp_path: Path
) -> None:
    for arguments in (
        ["inspect", vad.path, "--report", tmp_path / "page.html"],
        ["verify", vad.path],
        ["extract", vad.path, "--variant", "portable", "-o", tmp_path / "files"],
        ["coverage", vad.path],
        ["machine"],
        ["targets"],
        ["tune", small],
        ["cache", "list"],
        # All files come from one package, so what they share is known.
        ["prune", vad.path, "-o", tmp_path / "pruned.aotpack", "--keep", "portable"],
    ):
        done = aotpack(*arguments, python=python)
        assert done.status == 0, (arguments, done.err)


def test_a_verb_that_builds_says_the_pip_command(
    vad: BuiltPackage, small: Path, python: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.aotpack"
    for arguments in (
        ["build", "model.onnx", "-o", output, "-t", "ort-cpu"],
        ["init", "model.onnx"],
        ["add", vad.path, "-o", output, "-t", "ort-cpu"],
        ["refresh", vad.path, "-o", output],
        ["diff", vad.path, small],
        ["check", vad.path],
        ["flex", "show", "model.onnx"],
    ):
        assert aotpack(*arguments, python=python, cwd=tmp_path).error == MISSING, arguments
    assert [*tmp_path.iterdir()] == []


EVERY_MODULE = """
import importlib, json, pkgutil, sys
import aotpack
from aotpack.errors import ExtraMissing

def missing(name):
    try:
        importlib.import_module(name)
    except ExtraMissing as error:
        return str(error)

modules = [each.name for each in pkgutil.walk_packages(aotpack.__path__, "aotpack.", onerror=lambda _: None)]
found = {name: missing(name) for name in modules if not name.endswith("__main__")}
found["aotpack.build"] = "none"
try:
    aotpack.build
except ImportError as error:
    found["aotpack.build"] = str(error)
json.dump([found, sorted(sys.modules)], sys.stdout)
"""


def test_every_module_is_imported_or_says_the_pip_command(python: Path, tmp_path: Path) -> None:
    found, modules = json.loads(said_by(python, EVERY_MODULE))
    assert {text for text in found.values() if text is not None} == {MISSING}
    assert {"aotpack.flex", "aotpack.testing", "aotpack.builder.build", "aotpack.build"} <= {
        name for name, text in found.items() if text is not None
    }
    assert found["aotpack.container.writer"] is None
    # typer requires pydantic, since 0.29 or so, and only its own verbs import it.
    assert not set(modules) & (set(EXTRAS["build"][1]) - {"pydantic"})


def test_a_miss_that_cannot_be_compiled_for_loads_what_there_is(
    small: Path, oldest: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", np.zeros(_input(small), np.float32))
    code = LOAD.replace("on_event", "on_miss='compile', on_event")
    said = said_by(oldest, code, small, tmp_path / "x.npy", tmp_path / "y.npy")
    _, *events = json.loads(said)
    assert "recompile-failed" in events
    assert events[-1] == "loaded"


def test_a_folder_of_models_is_not_the_package_onnx(python: Path, tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport aotpack\n"
    code += "try: aotpack.build\nexcept ImportError as error: print(error, end='')"
    assert said_by(python, code) == MISSING


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_requires_the_modules_that_are_looked_for(extra: str) -> None:
    required = {Requirement(text).name for text in project()["optional-dependencies"][extra]}
    assert set(EXTRAS[extra][1]) <= required
