"""What the user wants of the choice. A policy narrows and reorders; it never makes a variant fit."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, Literal, Protocol

from aotpack.errors import UsageError
from aotpack.manifest.values import Coverage, Variant
from aotpack.selection.verdict import Code, Grade, Verdict
from aotpack.targets.catalogue import PORTABLE

__all__ = [
    "DEFAULT_MIN_COMPILED",
    "VARIANT_VARIABLE",
    "Device",
    "Measured",
    "Policy",
    "Preference",
    "check_share",
    "share_compiled",
]

#: What a variant runs on.
Device = Literal["npu", "gpu", "cpu"]

#: What decides between device types.
Preference = Literal["efficiency", "latency"]

#: The environment variable that names the one variant to take.
VARIANT_VARIABLE = "AOTPACK_VARIANT"

#: Share of a model's nodes. Below it most of the model runs on the CPU whatever the device is, and tensors
#: are copied between the two at each partition.
DEFAULT_MIN_COMPILED = 0.5

#: The order of the device types: an NPU does most for a joule, a GPU has an answer soonest.
_ORDERS: Mapping[Preference, tuple[Device, ...]] = {
    "efficiency": ("npu", "gpu", "cpu"),
    "latency": ("gpu", "npu", "cpu"),
}


class Measured(Protocol):
    """What was found out about a variant by running it on this machine."""

    #: Why it does not run; None if it does.
    @property
    def failure(self) -> str | None:
        """One sentence."""

    @property
    def run_seconds(self) -> float | None:
        """Steady latency, the median."""

    @property
    def peak_memory(self) -> int | None:
        """Of the whole process, in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the user wants of the choice.

    The order of the accepted variants: the portable one last; UNKNOWN after what is known to fit; variants
    that leave too much on the CPU after the others; then the device type, the verdict, the variant's
    specificity, the package's order. An NPU that runs a blob for an older one thus comes before the CPU.
    With `measured` the steady latency comes before all of these, and variants that were not measured after
    those that were.
    """

    #: Best first; a device type that is left out is not taken. None: as `prefer` has it.
    devices: Sequence[Device] | None = None
    prefer: Preference = "efficiency"
    #: Only these EPs; None: all.
    eps: frozenset[str] | None = None
    #: Bytes. What a variant takes is its measured peak, or at least its files where it was not measured.
    memory_limit: int | None = None
    #: Only this variant: its id or target, or several for a package of several components
    #: (`aotpack.selection.variant_names`).
    variant: str | None = None
    #: Order by what `aotpack tune` measured.
    measured: bool = False
    #: An emulated device counts as a device.
    emulate: bool = False
    #: UNKNOWN variants are candidates, after those that are known to fit.
    allow_unknown: bool = False
    #: Share of a model's nodes, 0 to 1, that an EP must have compiled. A variant with less is taken after
    #: those that have it, and is never OPTIMAL.
    min_compiled: float = DEFAULT_MIN_COMPILED

    def __post_init__(self) -> None:
        for name, given in (("devices", self.devices), ("eps", self.eps)):
            # Each of its letters would be an item.
            if isinstance(given, str):
                raise UsageError("is a text", where=name, found=repr(given), expected=f"a list: [{given!r}]")
        _check("devices", self.devices, Sequence, "a list, best first", optional=True)
        _check("eps", self.eps, Collection, "a set of names", optional=True)
        _check("variant", self.variant, str, "a name, or several with commas", optional=True)
        _check("memory_limit", self.memory_limit, Integral, "a number of bytes", optional=True)
        strange = [device for device in self.devices or () if device not in _ORDERS["latency"]]
        if strange:
            raise UsageError(f"unknown device type {strange[0]!r}", expected="npu, gpu, cpu")
        if self.prefer not in _ORDERS:
            raise UsageError(f"unknown preference {self.prefer!r}", expected=" or ".join(_ORDERS))
        if self.memory_limit is not None and self.memory_limit < 0:
            raise UsageError("a memory limit below zero", found=self.memory_limit)
        check_share("min_compiled", self.min_compiled)

    @property
    def device_order(self) -> Sequence[Device]:
        """Device types that are taken, best first."""
        return _ORDERS[self.prefer] if self.devices is None else self.devices

    def with_environment(self) -> Policy:
        """This policy, asking for ``$AOTPACK_VARIANT`` unless it asks for a variant already."""
        named = os.environ.get(VARIANT_VARIABLE, "").strip()
        return replace(self, variant=named) if named and self.variant is None else self

    def narrow(self, variant: Variant, verdict: Verdict, measured: Measured | None) -> Verdict:
        """The verdict, or UNSUPPORTED with the reason if the policy leaves the variant out."""
        if verdict.grade is Grade.UNSUPPORTED:
            return verdict
        code = Code.POLICY
        if self.variant is not None and variant.id != self.variant:
            reason = f"Another variant was asked for ({self.variant})."
        elif variant.device not in self.device_order:
            reason = f"The policy takes no {variant.device}."
        elif self.eps is not None and variant.ep not in self.eps:
            reason = f"The policy does not take {variant.ep}."
        elif measured is not None and measured.failure is not None:
            code = Code.CRASHED
            reason = f"It did not run for `aotpack tune`, which can measure it again: {measured.failure}."
        elif self.memory_limit is not None and (taken := _memory(variant, measured)) > self.memory_limit:
            code, reason = Code.MEMORY, f"It takes {taken:,} bytes; the limit is {self.memory_limit:,}."
        else:
            return self._demoted(variant, verdict)
        return verdict._replace(grade=Grade.UNSUPPORTED, code=code, reason=reason)

    def leaves_too_much(self, variant: Variant) -> bool:
        """Whether less than `min_compiled` of the model's nodes were compiled."""
        return share_compiled(variant.coverage) < self.min_compiled

    def _demoted(self, variant: Variant, verdict: Verdict) -> Verdict:
        coverage = variant.coverage
        fits = verdict.grade in (Grade.OPTIMAL, Grade.PREFER_RECOMPILATION)
        if coverage is None or not fits or not self.leaves_too_much(variant):
            return verdict
        partitions = "1 partition" if coverage.partitions == 1 else f"{coverage.partitions:,} partitions"
        reason = (
            f"{verdict.reason} But only {coverage.compiled:,} of {coverage.nodes:,} nodes were compiled, in "
            f"{partitions}; the others run on the CPU."
        )
        # Loading looks at this code, and a session without the emulator would fail.
        code = verdict.code if verdict.code is Code.EMULATED else Code.PARTLY_COMPILED
        return verdict._replace(grade=Grade.PREFER_RECOMPILATION, code=code, reason=reason)

    def order(self, variant: Variant, verdict: Verdict, measured: Measured | None) -> tuple[Any, ...]:
        """What candidates are sorted by."""
        devices = self.device_order
        usual = (
            variant.target == PORTABLE,
            verdict.grade is Grade.UNKNOWN,
            self.leaves_too_much(variant),
            devices.index(variant.device) if variant.device in devices else len(devices),
            verdict.grade.rank,
            -variant.specificity,
        )
        if not self.measured:
            return usual
        seconds = None if measured is None else measured.run_seconds
        return (seconds is None, seconds or 0.0, *usual)


def check_share(name: str, given: float) -> None:
    """Refuse what is no share.

    Args:
        name: of the option.
        given: a number from 0 to 1.

    Raises:
        UsageError: it is none.
    """
    _check(name, given, Real, "0 to 1")
    if not 0 <= given <= 1:
        raise UsageError("is no share", where=name, found=f"{given:g}", expected="0 to 1")


def _check(name: str, given: object, kind: type, expected: str, *, optional: bool = False) -> None:
    # True is a number for Python alone.
    if not (isinstance(given, kind) and not isinstance(given, bool)) and not (optional and given is None):
        raise UsageError("has the wrong type", where=name, found=repr(given), expected=expected)


def share_compiled(coverage: Coverage | None) -> float:
    """The share of a model's nodes that went into compiled partitions, 0 to 1; 1 where there are none."""
    if coverage is None or not coverage.partitions or not coverage.nodes:
        # Nothing was compiled, as for the portable variant, or nobody counted.
        return 1.0
    return coverage.compiled / coverage.nodes


def _memory(variant: Variant, measured: Measured | None) -> int:
    # A session holds at least the weights.
    peak = None if measured is None else measured.peak_memory
    return variant.size if peak is None else peak
