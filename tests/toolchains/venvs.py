"""Virtual environments with other packages: other releases of vendors', or only what loading needs."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import filelock
import platformdirs
import pytest
from packaging.requirements import Requirement

from tests.command_line import ROOT

__all__ = ["load_only_python", "project", "python_with", "site_packages"]


def project() -> dict[str, Any]:
    """The table ``[project]`` of pyproject.toml."""
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def site_packages(folder: Path) -> Path:
    """Where the environment in `folder` has its packages."""
    return Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))


def load_only_python(folder: Path, onnxruntime: str | None = None) -> Path:
    """The interpreter of a new environment in `folder` with what ``pip install aotpack`` requires.

    The packages are links to those of this environment.

    Args:
        folder: does not exist yet.
        onnxruntime: another release of it. Skips where that cannot be had.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    site = site_packages(folder)
    for distribution in _required(project()["dependencies"]):
        if distribution.name == "onnxruntime" and onnxruntime is not None:
            other = site_packages(python_with(f"onnxruntime=={onnxruntime}").parents[1])
            (distribution,) = metadata.distributions(name="onnxruntime", path=[str(other)])
        tops = {path.parts[0] for path in distribution.files or ()}
        for top in tops - {"..", "__pycache__"}:
            (site / top).symlink_to(Path(str(distribution.locate_file(top))))
    return folder / "bin" / "python"


def _required(requirements: Iterable[str]) -> Iterator[metadata.Distribution]:
    """The installed distributions of `requirements`, and of all that they require in turn."""
    waiting, seen = [*requirements], set[str]()
    while waiting:
        wanted = Requirement(waiting.pop())
        if wanted.name in seen or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        seen.add(wanted.name)
        distribution = metadata.distribution(wanted.name)
        waiting += distribution.requires or ()
        yield distribution


def python_with(*requirements: str) -> Path:
    """The interpreter of an environment with these packages before all that this one has.

    Packages are taken without what they require. Skips where they cannot be had.
    """
    root = platformdirs.user_cache_path("aotpack-test-venvs")
    root.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256("\n".join((sys.version, sys.prefix, *requirements)).encode()).hexdigest()[:16]
    folder = root / key
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    with filelock.FileLock(root / f"{key}.lock"):
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            venv.create(folder, with_pip=True)
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            done = subprocess.run([*pip, *requirements], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"{', '.join(requirements)} cannot be installed: {done.stderr.strip()[-300:]}")
            (own,) = folder.glob("[Ll]ib/site-packages" if sys.platform == "win32" else "lib/*/site-packages")
            this = sysconfig.get_path("purelib")
            (own / "this.pth").write_text(f"import site; site.addsitedir({this!r})\n", encoding="utf-8")
            (folder / "complete").touch()
    return python
