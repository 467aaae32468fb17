"""Our rules for the OpenVINO EP's string against the EP's own check: no string may find them apart."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aotpack.machine.profile import Machine
from aotpack.runtime.probing import probe
from aotpack.selection.verdict import Code, Grade
from aotpack.targets.catalogue import find
from aotpack.toolchains.openvino.string import (
    CAP,
    EP,
    FORMER_CAP,
    ISA_CLASSES,
    OpenVinoString,
    isa_class,
    judge,
    string_for,
)
from aotpack.toolchains.openvino.toolchain import OpenVinoToolchain
from tests.conftest import BuiltPackage
from tests.e2e.test_main_job import manifest_of
from tests.hardware import EMULATOR, INTEL, needs
from tests.toolchains.ep_answers import Asking

TOOLCHAIN = OpenVinoToolchain()

pytestmark = pytest.mark.skipif(TOOLCHAIN.version() is None, reason="the OpenVINO EP is not installed")

RELEASE = TOOLCHAIN.runtime_details().get("openvino", "")
OWN = isa_class(INTEL.cpu.features or ())
ABSENT = object()

#: The EP answers only where it has a device.
asks_the_ep = needs("openvino-cpu-sse41")
asks_an_ep = pytest.mark.skipif(EMULATOR is None, reason="the EP takes Intel CPUs only, and no QEMU is here")

COMPAT = ("1.0", "1.1", "2.0", "0.9", "", "1", "1.0.0", " 1.0", 1.0, None, ABSENT)
BINARY = ("1.1", "1.0", "1.2", "2.0", "0.9", "", "1", "+1", " 1.1", "01.1", "1x", "x", "-1.1", "11.1", ABSENT)
STRANGE_BINARY = (
    "1.x",
    "1\u0000",
    "99999999999999999999",
    "4294967297.0",
    "\u0661.1",
    1.1,
    None,
    "\t1",
    "0x1",
)
EP_VERSIONS = ("1.8.1+95d534b.ci.79", "", "x", None, 7, ABSENT)
RELEASES = (RELEASE, "2026.4.0", "2025.1.0", "", RELEASE + "-1", "9999.9.9")
CLASSES = tuple(known.described for known in ISA_CLASSES)


def inner(meta: str, release: str, isa: str) -> str:
    return f"meta={meta};ov={release};isa={isa}"


def text(compat: object, binary: object, version: object, inside: object) -> str:
    keys = {
        "ovep_compat_ver": compat,
        "ovep_ver": version,
        "ovep_bin_ver": binary,
        "ov_compat_string": inside,
    }
    # As the EP writes it; other strategies put spaces in.
    written = {key: value for key, value in keys.items() if value is not ABSENT}
    return json.dumps(written, separators=(",", ":"), ensure_ascii=False)


FITTING = text("1.0", "1.1", "1.8.1", inner("1.0", RELEASE, OWN.described if OWN else ""))

insides = st.one_of(
    st.builds(
        inner, st.sampled_from(["1.0", "1.1", "2.0", ""]), st.sampled_from(RELEASES), st.sampled_from(CLASSES)
    ),
    st.sampled_from(["", None, 1, ABSENT, f"ov={RELEASE}", "meta=1.0"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
)
strings = st.one_of(
    st.builds(
        text,
        st.sampled_from(COMPAT),
        st.sampled_from(BINARY + STRANGE_BINARY),
        st.sampled_from(EP_VERSIONS),
        insides,
    ),
    # Mostly right, so that each field is the only one that decides.
    st.builds(text, st.just("1.0"), st.just("1.1"), st.just("1.8.1"), insides),
    # The right one with a cut, a doubling or a character more.
    st.builds(lambda at: FITTING[:at], st.integers(0, len(FITTING))),
    st.builds(
        lambda at, put: FITTING[:at] + put + FITTING[at:],
        st.integers(0, len(FITTING)),
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=3),
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
        lambda inside: (
            st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=5), inside, max_size=3)
        ),
        max_leaves=5,
    ).map(json.dumps),
)


def our(string: str, machine: Machine) -> Grade:
    return judge(string, machine).grade


def theirs(said: str | None) -> Grade:
    # Where the check raises, nothing loads either.
    return Grade.UNSUPPORTED if said is None else Grade(said)


@pytest.fixture(scope="module")
def ep() -> Iterator[Asking]:
    """The EP's check, on this machine if its CPU is Intel's."""
    with Asking(TOOLCHAIN.name, {}, EMULATOR or ()) as asking:
        yield asking


@asks_an_ep
@given(string=strings)
@example(string=FITTING)
@example(string="\ufeff" + FITTING)
@example(string=FITTING + "\0junk")
@example(string=FITTING[:-1] + ', "x": NaN}')
@example(string=FITTING[:-1] + ', "x": 1e999}')
@example(string=FITTING[:-1] + ', "x": "\\ud800"}')
@example(string=FITTING[:-1] + ', "ovep_bin_ver": "9.9"}')
@example(string=FITTING[:-1] + ', "x": -0, "y": 123456789012345678901234567890}')
@settings(max_examples=3000)
def test_no_string_finds_our_rules_and_the_eps_check_apart(ep: Asking, string: str) -> None:
    (said,) = ep(string)
    assert our(string, INTEL) is theirs(said)


def test_the_fitting_string_fits() -> None:
    assert OWN is not None
    assert our(FITTING, INTEL) is Grade.OPTIMAL
    assert our(string_for(RELEASE, OWN), INTEL) is Grade.OPTIMAL


@asks_an_ep
def test_the_fitting_string_fits_by_the_eps_check_too(ep: Asking) -> None:
    assert OWN is not None
    assert ep(string_for(RELEASE, OWN), FITTING) == [Grade.OPTIMAL, Grade.OPTIMAL]


def test_no_string_fits_a_cpu_that_the_ep_does_not_list() -> None:
    """Seen on an AMD EPYC with AVX-512: the EP's library registers there and lists no device."""
    amd = INTEL.replace(cpu=INTEL.cpu.replace(vendor="AuthenticAMD"))
    verdict = judge(FITTING, amd)
    assert (verdict.grade, verdict.code) == (Grade.UNSUPPORTED, Code.NO_DEVICE)
    assert verdict.reason.endswith("the vendor of this one is AuthenticAMD.")
    why = TOOLCHAIN.why_not_compile(find("openvino-cpu-sse41"), amd)
    assert why == "the OpenVINO EP takes Intel CPUs only; the vendor of this one is AuthenticAMD"
    if probe().cpu.vendor == "AuthenticAMD":
        assert TOOLCHAIN.devices() == TOOLCHAIN.devices() == []


