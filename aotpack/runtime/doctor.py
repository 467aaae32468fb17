"""Which variants of a package were built by toolchains that a machine's runtime refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from aotpack.machine.profile import Machine
from aotpack.manifest.values import Manifest, Requirements, Variant
from aotpack.selection.verdict import STALE, Code, Grade, Rules, Verdict, judge
from aotpack.targets.catalogue import PORTABLE
from aotpack.toolchains import toolchains

__all__ = ["Finding", "State", "examine"]

#: ``fresh``: the runtime takes what built the variant, on whatever device it is for. ``unknown``: the EP is
#: not on the machine, or nobody can say.
State = Literal["fresh", "stale", "unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One variant, and whether its toolchain is still taken."""

    component: str
    variant: Variant
    state: State
    #: What it follows from.
    verdict: Verdict

    @property
    def code(self) -> Code | None:
        """Why it is not fresh."""
        return None if self.state == "fresh" else self.verdict.code

    @property
    def reason(self) -> str:
        """One sentence; of a fresh one that is for another device than the machine has, two."""
        if self.state != "fresh":
            return self.verdict.reason
        fresh = "The runtime takes what built it."
        if self.verdict.grade is not Grade.UNSUPPORTED:
            return fresh
        return f"{fresh} It is for another machine: {self.verdict.reason}"


def examine(manifest: Manifest, machine: Machine) -> list[Finding]:
    """A finding for each compiled variant, in the package's order.

    Args:
        manifest: of the package.
        machine: whose onnxruntime and EPs are the newer ones; its devices do not count.
    """
    rules = toolchains()
    return [
        _examine(component.name, variant, machine, rules.get(variant.toolchain))
        for component in manifest.components
        for variant in component.variants
        if variant.target != PORTABLE
    ]


def _examine(component: str, variant: Variant, machine: Machine, rules: Rules | None) -> Finding:
    # The toolchains' rules compare the runtime before the device: what they say of a device is not its age.
    requires = variant.compatibility.requires
    versions = Requirements(onnxruntime=requires.onnxruntime, ep=requires.ep)
    compatibility = variant.compatibility.replace(requires=versions)
    verdict = judge(variant.replace(compatibility=compatibility), machine, rules, here=False, emulate=True)
    if verdict.code in STALE and verdict.grade is Grade.UNSUPPORTED:
        return Finding(component, variant, "stale", verdict)
    unknown = {
        Code.OPTION_NOT_ALLOWED,
        Code.EP_MISSING,
        Code.TOOLCHAIN_UNKNOWN,
        Code.TOOLCHAIN_FAILED,
        Code.STRING_MALFORMED,
    }
    required = [item for item in verdict.compared if item.what in ("onnxruntime", variant.ep)]
    runtime = [item for item in verdict.compared if item not in required][:1]
    versions_known = all(item.fits is not None for item in (*required, *runtime))
    if verdict.code in unknown or not versions_known:
        return Finding(component, variant, "unknown", verdict)
    return Finding(component, variant, "fresh", verdict)
