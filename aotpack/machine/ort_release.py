"""Which release of ONNX Runtime is here: that of the module `onnxruntime`, whatever distribution it is of.

``onnxruntime-gpu``, ``onnxruntime-windowsml``, nightly builds and others install the same module under
another distribution's name, and a computer can have the metadata of several. What is imported decides, so its
version is read from the module itself, without importing it.
"""

from __future__ import annotations

import functools
import re
import sys
from importlib import util
from pathlib import Path

from aotpack.errors import ToolchainMissing

__all__ = ["ort_minor", "ort_version", "read_version"]

#: Of ``__init__.py``, which states the version near its top; it has some hundred lines.
_MAX_READ = 262144

_VERSION = re.compile(r"""^__version__\s*=\s*["']([^"'\n]{1,100})["']""", re.MULTILINE)


def ort_version() -> str:
    """The version of the module `onnxruntime`, such as ``1.32.0`` or ``1.33.0.dev20261101001``.

    Raises:
        ToolchainMissing: there is no such module.
    """
    imported = getattr(sys.modules.get("onnxruntime"), "__version__", None)
    if isinstance(imported, str):
        return imported
    try:
        spec = util.find_spec("onnxruntime")
    except (ImportError, ValueError):
        spec = None
    # A folder that only happens to be called so has no origin.
    version = read_version(spec.origin) if spec is not None and spec.origin is not None else None
    if version is None:
        raise ToolchainMissing("is not installed", where="onnxruntime", hint="pip install onnxruntime")
    return version


def ort_minor() -> str:
    """The first two numbers of `ort_version`, such as ``1.32``: what compiled graphs and blobs depend on."""
    return ".".join(ort_version().split(".")[:2])


@functools.lru_cache(maxsize=4)
def read_version(module: str) -> str | None:
    """What the Python file `module` assigns to ``__version__``; None if it says nothing."""
    try:
        with Path(module).open(encoding="utf-8", errors="replace") as file:
            found = _VERSION.search(file.read(_MAX_READ))
    except OSError:
        return None
    return found[1] if found else None
