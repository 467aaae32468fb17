"""What the command line prints with ``--json``, as values; schemas/ is generated from them.

`aotpack inspect` prints the manifest, with `refused` where there is something to refuse; `aotpack build` a
build report and `aotpack machine` a machine profile; the others are here. Fields may be added.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from aotpack.cache.variants import CacheEntry
from aotpack.common.values import Value
from aotpack.manifest.values import Component, Manifest, TensorInfo
from aotpack.runtime.events import Refusal
from aotpack.runtime.fleet import Coverage
from aotpack.runtime.refusals import RefusedVariant
from aotpack.selection.select import Candidate, Selection
from aotpack.selection.verdict import Verdict

__all__ = [
    "CacheDocument",
    "CacheEntryDocument",
    "CandidateDocument",
    "CheckedOnDocument",
    "ComparisonDocument",
    "ComponentCoverageDocument",
    "ComponentRunDocument",
    "ComponentSelectionDocument",
    "CoverageDocument",
    "ExtractDocument",
    "FleetCellDocument",
    "FleetHelpDocument",
    "FleetRowDocument",
    "FlexDocument",
    "FlexNodeDocument",
    "InspectDocument",
    "MachinesDocument",
    "RefusalDocument",
    "RefusedVariantDocument",
    "RunDocument",
    "SelectionDocument",
    "TargetDocument",
    "TargetsDocument",
    "VerifyDocument",
]


class ComparisonDocument(Value, kw_only=True):
    """One thing that was compared."""

    what: str
    found: str | None
    needed: str
    #: None: the machine does not say.
    fits: bool | None

    @classmethod
    def all_of(cls, verdict: Verdict) -> tuple[ComparisonDocument, ...]:
        """The documents for all that a verdict rests on."""
        return tuple(
            cls(what=item.what, found=item.found, needed=item.needed, fits=item.fits)
            for item in verdict.compared
        )


class CandidateDocument(Value, kw_only=True):
    """A variant with its verdict."""

    id: str
    target: str
    ep: str
    device: str
    accepted: bool
    verdict: str
    code: str
    reason: str
    #: ``ep`` if the EP on this machine said so, else ``rules``.
    by: str
    compared: tuple[ComparisonDocument, ...]

    @classmethod
    def of(cls, candidate: Candidate) -> CandidateDocument:
        """The document for a candidate."""
        verdict = candidate.verdict
        return cls(
            id=candidate.variant.id,
            target=candidate.variant.target,
            ep=candidate.variant.ep,
            device=candidate.variant.device,
            accepted=candidate.accepted,
            verdict=verdict.grade.value,
            code=verdict.code.value,
            reason=verdict.reason,
            by=verdict.by,
            compared=ComparisonDocument.all_of(verdict),
        )


class RefusedVariantDocument(Value, kw_only=True):
    """A variant that no machine may load, since it asks for what no package may."""

    component: str
    variant: str
    code: str
    reason: str


class InspectDocument(Manifest, kw_only=True):
    """``aotpack inspect --json`` of a package with such variants; of any other it is the manifest itself."""

    refused: tuple[RefusedVariantDocument, ...] = ()

    @classmethod
    def of(cls, manifest: Manifest, refused: Iterable[RefusedVariant]) -> InspectDocument:
        """The document for a manifest."""
        documents = tuple(
            RefusedVariantDocument(
                component=each.component, variant=each.variant, code=each.code.value, reason=each.reason
            )
            for each in refused
        )
        return cls(
            **{name: getattr(manifest, name) for name in Manifest.__struct_fields__}, refused=documents
        )


class ComponentSelectionDocument(Value, kw_only=True):
    """The variants of a component: accepted candidates first, in order."""

    component: str
    #: The id of the variant to load; None if none fits.
    chosen: str | None
    #: Nobody can say whether the accepted ones fit; nothing else was left.
    last_resort: bool
    #: Something was measured on this machine; without that `--measured` changes nothing.
    measured: bool
    candidates: tuple[CandidateDocument, ...]


class SelectionDocument(ComponentSelectionDocument, kw_only=True):
    """``aotpack select --json``: the first component, or the one that was asked for, and the others."""

    package: str
    #: The other components of the package, in its order; none where one was asked for.
    others: tuple[ComponentSelectionDocument, ...] = ()

    @classmethod
    def of(cls, selection: Selection, *, package: str, others: Sequence[Selection] = ()) -> SelectionDocument:
        """The document for a selection, and for those of the package's other components."""
        return cls(
            package=package,
            others=tuple(ComponentSelectionDocument(**_selected(other)) for other in others),
            **_selected(selection),
        )


