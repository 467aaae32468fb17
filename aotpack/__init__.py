"""aotpack: packages of ahead-of-time compiled ONNX models.

`build` compiles a model for many targets into one package, `open` reads it, `select` says which variant
fits this machine and why, and `load` gives an `onnxruntime.InferenceSession` on that one.
"""

from __future__ import annotations

from importlib import import_module

# Importing typing for this name would take longer than everything else here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from aotpack.builder.build import build
    from aotpack.builder.report import BuildReport
    from aotpack.errors import AotpackError
    from aotpack.events import Event, EventCode
    from aotpack.machine import Machine, read_profile
    from aotpack.manifest import Manifest
    from aotpack.package import Package, load, load_all
    from aotpack.package import open_package as open  # noqa: A004 - as in gzip.open
    from aotpack.package import select_variant as select
    from aotpack.probing import probe
    from aotpack.selection import Policy, Selection

    __version__: str

__all__ = [
    "AotpackError",
    "BuildReport",
    "Event",
    "EventCode",
    "Machine",
    "Manifest",
    "Package",
    "Policy",
    "Selection",
    "build",
    "load",
    "load_all",
    "open",
    "probe",
    "read_profile",
    "select",
]

# Nothing is imported before it is used: `import aotpack` costs a millisecond, and loading a package never
# imports what builds one.
_HOME = {
    "AotpackError": ("aotpack.errors", "AotpackError"),
    "BuildReport": ("aotpack.builder.report", "BuildReport"),
    "Event": ("aotpack.events", "Event"),
    "EventCode": ("aotpack.events", "EventCode"),
    "Machine": ("aotpack.machine", "Machine"),
    "Manifest": ("aotpack.manifest", "Manifest"),
    "Package": ("aotpack.package", "Package"),
    "Policy": ("aotpack.selection", "Policy"),
    "Selection": ("aotpack.selection", "Selection"),
    "__version__": ("aotpack.version", "VERSION"),
    "build": ("aotpack.builder.build", "build"),
    "load": ("aotpack.package", "load"),
    "load_all": ("aotpack.package", "load_all"),
    "open": ("aotpack.package", "open_package"),
    "probe": ("aotpack.probing", "probe"),
    "read_profile": ("aotpack.machine", "read_profile"),
    "select": ("aotpack.package", "select_variant"),
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'aotpack' has no attribute {name!r}")
    module, attribute = _HOME[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
