"""All variants of a component against one machine: a ranking with a reason for each.

Selection is five numbered steps on values. Asking the EP on this machine is the toolchains' affair.

1. Judge each variant (`aotpack.verdict.judge`).
2. Let the policy leave variants out. It narrows and reorders; it never turns UNSUPPORTED into anything else.
3. Split into accepted (OPTIMAL, PREFER_RECOMPILATION, and UNKNOWN where it is asked for) and rejected.
4. Rank the accepted: the portable one last; then verdict, device type, specificity, the package's order.
5. If nothing is accepted, UNKNOWN ones become the last resort, and the selection says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from aotpack.errors import UnknownName, UsageError
from aotpack.machine import Machine
from aotpack.manifest import Component, Variant
from aotpack.target import PORTABLE
from aotpack.verdict import Code, Grade, Rules, Verdict, judge

__all__ = ["Candidate", "Policy", "Selection", "select"]

_DEVICES: tuple[Literal["npu", "gpu", "cpu"], ...] = ("npu", "gpu", "cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the user wants of the choice."""

    #: Best first. A device type that is left out is not taken.
    devices: Sequence[Literal["npu", "gpu", "cpu"]] = _DEVICES
    #: Only these EPs; None: all.
    eps: frozenset[str] | None = None
    #: Only the variant with this id.
    variant: str | None = None
    #: An emulated device counts as a device.
    emulate: bool = False
    #: UNKNOWN variants are candidates, after those that are known to fit.
    allow_unknown: bool = False

    def __post_init__(self) -> None:
        strange = [device for device in self.devices if device not in _DEVICES]
        if strange:
            raise UsageError(f"unknown device type {strange[0]!r}", expected=", ".join(_DEVICES))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A variant with its verdict."""

    variant: Variant
    verdict: Verdict
    accepted: bool

    @property
    def id(self) -> str:
        """The variant's id."""
        return self.variant.id


@dataclass(frozen=True, slots=True)
class Selection:
    """The candidates, accepted ones first and in order, each with the reason."""

    component: str
    candidates: tuple[Candidate, ...]
    #: Nobody can say whether the accepted ones fit; nothing else was left.
    last_resort: bool = False

    @property
    def chosen(self) -> Candidate | None:
        """The one to load; None if no variant fits."""
        first = self.candidates[0] if self.candidates else None
        return first if first is not None and first.accepted else None

    @property
    def accepted(self) -> tuple[Candidate, ...]:
        """Those that may be loaded, best first."""
        return tuple(candidate for candidate in self.candidates if candidate.accepted)

    @property
    def rejected(self) -> tuple[Candidate, ...]:
        """Those that may not."""
        return tuple(candidate for candidate in self.candidates if not candidate.accepted)

    def explain(self) -> str:
        """One line for each variant, for people."""
        width = max((len(candidate.id) for candidate in self.candidates), default=0)
        lines = []
        for candidate in self.candidates:
            mark = "->" if candidate is self.chosen else "ok" if candidate.accepted else "no"
            verdict = candidate.verdict
            said = f"{verdict.grade.value} [{verdict.code.value}] {verdict.reason}"
            lines.append(f"{mark} {candidate.id:<{width}}  {said}")
        if self.last_resort:
            lines.append("Nothing is known to fit: what is left are variants that nobody can judge.")
        return "\n".join(lines)


def select(
    component: Component,
    machine: Machine,
    toolchains: Mapping[str, Rules],
    *,
    here: bool,
    policy: Policy | None = None,
) -> Selection:
    """Rank the variants of `component` for `machine`.

    Args:
        component: whose variants.
        machine: whom for.
        toolchains: the rules by the name that variants give.
        here: `machine` is this computer, so that its EPs are asked.
        policy: what the user wants.

    Raises:
        UnknownName: the policy asks for a variant that the component does not have.
    """
    policy = policy or Policy()
    if policy.variant is not None and policy.variant not in {variant.id for variant in component.variants}:
        raise UnknownName(
            f"variant of component {component.name!r}",
            policy.variant,
            (variant.id for variant in component.variants),
        )
    judged = [
        (
            variant,
            judge(variant, machine, toolchains.get(variant.toolchain), here=here, emulate=policy.emulate),
        )
        for variant in component.variants
    ]
    allowed = [(variant, _under(policy, variant, verdict)) for variant, verdict in judged]
    fitting = {Grade.OPTIMAL, Grade.PREFER_RECOMPILATION} | (
        {Grade.UNKNOWN} if policy.allow_unknown else set()
    )
    last_resort = not any(verdict.grade in fitting for _, verdict in allowed) and any(
        verdict.grade is Grade.UNKNOWN for _, verdict in allowed
    )
    if last_resort:
        fitting = {Grade.UNKNOWN}
    candidates = [Candidate(variant, verdict, verdict.grade in fitting) for variant, verdict in allowed]
    ranked = [item for _, item in sorted(enumerate(candidates), key=lambda item: _rank(policy, *item))]
    return Selection(component.name, tuple(ranked), last_resort)


def _under(policy: Policy, variant: Variant, verdict: Verdict) -> Verdict:
    if verdict.grade is Grade.UNSUPPORTED:
        return verdict
    if policy.variant is not None and variant.id != policy.variant:
        left_out = f"Another variant was asked for ({policy.variant})."
    elif variant.device not in policy.devices:
        left_out = f"The policy takes no {variant.device}."
    elif policy.eps is not None and variant.ep not in policy.eps:
        left_out = f"The policy does not take {variant.ep}."
    else:
        return verdict
    return replace(verdict, grade=Grade.UNSUPPORTED, code=Code.POLICY, reason=left_out)


def _rank(policy: Policy, position: int, candidate: Candidate) -> tuple[Any, ...]:
    variant = candidate.variant
    device = policy.devices.index(variant.device) if variant.device in policy.devices else len(_DEVICES)
    return (
        not candidate.accepted,
        variant.target == PORTABLE,
        candidate.verdict.grade.rank,
        device,
        -variant.specificity,
        position,
    )
