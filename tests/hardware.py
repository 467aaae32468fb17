"""What the machine that runs the tests has: no machine can compile for every target of the catalogue."""

from __future__ import annotations

import shutil

import archspec.cpu
import pytest

from aotpack.runtime.probing import probe
from aotpack.targets.catalogue import find
from aotpack.toolchains import toolchains
from samples.software_gpu import environment

__all__ = ["EMULATOR", "INTEL", "browser", "compilable", "needs", "software_gpu", "why_not"]

_IS_INTEL = probe().cpu.vendor == "GenuineIntel"
_HASWELL = tuple(sorted(archspec.cpu.TARGETS["haswell"].features))


def _qemu() -> str | None:
    return shutil.which("qemu-x86_64") if probe().arch == "x86_64" else None


#: This machine if its CPU is Intel's; else what `EMULATOR` makes of it.
INTEL = probe().replace(
    cpu=probe().cpu.replace(**{} if _IS_INTEL else {"vendor": "GenuineIntel", "features": _HASWELL})
)

#: The command in front of a program that shall run on `INTEL`; None if there is none. It does for questions
#: about strings: in numbers QEMU 7.2 errs where OpenVINO uses AVX2.
EMULATOR: tuple[str, ...] | None = (
    () if _IS_INTEL else (qemu, "-cpu", "Haswell") if (qemu := _qemu()) else None
)


def why_not(target: str) -> str | None:
    """Why nothing can be compiled for the target here; None if it can."""
    wanted = find(target)
    return toolchains()[wanted.toolchain].why_not_compile(wanted, probe())


def compilable(*targets: str) -> tuple[str, ...]:
    """Those of the targets that can be compiled for here."""
    return tuple(target for target in targets if why_not(target) is None)


def needs(target: str) -> pytest.MarkDecorator:
    """Skips where nothing can be compiled for the target."""
    why = why_not(target)
    return pytest.mark.skipif(why is not None, reason=f"{target}: {why}")


def software_gpu() -> dict[str, str]:
    """The environment in which the WebGPU EP has a device, a GPU in software. Skips where there is none."""
    found = environment()
    if found is None:
        pytest.skip("no GPU in software: it needs Debian's packages chromium and libvulkan1")
    return found


def browser() -> str:
    """The path of a browser of the Chromium family. Skips where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("no browser: it needs Debian's package chromium")
