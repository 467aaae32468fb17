"""All variants of a component against one machine: a ranking with a reason for each.

Selection is five numbered steps on values. Asking the EP on this machine is the toolchains' affair.

1. Judge each variant (`aotpack.selection.verdict.judge`), equal ones once; where shapes are asked for, refuse
   those that were compiled for others.
2. Let the policy leave variants out. It narrows and reorders; it never turns UNSUPPORTED into anything else.
3. Split into accepted (OPTIMAL, PREFER_RECOMPILATION, and UNKNOWN where it is asked for) and rejected.
4. Rank the accepted (`aotpack.selection.policy.Policy`), and the rejected by verdict. Of equals those come
   first that were compiled for the shapes that are asked for, and else they stay in the package's order.
5. If nothing is accepted, UNKNOWN ones become the last resort, and the selection says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from aotpack.errors import ShapeError
from aotpack.machine.profile import Machine
from aotpack.manifest.values import Component, TensorInfo, Variant
from aotpack.selection.policy import Measured, Policy
from aotpack.selection.shapes import Bound, Wanted, bind, checked_shapes, fixed_axes, is_fixed, other_shapes
from aotpack.selection.variant_names import find_variant
from aotpack.selection.verdict import Code, Comparison, Grade, Rules, Verdict, judge
from aotpack.targets.catalogue import PORTABLE

__all__ = ["Candidate", "Policy", "Selection", "select"]


class Candidate(NamedTuple):
    """A variant with its verdict."""

    variant: Variant
    verdict: Verdict
    accepted: bool

    @property
    def id(self) -> str:
        """The variant's id."""
        return self.variant.id

    @property
    def portable(self) -> bool:
        """It is the untouched ONNX."""
        return self.variant.target == PORTABLE


@dataclass(frozen=True, slots=True)
class Selection:
    """The candidates, accepted ones first and in order, each with the reason."""

    component: str
    candidates: tuple[Candidate, ...]
    #: Nobody can say whether the accepted ones fit; nothing else was left.
    last_resort: bool = False
    #: What it was made by.
    policy: Policy = field(default_factory=Policy)
    #: Something was measured on the machine; `Policy.measured` has no say otherwise.
    measured: bool = False
    #: Those that were asked for, by the name of an input or of a symbolic dimension.
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

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
        """One line for each variant and one for each thing that was compared, for people."""
        from aotpack.selection.explain import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        from aotpack.selection.explain import as_html

        return as_html(self)


def select(
    component: Component,
    machine: Machine,
    toolchains: Mapping[str, Rules],
    *,
    here: bool,
    policy: Policy | None = None,
    measured: Mapping[str, Measured] | None = None,
    shapes: Wanted | None = None,
    custom_ops: bool = False,
) -> Selection:
    """Rank the variants of `component` for `machine`.

    Args:
        component: whose variants.
        machine: whom for.
        toolchains: the rules by the name that variants give.
        here: `machine` is this computer, so that its EPs are asked.
        policy: what the user wants.
        measured: by variant id, what `aotpack tune` found out on this machine.
        shapes: what the inputs will be like: input name to its shape, or symbolic dimension to its one size.
            Variants that were compiled for other shapes are refused.
        custom_ops: libraries of custom operators are given when it is loaded.

    Raises:
        UnknownName: the policy asks for a variant that the component does not have, or a shape names no
            input and no dimension of it.
        UsageError: the policy asks for a target that the component has several variants for.
        ShapeError: a size is 0 or less, an input has another rank, or two sizes contradict each other.
    """
    checked = checked_shapes(shapes or {})
    wanted = _Wanted(component, checked)
    policy, measured = policy or Policy(), measured or {}
    if policy.variant is not None:
        policy = replace(policy, variant=find_variant(wanted.component(), policy.variant).id)
    narrowed = [
        (
            variant,
            verdict
            if verdict.grade is Grade.UNSUPPORTED
            else policy.narrow(variant, wanted.narrow(variant, verdict), measured.get(variant.id)),
        )
        for variant, verdict in _judged(
            component, machine, toolchains, here=here, emulate=policy.emulate, custom_ops=custom_ops
        )
    ]
    # Ranks, as to compare grades themselves takes several times as long.
    ranked = [(variant, verdict, verdict.grade.rank) for variant, verdict in narrowed]
    best = min([rank for _, _, rank in ranked], default=Grade.UNSUPPORTED.rank)
    last_resort = best == Grade.UNKNOWN.rank and not policy.allow_unknown
    worst = (Grade.UNKNOWN if policy.allow_unknown or last_resort else Grade.PREFER_RECOMPILATION).rank
    accepted = [Candidate(variant, verdict, True) for variant, verdict, rank in ranked if rank <= worst]
    rejected = [Candidate(variant, verdict, False) for variant, verdict, rank in ranked if rank > worst]
    if checked:
        accepted.sort(key=lambda item: -fixed_axes(item.variant))
    # Sorting is stable: equals stay in the order that they are in.
    accepted.sort(key=lambda item: policy.order(item.variant, item.verdict, measured.get(item.id)))
    rejected.sort(key=lambda item: item.verdict.grade.rank)
    return Selection(component.name, (*accepted, *rejected), last_resort, policy, bool(measured), checked)


