"""What this machine is, as far as tests depend on it: the EPs take some devices and not others."""

from __future__ import annotations

import pytest

from aotpack.machine import probe
from aotpack.target import find
from aotpack.toolchain import toolchains

__all__ = ["compilable", "needs_openvino"]


def _why_not(name: str) -> str | None:
    target = find(name)
    return toolchains()[target.toolchain].why_not_compile(target, probe())


def compilable(*targets: str) -> tuple[str, ...]:
    """Those of `targets` that can be compiled for here: a CPU without AMX, say, leaves some out."""
    return tuple(name for name in targets if _why_not(name) is None)


_WITHOUT_OPENVINO = _why_not("openvino-cpu-avx2")

#: For tests that compile, load or ask with OpenVINO.
needs_openvino = pytest.mark.skipif(_WITHOUT_OPENVINO is not None, reason=_WITHOUT_OPENVINO or "")
