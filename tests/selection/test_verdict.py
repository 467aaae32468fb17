"""One variant, one machine: who has the last word, and what a toolchain that misbehaves is worth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from aotpack.machine.profile import Ep, Machine, Npu, find_machine, known
from aotpack.manifest.values import Compatibility, Component, Requirements, SessionSettings, Source, Variant
from aotpack.selection.policy import Policy
from aotpack.selection.select import Selection, select
from aotpack.selection.verdict import Code, Grade, Verdict, judge, version_fits
from aotpack.targets.catalogue import Target, catalogue
from aotpack.toolchains import toolchains
from aotpack.toolchains.openvino.string import ISA_CLASSES
from aotpack.toolchains.openvino.string import string_for as openvino_string
from aotpack.toolchains.qnn.string import EP as QNN
from aotpack.toolchains.qnn.string import string_for
from aotpack.toolchains.tensorrt_rtx.string import string_for as rtx_string

EP = "SomeExecutionProvider"
MACHINE = Machine(eps={EP: Ep(version="1.0")})
FITS = Verdict(Grade.OPTIMAL, Code.FITS, "As it was told.")


@dataclass
class Rules:
    """Rules and an EP that say what they are told to say."""

    own: Verdict | Exception = FITS
    said: Grade | Exception | None = None
    ep: str = EP
    asked: list[str] = field(default_factory=list)

    def pip_command(self) -> str:
        return "pip install some"

    def looks_at(self, variant: Variant) -> str | None:
        return variant.compatibility.ep_string

    def judge(self, variant: Variant, machine: Machine, *, emulate: bool) -> Verdict:
        if isinstance(self.own, Exception):
            raise self.own
        return self.own

    def ask(self, ep_string: str, device: str) -> Grade | None:
        self.asked.append(ep_string)
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


def variant(text: str | None = "string", **given: object) -> Variant:
    values: dict[str, object] = {
        "id": "some",
        "target": "some",
        "toolchain": "some",
        "ep": EP,
        "device": "cpu",
    }
    return Variant.from_builtins(values | {"compatibility": Compatibility(ep_string=text)} | given)


@pytest.mark.parametrize("own", [Grade.OPTIMAL, Grade.PREFER_RECOMPILATION, Grade.UNKNOWN, Grade.UNSUPPORTED])
@pytest.mark.parametrize("said", list(Grade))
def test_the_ep_has_the_last_word_where_it_is_asked(own: Grade, said: Grade) -> None:
    rules = Rules(Verdict(own, Code.FITS, "As it was told."), said)
    here = judge(variant(), MACHINE, rules, here=True)
    assert (here.grade, here.by) == (said, "ep")
    elsewhere = judge(variant(), MACHINE, rules, here=False)
    assert (elsewhere.grade, elsewhere.by) == (own, "rules")
    assert rules.asked == ["string"]


def test_an_ep_that_gives_no_answer_leaves_the_rules_alone_and_that_is_shown() -> None:
    verdict = judge(variant(), MACHINE, Rules(), here=True)
    assert (verdict.grade, verdict.by) == (Grade.OPTIMAL, "rules")
    assert [(item.what, item.found, item.fits) for item in verdict.compared][-1] == (
        "the EP's own check",
        None,
        None,
    )
    assert not judge(variant(None), MACHINE, Rules(), here=True).compared, "there is nothing to ask about"


@pytest.mark.parametrize("rules", [Rules(own=RuntimeError("upset")), Rules(said=RuntimeError("upset"))])
def test_rules_that_raise_say_nothing_of_a_variant_and_do_not_stop_the_others(rules: Rules) -> None:
    verdict = judge(variant(), MACHINE, rules, here=True)
    assert (verdict.grade, verdict.code) == (Grade.UNKNOWN, Code.TOOLCHAIN_FAILED)
    assert "upset" in verdict.reason


@pytest.mark.parametrize(
    "code", [Code.PORTABLE, Code.NO_DEVICE, Code.EMULATED, Code.EMULATION_NOT_ASKED], ids=str
)
def test_an_ep_is_not_asked_where_it_has_nothing_to_add(code: Code) -> None:
    rules = Rules(Verdict(Grade.UNSUPPORTED, code, "As it was told."), Grade.OPTIMAL)
    assert judge(variant(), MACHINE, rules, here=True).grade is Grade.UNSUPPORTED
    assert rules.asked == []


def test_an_ep_that_is_missing_is_told_with_the_way_to_get_it() -> None:
    verdict = judge(variant(), Machine(eps={}), Rules(), here=True)
    assert (verdict.code, verdict.reason) == (Code.EP_MISSING, f"{EP} is not installed (pip install some).")


@pytest.mark.parametrize("code", [Code.NO_DEVICE, Code.OTHER_DEVICE], ids=str)
def test_an_ep_for_a_device_that_is_not_there_is_not_to_be_installed(code: Code) -> None:
    rules = Rules(Verdict(Grade.UNSUPPORTED, code, "It needs another device."))
    verdict = judge(variant(), Machine(eps={}), rules, here=True)
    assert (verdict.code, verdict.reason) == (code, "It needs another device.")
    assert [(item.what, item.found) for item in verdict.compared] == [(EP, "not installed")]


def test_rules_that_raise_leave_a_missing_ep_as_the_reason() -> None:
    verdict = judge(variant(), Machine(eps={}), Rules(own=RuntimeError("upset")), here=True)
    assert (verdict.grade, verdict.code) == (Grade.UNSUPPORTED, Code.EP_MISSING)


def choose(*variants: Variant, machine: Machine, emulate: bool = False) -> Selection:
    source = Source(sha256="a" * 64, size=1, opsets={"": 17})
    component = Component(name="main", source=source, inputs=(), outputs=(), variants=variants)
    return select(component, machine, toolchains(), here=False, policy=Policy(emulate=emulate))


def test_variants_of_equal_strings_are_told_apart_by_what_else_the_rules_look_at() -> None:
    """A blob that models share has the string of one that they do not, and the emulator cannot load it."""
    text = string_for(73, 60, 8, "5.51.0")
    alone = variant(text, id="alone", toolchain="qnn", ep=QNN, device="npu")
    sharing = alone.replace(id="sharing", session=alone.session.replace(config={"ep.share_ep_contexts": "1"}))
    machine = Machine(arch="x86_64", npus=(), eps={QNN: Ep(version="2.7.0")})
    for order in ((alone, sharing), (sharing, alone)):
        selection = choose(*order, machine=machine, emulate=True)
        assert [each.id for each in selection.accepted] == ["alone"]
        assert [each.verdict.code for each in selection.rejected] == [Code.NO_DEVICE]
    # An NPU of another maker does not help, and what is known of the runtime is said before it.
    intel = machine.replace(npus=(Npu(vendor="intel", architecture="4000"),))
    assert [each.id for each in choose(sharing, machine=intel, emulate=True).accepted] == []
    older = machine.replace(eps={QNN: Ep(version="2.6.0")})
    (rejected,) = choose(sharing, machine=older, emulate=True).rejected
    assert rejected.verdict.code is Code.RUNTIME_VERSION


STRINGS = (
    None,
    "",
    "junk",
    string_for(73, 60, 8, "5.51.0"),
    string_for(79, 69, 8, "5.51.0"),
    *(openvino_string(release, isa) for release in ("2026.4.1", "2026.3.0") for isa in ISA_CLASSES[:6]),
    rtx_string("1.7.1.116", ["8.9"]),
    rtx_string("1.6.0.1", ["8.6"]),
)


def of_target(target: Target, text: str | None) -> Variant:
    return variant(
        text,
        id=target.name,
        target=target.name,
        toolchain=target.toolchain,
        ep=target.ep,
        device=target.device,
        session=SessionSettings(
            provider_options=target.provider_options,
            config={"ep.share_ep_contexts": "1"} if target.shares_weights else {},
        ),
    )


@pytest.mark.parametrize("name", known())
def test_what_rules_look_at_is_all_that_their_verdicts_depend_on(name: str) -> None:
    """Every target of the catalogue with every string: equal ones must be judged alike."""
    machine = find_machine(name)
    judged: dict[Any, Any] = {}
    every = [
        item for target in catalogue().values() for item in (target, target.replace(shares_weights=True))
    ]
    for target in every:
        rules = toolchains()[target.toolchain]
        for text in STRINGS:
            each = of_target(target, text)
            verdict = rules.judge(each, machine, emulate=True)
            key = (target.toolchain, each.device, rules.looks_at(each))
            assert judged.setdefault(key, verdict) == verdict, (target.name, text)
    assert len(judged) > len(STRINGS)


@pytest.mark.parametrize(
    "specifier",
    [
        ">=" + "9" * 5000,
        ">=" + "9" * 65000,
        "9" * 250 + "!1",
        ">=" + "1." * 30000,
        ">=1" + "-1" * 100,
        "==1.*.*",
        "~=1",
        "\ud7ff",
        ">= \x00",
        "===" + "x" * 65000,
        ",".join([">=1"] * 15000),
    ],
    ids=lambda text: f"{text[:8]!r}{len(text)}",
)
def test_a_specifier_that_cannot_be_read_is_unknown_for_its_variant_alone(specifier: str) -> None:
    """A package is chosen from though one of its variants asks for a version that nobody can compare."""
    machine = MACHINE.replace(onnxruntime="1.32.0")
    requires = Requirements(onnxruntime=specifier)
    bad = variant().replace(id="bad", compatibility=Compatibility(requires=requires))
    good = variant()
    component = Component(
        name="main",
        source=Source(sha256="0" * 64, size=1, opsets={}),
        inputs=(),
        outputs=(),
        variants=(bad, good),
    )
    chosen = select(component, machine, {"some": Rules()}, here=False)
    assert chosen.chosen is not None and chosen.chosen.id == "some"
    (other,) = chosen.rejected
    assert (other.verdict.grade, other.verdict.code) == (Grade.UNKNOWN, Code.NOT_IN_PROFILE)
    assert len(other.verdict.reason) < 1000


def test_a_version_of_the_machine_that_cannot_be_read_is_unknown() -> None:
    for found in ("9" * 5000, "1.x", "", "1." * 500):
        assert version_fits(found, ">=1") is None
    assert version_fits("9" * 100, ">=1") is True
