"""Files on disk to an `onnxruntime.InferenceSession`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from aotpack.manifest import Variant

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["create"]


class _Toolchain(Protocol):
    def add_provider(
        self, options: onnxruntime.SessionOptions, variant: Variant, *, emulate: bool
    ) -> None: ...


def create(
    variant: Variant, model: Path, toolchain: _Toolchain, *, emulate: bool = False
) -> onnxruntime.InferenceSession:
    """A session on the files of `variant`.

    ORT's fallback to the CPU EP is off, so that the variant that was chosen is the one that runs, and a
    compiled variant is never compiled anew (FACTS.md, 1 and 2).

    Args:
        variant: what the files are.
        model: the ONNX file, its sidecars beside it.
        toolchain: registers the EP and names its device.
        emulate: use the vendor's emulator where there is no device.

    Raises:
        ToolchainError: the EP is not there or has no device.
        Exception: whatever ORT raises when it cannot create the session.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    toolchain.add_provider(options, variant, emulate=emulate)
    for key, value in variant.session.config.items():
        options.add_session_config_entry(key, value)
    if variant.session.graph_optimization == "disabled":
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(os.fspath(model), options, enable_fallback=0)
    session.disable_fallback()
    return session