def some_strings(seed: int, count: int) -> Iterator[str]:
    """Every class with every release, and random ones."""
    for release, isa in itertools.product(RELEASES, CLASSES):
        yield text("1.0", "1.1", "1.8.1", inner("1.0", release, isa))
    draw = random.Random(seed)
    for _ in range(count):
        inside = inner(draw.choice(["1.0", "1.0", "1.1"]), draw.choice(RELEASES), draw.choice(CLASSES))
        yield text(draw.choice(COMPAT[:3]), draw.choice(BINARY), draw.choice(EP_VERSIONS), inside)


@asks_an_ep
@pytest.mark.parametrize(
    ("variable", "cap"),
    [
        (CAP, "SSE41"),
        (CAP, "AVX"),
        (CAP, "AVX2"),
        (CAP, "avx2_vnni"),
        (CAP, "AVX2_VNNI_2"),
        (CAP, "AVX512_CORE"),
        (CAP, "AVX512_CORE_VNNI"),
        (CAP, "AVX512_CORE_BF16"),
        (CAP, "AVX512_CORE_FP16"),
        (CAP, "AVX10_1_512"),
        (CAP, "AVX10_2_512"),
        (CAP, "AVX512_CORE_AMX"),
        (CAP, "no such class"),
        (CAP, ""),
        (FORMER_CAP, "AVX2"),
    ],
)
def test_a_capped_machine_is_judged_as_the_ep_judges_it(variable: str, cap: str) -> None:
    asked = list(some_strings(seed=len(cap), count=500))
    machine = INTEL.replace(environment={variable: cap})
    with Asking(TOOLCHAIN.name, {variable: cap}, EMULATOR or ()) as asking:
        said = asking(*asked)
    wrong = [
        (string, grade)
        for string, grade in zip(asked, said, strict=True)
        if our(string, machine) is not theirs(grade)
    ]
    assert not wrong
    assert Grade.OPTIMAL in said


@asks_the_ep
def test_real_blobs_of_every_class_that_was_compiled(vad: BuiltPackage) -> None:
    blobs = [variant for variant in manifest_of(vad.path).variants() if variant.ep == EP]
    assert blobs
    written = [variant.compatibility.ep_string or "" for variant in blobs]
    for cap in ("AVX2", "AVX512_CORE", "AVX512_CORE_AMX"):
        machine = probe().replace(environment={CAP: cap})
        with Asking(TOOLCHAIN.name, {CAP: cap}) as asking:
            said = asking(*written)
        assert [our(string, machine) for string in written] == [theirs(grade) for grade in said]
    for variant, string in zip(blobs, written, strict=True):
        parsed, foreseen = OpenVinoString.parse(string), TOOLCHAIN.foreseen(find(variant.target))
        assert parsed is not None
        assert foreseen is not None
        assert parsed == OpenVinoString.parse(foreseen)


@pytest.mark.parametrize(
    ("update", "code"),
    [
        ({"eps": {}}, Code.NOT_IN_PROFILE),
        ({"eps": None}, Code.NOT_IN_PROFILE),
        ({"cpu": {}}, Code.NOT_IN_PROFILE),
        ({"cpu": {"vendor": "GenuineIntel"}}, Code.NOT_IN_PROFILE),
        ({"cpu": {"features": INTEL.cpu.features}}, Code.NOT_IN_PROFILE),
    ],
)
def test_what_a_profile_leaves_out_is_unknown(update: dict[str, object], code: Code) -> None:
    profile = INTEL.to_builtins() | update
    verdict = judge(FITTING, Machine.from_builtins(profile))
    assert (verdict.grade, verdict.code) == (Grade.UNKNOWN, code)