def _selected(selection: Selection) -> dict[str, Any]:
    return {
        "component": selection.component,
        "chosen": selection.chosen.id if selection.chosen else None,
        "last_resort": selection.last_resort,
        "measured": selection.measured,
        "candidates": tuple(CandidateDocument.of(candidate) for candidate in selection.candidates),
    }


class TargetDocument(Value, kw_only=True):
    """A target, and what can be done with it here."""

    name: str
    aliases: tuple[str, ...]
    title: str
    toolchain: str
    ep: str
    device: str
    can_compile: bool
    can_run: bool
    #: ``host``, ``isa-emulation``, ``emulator``, or None.
    runs: str | None
    #: Why not, or what has to be known.
    why: str | None


class TargetsDocument(Value, kw_only=True):
    """``aotpack targets --json``."""

    targets: tuple[TargetDocument, ...]


class MachinesDocument(Value, kw_only=True):
    """``aotpack machine --list --json``: names of the machines whose profiles come with aotpack."""

    machines: tuple[str, ...]


class FlexNodeDocument(Value, kw_only=True):
    """A FlexAttention node and what is known of its mask."""

    node: str
    #: (B, Hq, L, E), (B, Hkv, S, E) and (B, Hkv, S, Ev); a name or None where a size is not known.
    q_shape: tuple[int | str | None, ...]
    k_shape: tuple[int | str | None, ...]
    v_shape: tuple[int | str | None, ...]
    #: Share of the blocks that need not be computed, 0 to 1.
    blocks_skipped: float
    #: Why no block can be skipped.
    why_dense: str | None
    #: Path of the PNG.
    picture: str | None


class FlexDocument(Value, kw_only=True):
    """``aotpack flex show --json``."""

    model: str
    nodes: tuple[FlexNodeDocument, ...]


class RefusalDocument(Value, kw_only=True):
    """A variant that was tried and gave no session."""

    variant: str
    code: str
    reason: str
    #: The whole of what the vendor's library said.
    details: str

    @classmethod
    def of(cls, refusal: Refusal) -> RefusalDocument:
        """The document for a refusal."""
        details = refusal.reason if refusal.error is None else str(refusal.error)
        return cls(variant=refusal.variant, code=refusal.code.value, reason=refusal.reason, details=details)


class ComponentRunDocument(Value, kw_only=True):
    """A component that was loaded and run."""

    component: str
    variant: str
    target: str
    ep: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    #: From the open package to the session, the files put into the cache if they were not there.
    load_seconds: float
    first_run_seconds: float
    #: The median of the others.
    run_seconds: float
    runs: int
    #: Of ONNX Runtime, for one operator and for operators side by side; 0: as many as it likes.
    threads: int = 0
    inter_threads: int = 0
    #: Variants that were tried before it, in order.
    refused: tuple[RefusalDocument, ...]


class RunDocument(ComponentRunDocument, kw_only=True):
    """``aotpack run --json``: the first component, or the one that was asked for, and the others."""

    package: str
    #: The other components of the package, in its order; none where one was asked for.
    others: tuple[ComponentRunDocument, ...] = ()


class VerifyDocument(Value, kw_only=True):
    """``aotpack verify --json``."""

    package: str
    #: sha256 of the manifest: the package's identity.
    digest: str
    segments: int
    size: int


class CacheEntryDocument(Value, kw_only=True):
    """A variant in the local cache."""

    package: str
    component: str
    variant: str
    target: str
    #: Bytes of its files, shared ones included.
    size: int
    #: Seconds since the epoch.
    used: float
    path: str

    @classmethod
    def of(cls, entry: CacheEntry) -> CacheEntryDocument:
        """The document for an entry."""
        return cls(
            package=entry.package,
            component=entry.component,
            variant=entry.variant,
            target=entry.target,
            size=entry.size,
            used=entry.used,
            path=str(entry.path),
        )


class CacheDocument(Value, kw_only=True):
    """``aotpack cache list|prune|verify --json``: what is there, or what was removed."""

    root: str
    #: Bytes that the whole cache holds, shared ones once, and may hold.
    size: int
    limit: int
    entries: tuple[CacheEntryDocument, ...]


