"""Properties of every selection, whatever the policy and the machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aotpack.errors import UnknownName, UsageError
from aotpack.machine.profile import Machine, find_machine, known
from aotpack.manifest.values import Component
from aotpack.runtime.package import open_package
from aotpack.selection.policy import Policy
from aotpack.selection.select import Selection, select
from aotpack.selection.verdict import Grade
from aotpack.targets.catalogue import PORTABLE
from aotpack.toolchains import toolchains
from tests.conftest import BuiltPackage

MACHINES = {name: find_machine(name) for name in known()}


@pytest.fixture(scope="module")
def component(vad: BuiltPackage) -> Component:
    with open_package(vad.path) as opened:
        return opened.component(None)


def choose(component: Component, machine: Machine, policy: Policy | None = None) -> Selection:
    return select(component, machine, toolchains(), here=False, policy=policy)


policies = st.builds(
    Policy,
    devices=st.none() | st.lists(st.sampled_from(["npu", "gpu", "cpu"]), unique=True),
    prefer=st.sampled_from(["efficiency", "latency"]),
    eps=st.none()
    | st.frozensets(
        st.sampled_from(["CPUExecutionProvider", "OpenVINOExecutionProvider", "QNNExecutionProvider"])
    ),
    memory_limit=st.none() | st.integers(0, 10**7),
    emulate=st.booleans(),
    allow_unknown=st.booleans(),
    measured=st.booleans(),
)


@given(policy=policies, name=st.sampled_from(sorted(MACHINES)), data=st.data())
def test_no_policy_makes_a_variant_fit_and_the_order_is_the_documented_one(
    component: Component, policy: Policy, name: str, data: st.DataObject
) -> None:
    variants = data.draw(st.permutations(component.variants))
    shuffled = component.replace(variants=tuple(variants))
    unsupported = {
        item.id
        for item in choose(shuffled, MACHINES[name], Policy(emulate=policy.emulate)).candidates
        if item.verdict.grade is Grade.UNSUPPORTED
    }
    selection = choose(shuffled, MACHINES[name], policy)
    assert sorted(item.id for item in selection.candidates) == sorted(item.id for item in variants)
    assert not unsupported & {item.id for item in selection.accepted}
    devices = list(policy.device_order)
    keys = [
        (
            item.variant.target == PORTABLE,
            item.verdict.grade is Grade.UNKNOWN,
            devices.index(item.variant.device),
            list(Grade).index(item.verdict.grade),
            -item.variant.specificity,
            variants.index(item.variant),
        )
        for item in selection.accepted
    ]
    assert keys == sorted(keys)


@given(
    name=st.sampled_from(sorted(MACHINES)),
    forgotten=st.sets(st.sampled_from(["os", "arch", "cpu", "gpus", "npus", "onnxruntime", "eps"])),
)
def test_forgetting_a_field_of_a_profile_never_makes_a_variant_fit(
    component: Component, name: str, forgotten: set[str]
) -> None:
    whole = MACHINES[name]
    blank = Machine()
    part = whole.replace(**{field: getattr(blank, field) for field in forgotten})
    fits = (Grade.OPTIMAL, Grade.PREFER_RECOMPILATION)
    before = {item.id for item in choose(component, whole).candidates if item.verdict.grade in fits}
    after = {item.id for item in choose(component, part).candidates if item.verdict.grade in fits}
    assert after <= before


def test_nothing_is_known_to_fit_an_empty_profile(component: Component) -> None:
    compiled = [item for item in choose(component, Machine()).candidates if not item.portable]
    assert compiled
    assert not [item.id for item in compiled if item.verdict.grade is Grade.OPTIMAL]


def test_a_policy_asks_for_a_variant_by_its_id(component: Component, monkeypatch: pytest.MonkeyPatch) -> None:
    portable = next(item.id for item in component.variants if item.target == PORTABLE)
    monkeypatch.setenv("AOTPACK_VARIANT", portable)
    machine = MACHINES["snapdragon-x-elite"]
    assert [item.id for item in choose(component, machine, Policy().with_environment()).accepted] == [
        portable
    ]
    with pytest.raises(UnknownName):
        choose(component, machine, Policy(variant="none"))


@pytest.mark.parametrize("wrong", [{"devices": ["tpu"]}, {"prefer": "speed"}, {"memory_limit": -1}])
def test_a_policy_that_means_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Policy(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {"devices": {"npu", "cpu"}},
        {"devices": 1},
        {"eps": 5},
        {"variant": ["ort-cpu"]},
        {"variant": Path("ort-cpu")},
        {"memory_limit": "5G"},
        {"memory_limit": 1.5},
        {"memory_limit": True},
        {"min_compiled": "0.5"},
        {"min_compiled": None},
        {"min_compiled": True},
    ],
)
def test_a_policy_of_other_types_is_told_where_it_is_made(wrong: dict[str, object]) -> None:
    (name,) = wrong
    with pytest.raises(UsageError, match=f"^{name}: has the wrong type; found .*; expected"):
        Policy(**wrong)  # type: ignore[arg-type]


def test_numbers_may_come_from_numpy() -> None:
    policy = Policy(memory_limit=np.int64(5), min_compiled=np.float32(0.5))  # type: ignore[arg-type]
    assert policy.min_compiled == 0.5


@dataclass(frozen=True)
class Ran:
    failure: str | None = None
    run_seconds: float | None = None
    peak_memory: int | None = None


def test_measured_latency_comes_first_and_a_crash_leaves_a_variant_out(component: Component) -> None:
    machine = MACHINES["snapdragon-x-elite"]
    first, second, *_ = choose(component, machine).accepted
    policy = Policy(measured=True)
    slow = {first.id: Ran(run_seconds=2.0), second.id: Ran(run_seconds=1.0)}
    taken = select(component, machine, toolchains(), here=False, policy=policy, measured=slow)
    assert [item.id for item in taken.accepted[:2]] == [second.id, first.id]
    crashed = {first.id: Ran(failure="killed by signal 11")}
    left = select(component, machine, toolchains(), here=False, policy=policy, measured=crashed)
    reasons = {item.id: item.verdict.reason for item in left.rejected}
    assert "killed by signal 11" in reasons[first.id]
    assert "`aotpack tune`" in reasons[first.id]


def test_a_notebook_shows_what_a_package_says_as_text(component: Component) -> None:
    forged = component.variants[0].replace(id="<script>", toolchain="<i>")
    drawn = choose(component.replace(variants=(forged,)), Machine())._repr_html_()
    assert "&lt;script&gt;" in drawn and "&lt;i&gt;" in drawn
    assert "<script>" not in drawn and "<i>" not in drawn
