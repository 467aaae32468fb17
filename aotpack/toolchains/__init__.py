"""All that is vendor-specific: one folder a vendor, behind the protocol in `aotpack.toolchains.base`."""

from __future__ import annotations

import threading
from importlib import import_module
from importlib.metadata import EntryPoint, distributions, entry_points
from types import MappingProxyType
from typing import TYPE_CHECKING

from aotpack.toolchains.guarded import GuardedToolchain, from_entry_point

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aotpack.toolchains.base import Toolchain

__all__ = ["ENTRY_POINT_GROUP", "failed_toolchains", "toolchains"]

#: Where third parties register theirs.
ENTRY_POINT_GROUP = "aotpack.toolchains"

#: (folder, class) of each.
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


#: Held while toolchains are made, so that threads do not make them twice.
_making = threading.RLock()
_made: dict[str, Toolchain] = {}


def toolchains() -> Mapping[str, Toolchain]:
    """All toolchains by name, the built-in ones first. Loads no vendor library; made once for a process.

    Third parties' are guarded (`aotpack.toolchains.guarded`): one that cannot be loaded, is no toolchain, or
    has the name of one that is there already is among them with a ``failure``, and says nothing else.
    """
    with _making:
        if not _made:
            built_in = [
                getattr(import_module(f"{__name__}.{module}.toolchain"), cls)() for module, cls in _BUILT_IN
            ]
            _made.update((toolchain.name, toolchain) for toolchain in built_in)
            try:
                # A third party's that asks for all while it is made gets those before it.
                _add_third_parties(_made)
            except BaseException:
                _made.clear()
                raise
    return MappingProxyType(_made)


def _add_third_parties(found: dict[str, Toolchain]) -> None:
    for point in _entry_points():
        toolchain = from_entry_point(point)
        key = toolchain.name
        if key in found:
            toolchain.put_aside("there is another toolchain of this name")
            # No name of a toolchain has such characters.
            key = f"{key} of {toolchain.distribution}"
        found[key] = toolchain


def _entry_points() -> Iterable[EntryPoint]:
    """The entry points of third parties."""
    # `entry_points` parses those of every package that is installed, which takes longer than a small model.
    texts = (each.read_text("entry_points.txt") for each in distributions())
    if not any(ENTRY_POINT_GROUP in (text or "") for text in texts):
        return ()
    return entry_points(group=ENTRY_POINT_GROUP)


def failed_toolchains() -> tuple[GuardedToolchain, ...]:
    """The toolchains of third parties that failed in this process, with their ``failure`` or ``trouble``."""
    return tuple(
        each
        for each in toolchains().values()
        if isinstance(each, GuardedToolchain) and (each.failure or each.trouble)
    )
