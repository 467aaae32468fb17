"""A GPU in software, for the WebGPU EP on machines without one: SwiftShader, which Chromium brings along."""

from __future__ import annotations

import ctypes.util
from pathlib import Path

__all__ = ["environment"]

#: Where Chromium and Chrome keep SwiftShader, a Vulkan driver that computes on the CPU.
_DRIVERS = ("/usr/lib/chromium", "/usr/lib64/chromium-browser", "/opt/google/chrome")


def environment() -> dict[str, str] | None:
    """The variables with which the WebGPU EP has a device; None where there is no such driver."""
    drivers = [path for folder in _DRIVERS for path in Path(folder).glob("vk_swiftshader_icd.json")]
    if not drivers or ctypes.util.find_library("vulkan") is None:
        return None
    return {"ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER": "1", "VK_ICD_FILENAMES": str(drivers[0])}
