"""What the machine that runs the tests can compile: no machine can for every target of the catalogue."""

from __future__ import annotations

import pytest

from aotpack.machine import probe
from aotpack.target import find
from aotpack.toolchain import toolchains

__all__ = ["INTEL", "compilable", "needs", "why_not"]

#: This machine, or what it would be with an Intel CPU: for rules that are asked no EP.
INTEL = probe().model_copy(update={"cpu": probe().cpu.model_copy(update={"vendor": "GenuineIntel"})})


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
