"""Optional dependencies: what ``pip install aotpack`` leaves out, and the one error that says so.

A machine that loads packages needs neither onnx nor what finds the bytes that files share. The modules that
do ask here first, so that a user is told what to install instead of which import failed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import util
from types import MappingProxyType

from aotpack.errors import ExtraMissing

__all__ = ["EXTRAS", "require"]

#: What each extra of pyproject.toml is for, and the modules of it that aotpack imports.
EXTRAS: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        "build": ("building, checking or changing a package", ("ml_dtypes", "onnx", "pydantic", "pyfastcdc")),
        "farm": ("a farm (dask://)", ("distributed",)),
    }
)


def require(extra: str) -> None:
    """Do nothing if the modules of `extra` are installed.

    Raises:
        ExtraMissing: some are not.
    """
    purpose, modules = EXTRAS[extra]
    missing = [module for module in modules if not _is_installed(module)]
    if missing:
        raise ExtraMissing(
            f"{purpose} needs Python packages that are not installed",
            found=f"no {', '.join(missing)}",
            hint=f"pip install 'aotpack[{extra}]'",
        )


def _is_installed(module: str) -> bool:
    if sys.modules.get(module) is not None:
        return True
    try:
        spec = util.find_spec(module)
    except (ImportError, ValueError):
        return False
    # A folder that only happens to be called so, such as one with models in it, has no origin.
    return spec is not None and spec.origin is not None