class ExtractDocument(Value, kw_only=True):
    """``aotpack extract --json``."""

    package: str
    component: str
    variant: str
    folder: str
    files: tuple[str, ...]


class FleetCellDocument(Value, kw_only=True):
    """One variant on one machine."""

    variant: str
    accepted: bool
    verdict: str
    code: str
    reason: str


class FleetRowDocument(Value, kw_only=True):
    """One machine."""

    machine: str
    #: The id of the variant that it gets; None if it gets nothing, or nobody can say.
    chosen: str | None
    #: What it gets is the portable variant.
    portable: bool
    #: In the order of the selection.
    cells: tuple[FleetCellDocument, ...]


class FleetHelpDocument(Value, kw_only=True):
    """A target that is not in the package, and the machines that would get it if it were added."""

    target: str
    title: str
    machines: tuple[str, ...]


class CheckedOnDocument(Value, kw_only=True):
    """A machine on which a variant was checked (`aotpack merge --records`)."""

    variant: str
    machine: str
    device: str | None
    driver: str | None
    #: It runs there, and nothing of its numbers is off.
    good: bool
    error: float | None
    run_seconds: float | None

    @classmethod
    def of(cls, component: Component) -> tuple[CheckedOnDocument, ...]:
        """All records of a component."""
        return tuple(
            cls(
                variant=variant.id,
                machine=record.machine,
                device=record.device,
                driver=record.driver,
                good=record.failure is None,
                error=record.numerics.error if record.numerics else None,
                run_seconds=record.run_seconds,
            )
            for variant in component.variants
            for record in variant.records
        )


class ComponentCoverageDocument(Value, kw_only=True):
    """A component on the machines of a fleet."""

    component: str
    variants: tuple[str, ...]
    machines: tuple[FleetRowDocument, ...]
    #: Variants that no machine gets.
    unused: tuple[str, ...]
    #: Machines that fall back to the portable variant.
    portable_only: tuple[str, ...]
    #: Machines that get nothing.
    without: tuple[str, ...]
    #: Machines of which nobody can say whether anything fits them.
    unsure: tuple[str, ...]
    #: The one that would give most machines something better, then the one that would do so with it added.
    helpful: tuple[FleetHelpDocument, ...]
    #: Toolchains that are not installed, so that their targets could not be looked at.
    not_considered: tuple[str, ...]
    #: Where variants were checked.
    checked: tuple[CheckedOnDocument, ...] = ()


class CoverageDocument(ComponentCoverageDocument, kw_only=True):
    """``aotpack coverage --json``: the first component, or the one that was asked for, and the others."""

    package: str
    #: The other components of the package, in its order; none where one was asked for.
    others: tuple[ComponentCoverageDocument, ...] = ()

    @classmethod
    def of(cls, coverage: Coverage, *, package: str, others: Sequence[Coverage] = ()) -> CoverageDocument:
        """The document for a coverage, and for those of the package's other components."""
        return cls(
            package=package,
            others=tuple(ComponentCoverageDocument(**_covered(other)) for other in others),
            **_covered(coverage),
        )


def _covered(coverage: Coverage) -> dict[str, Any]:
    return {
        "component": coverage.component.name,
        "variants": tuple(variant.id for variant in coverage.component.variants),
        "machines": tuple(_fleet_row(name, coverage) for name in coverage.selections),
        "unused": coverage.unused,
        "portable_only": coverage.portable_only,
        "without": coverage.without,
        "unsure": coverage.unsure,
        "helpful": tuple(
            FleetHelpDocument(target=item.target.name, title=item.target.title, machines=item.machines)
            for item in coverage.helpful
        ),
        "not_considered": coverage.not_considered,
        "checked": CheckedOnDocument.of(coverage.component),
    }


def _fleet_row(machine: str, coverage: Coverage) -> FleetRowDocument:
    selection, chosen = coverage.selections[machine], coverage.gets(machine)
    return FleetRowDocument(
        machine=machine,
        chosen=chosen.id if chosen else None,
        portable=chosen is not None and chosen.portable,
        cells=tuple(
            FleetCellDocument(
                variant=candidate.id,
                accepted=candidate.accepted,
                verdict=candidate.verdict.grade.value,
                code=candidate.verdict.code.value,
                reason=candidate.verdict.reason,
            )
            for candidate in selection.candidates
        ),
    )
