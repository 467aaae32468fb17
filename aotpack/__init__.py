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
    from aotpack.machine.profile import Machine, read_profile
    from aotpack.manifest.values import Manifest
    from aotpack.runtime.events import Event, EventCode
    from aotpack.runtime.package import Package, load, load_all
    from aotpack.runtime.package import open_package as open  # noqa: A004 - as in gzip.open
    from aotpack.runtime.package import select_variant as select
    from aotpack.runtime.probing import probe
    from aotpack.selection.select import Policy, Selection

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
    "Event": ("aotpack.runtime.events", "Event"),
    "EventCode": ("aotpack.runtime.events", "EventCode"),
    "Machine": ("aotpack.machine.profile", "Machine"),
    "Manifest": ("aotpack.manifest.values", "Manifest"),
    "Package": ("aotpack.runtime.package", "Package"),
    "Policy": ("aotpack.selection.select", "Policy"),
    "Selection": ("aotpack.selection.select", "Selection"),
    "__version__": ("aotpack.version", "VERSION"),
    "build": ("aotpack.builder.build", "build"),
    "load": ("aotpack.runtime.package", "load"),
    "load_all": ("aotpack.runtime.package", "load_all"),
    "open": ("aotpack.runtime.package", "open_package"),
    "probe": ("aotpack.runtime.probing", "probe"),
    "read_profile": ("aotpack.machine.profile", "read_profile"),
    "select": ("aotpack.runtime.package", "select_variant"),
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