def _judged(
    component: Component,
    machine: Machine,
    toolchains: Mapping[str, Rules],
    *,
    here: bool,
    emulate: bool,
    custom_ops: bool,
) -> list[tuple[Variant, Verdict]]:
    """Each variant with its verdict, before anybody's wishes."""
    judged: list[tuple[Variant, Verdict]] = []
    verdicts: dict[tuple[object, ...], Verdict] = {}
    sets: dict[tuple[object, ...], int] = {}
    #: By target: what its last variant asked for, and its number in `sets`.
    known: dict[str, tuple[tuple[object, ...], int]] = {}
    last: tuple[tuple[object, ...], int] = ((), 0)
    for variant in component.variants:
        rules = toolchains.get(variant.toolchain)
        asked = _asked_for(variant)
        # To compare takes a fifth of the time of hashing, and neighbours mostly ask for the same.
        if asked != last[0]:
            last = known.get(variant.target, last)
            if asked != last[0]:
                last = asked, sets.setdefault(_hashable(asked), len(sets))
            known[variant.target] = last
        number = last[1]
        try:
            looked_at = None if rules is None else rules.looks_at(variant)
            key = (number, variant.toolchain, variant.ep, variant.device, looked_at)
            verdict = verdicts.get(key)
        except Exception:
            # Rules raise what they like, and so may the hash of what they give: none is taken for another.
            key = (number, variant.toolchain, variant.ep, variant.device, variant.id)
            verdict = None
        if verdict is None:
            verdict = judge(variant, machine, rules, here=here, emulate=emulate, custom_ops=custom_ops)
            verdicts[key] = verdict
        judged.append((variant, verdict))
    # A third party's toolchain that failed on one variant is believed in none, whatever the order.
    failed = {
        variant.toolchain: verdict._replace(compared=())
        for variant, verdict in judged
        if verdict.code is Code.TOOLCHAIN_FAILED
        and getattr(toolchains.get(variant.toolchain), "trouble", None) is not None
    } | {
        name: Verdict(Grade.UNKNOWN, Code.TOOLCHAIN_FAILED, failure)
        for name, rules in toolchains.items()
        if (failure := getattr(rules, "failure", None)) is not None
    }
    if failed:
        judged = [(variant, failed.get(variant.toolchain, verdict)) for variant, verdict in judged]
    return judged


class _Wanted:
    """Shapes that are asked for, held against what variants were compiled for."""

    def __init__(self, component: Component, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._component = component
        self._bound: Bound | None = None
        #: Why the model itself does not take them.
        self._never: str | None = None
        if shapes:
            # Sizes that contradict each other are a mistake of the call. Others than the model's own may be
            # those of another bucket.
            bind(map(_with_open_sizes, component.inputs), shapes)
            try:
                self._bound = bind(component.inputs, shapes)
            except ShapeError as error:
                self._never = f"The model does not take these shapes: {error}."

    def component(self) -> Component:
        """The component with those variants alone that take the shapes; with all if none does."""
        bound = self._bound
        if bound is None:
            return self._component
        taken = [
            each for each in self._component.variants if other_shapes(each, self._component, bound) is None
        ]
        return self._component.replace(variants=tuple(taken)) if taken else self._component

    def narrow(self, variant: Variant, verdict: Verdict) -> Verdict:
        """The verdict on a variant that is not UNSUPPORTED, or that if it takes other shapes."""
        if self._never is not None:
            return verdict._replace(grade=Grade.UNSUPPORTED, code=Code.OTHER_SHAPES, reason=self._never)
        if self._bound is None:
            return verdict
        if (other := other_shapes(variant, self._component, self._bound)) is not None:
            takes, asked = other
            return verdict._replace(
                grade=Grade.UNSUPPORTED,
                code=Code.OTHER_SHAPES,
                reason=f"It was compiled for {takes}; {asked} is asked for.",
                compared=(*verdict.compared, Comparison("shape", asked, takes, False)),
            )
        unrecorded = variant.shapes is None and variant.target != PORTABLE
        if unrecorded and any(not is_fixed(info.shape) for info in self._component.inputs):
            reason = "It does not say for which shapes it was compiled."
            return verdict._replace(grade=Grade.UNKNOWN, code=Code.SHAPES_NOT_RECORDED, reason=reason)
        return verdict


def _with_open_sizes(info: TensorInfo) -> TensorInfo:
    if info.shape is None:
        return info
    return info.replace(shape=tuple(size if isinstance(size, str) else None for size in info.shape))


def _asked_for(variant: Variant) -> tuple[object, ...]:
    """What a variant requires and sets of its session. The values themselves, as models compare slowly."""
    requires, session = variant.compatibility.requires, variant.session
    return (
        session.provider_options,
        session.config,
        requires.os,
        requires.arch,
        requires.isa,
        requires.onnxruntime,
        requires.ep,
        requires.custom_ops,
    )


def _hashable(asked: tuple[object, ...]) -> tuple[object, ...]:
    return tuple([tuple(item.items()) if isinstance(item, dict) else item for item in asked])
