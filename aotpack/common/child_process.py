"""How aotpack starts Python processes of its own: they import nothing from the folder that a user works in.

That folder, a cloned model repository for one, may hold a ``numpy.py``. Python puts the
current folder in front of all others for ``python -m``, and takes an empty entry of PYTHONPATH for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["python_command", "python_environment", "python_path"]


def python_command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module of aotpack, without the current folder on ``sys.path``."""
    return [sys.executable, "-P", "-m", module, *arguments]


def python_path() -> str:
    """PYTHONPATH for a child that imports the aotpack that starts it, wherever that one runs from.

    Empty entries, which stand for the current folder, are left out; the others are made absolute, since a
    child may run in another folder.
    """
    root = str(Path(__file__).resolve().parents[2])
    inherited = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return os.pathsep.join(dict.fromkeys([root, *(str(Path(entry).absolute()) for entry in inherited)]))


def python_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with `changes`, for a child started with `python_command`."""
    return {**os.environ, **changes, "PYTHONPATH": python_path()}
