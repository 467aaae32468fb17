"""All that is vendor-specific: one module a vendor, behind the protocol in `aotpack.toolchain.base`."""

from __future__ import annotations

import functools
from importlib import import_module
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import TYPE_CHECKING

from aotpack.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aotpack.toolchain.base import Toolchain

__all__ = ["ENTRY_POINT_GROUP", "toolchains"]

#: Where third parties register theirs.
ENTRY_POINT_GROUP = "aotpack.toolchains"

#: (module, class) of each.
_BUILT_IN = (
    ("ort", "OrtToolchain"),
    ("openvino", "OpenVinoToolchain"),
    ("qnn", "QnnToolchain"),
    ("tensorrt_rtx", "TensorRtRtxToolchain"),
    ("webgpu", "WebGpuToolchain"),
    ("in_tree", "TensorRtToolchain"),
    ("in_tree", "VitisAiToolchain"),
    ("in_tree", "MiGraphXToolchain"),
)


@functools.cache
def toolchains() -> Mapping[str, Toolchain]:
    """All toolchains by name, the built-in ones first. Loads no vendor library.

    Raises:
        ToolchainError: a third party's entry point cannot be loaded, or takes a name that is taken.
    """
    built_in = (getattr(import_module(f"{__name__}.{module}"), cls)() for module, cls in _BUILT_IN)
    found: dict[str, Toolchain] = {toolchain.name: toolchain for toolchain in built_in}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            loaded = point.load()
            toolchain: Toolchain = loaded() if callable(loaded) else loaded
            name = toolchain.name
        except Exception as error:
            raise ToolchainError(
                "cannot be loaded", where=f"entry point {point.value}", found=error
            ) from error
        if name in found:
            raise ToolchainError(f"toolchain {name!r} exists already", where=f"entry point {point.value}")
        found[name] = toolchain
    return MappingProxyType(found)
