"""Ranking: properties that hold for every set of verdicts and every policy."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from aotpack.machine.profile import Ep, Machine
from aotpack.manifest.values import Compatibility, Component, Source, Variant
from aotpack.selection.policy import Policy
from aotpack.selection.select import Selection, select
from aotpack.selection.verdict import Code, Grade, Verdict
from aotpack.targets.catalogue import PORTABLE

DEVICES = ("npu", "gpu", "cpu")
EP = "SomeExecutionProvider"


@dataclass(frozen=True)
class Told:
    """Rules that say of each variant what its string says: the ranking is what is looked at here."""

    ep: str = EP

    def pip_command(self) -> str:
        return "pip install some"

    def judge(self, variant: Variant, machine: Machine, *, emulate: bool) -> Verdict:
        grade = Grade(variant.compatibility.ep_string or "")
        return Verdict(grade, Code.FITS if grade is Grade.OPTIMAL else Code.ISA, "As it was told.")

    def looks_at(self, variant: Variant) -> str | None:
        return variant.compatibility.ep_string

    def ask(self, ep_string: str, device: str) -> Grade | None:
        return None


variants = st.lists(
    st.builds(
        lambda number, target, device, specificity, grade: Variant(
            id=f"{target}-{number}",
            target=target,
            toolchain="some",
            ep=EP,
            device=device,
            specificity=specificity,
            compatibility=Compatibility(ep_string=grade.value),
        ),
        st.integers(0, 10**9),
        st.sampled_from([PORTABLE, "one", "two"]),
        st.sampled_from(DEVICES),
        st.integers(0, 3),
        st.sampled_from(Grade),
    ),
    max_size=12,
    unique_by=lambda variant: variant.id,
)

policies = st.builds(
    lambda devices, unknown: Policy(devices=devices, allow_unknown=unknown),
    st.none() | st.permutations(DEVICES).map(lambda order: tuple(order[:2])),
    st.booleans(),
)


def ranked(given_variants: list[Variant], policy: Policy) -> Selection:
    component = Component(
        name="main",
        source=Source(sha256="0" * 64, size=1, opsets={"": 20}),
        inputs=(),
        outputs=(),
        variants=tuple(given_variants),
    )
    machine = Machine(eps={EP: Ep(version="1.0")})
    return select(component, machine, {"some": Told()}, here=False, policy=policy)


@given(variants, policies)
def test_nothing_is_lost_and_unsupported_is_never_accepted(items: list[Variant], policy: Policy) -> None:
    selection = ranked(items, policy)
    assert sorted(each.id for each in selection.candidates) == sorted(item.id for item in items)
    for candidate in selection.accepted:
        assert candidate.variant.compatibility.ep_string != Grade.UNSUPPORTED
        assert candidate.verdict.grade is not Grade.UNSUPPORTED


@given(variants, policies)
def test_unknown_is_taken_when_asked_for_or_as_a_last_resort(items: list[Variant], policy: Policy) -> None:
    selection = ranked(items, policy)
    grades = {candidate.verdict.grade for candidate in selection.accepted}
    if Grade.UNKNOWN in grades and not policy.allow_unknown:
        assert selection.last_resort
        assert grades == {Grade.UNKNOWN}


@given(variants, policies)
def test_the_order_is_device_verdict_specificity_and_the_packages_own(
    items: list[Variant], policy: Policy
) -> None:
    devices = policy.devices or DEVICES
    position = {item.id: index for index, item in enumerate(items)}
    keys = [
        (
            each.variant.target == PORTABLE,
            each.verdict.grade is Grade.UNKNOWN,
            devices.index(each.variant.device),
            each.verdict.grade.rank,
            -each.variant.specificity,
            position[each.id],
        )
        for each in ranked(items, policy).accepted
    ]
    assert keys == sorted(keys)


@given(variants)
def test_a_policy_for_one_variant_takes_that_one_or_none(items: list[Variant]) -> None:
    for item in items:
        selection = ranked(items, Policy(variant=item.id, allow_unknown=True))
        assert {each.id for each in selection.accepted} <= {item.id}
