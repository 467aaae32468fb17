"""Virtual environments with other releases of vendors' packages, made once and kept in the user's cache."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import filelock
import platformdirs
import pytest

__all__ = ["python_with"]


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
            pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            done = subprocess.run([*pip, *requirements], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"{', '.join(requirements)} cannot be installed: {done.stderr.strip()[-300:]}")
            (own,) = folder.glob("[Ll]ib/site-packages" if sys.platform == "win32" else "lib/*/site-packages")
            this = sysconfig.get_path("purelib")
            (own / "this.pth").write_text(f"import site; site.addsitedir({this!r})\n", encoding="utf-8")
            (folder / "complete").touch()
    return python
