"""Our rules for the OpenVINO EP's string by themselves: they need neither the EP nor its hardware.

tests/toolchains/test_openvino_rules.py holds them to what the EP says, where it can be asked.
"""

from __future__ import annotations

import pytest

from aotpack.machine.profile import Cpu, Ep, Machine, find_machine
from aotpack.selection.verdict import Code, Grade
from aotpack.toolchains.openvino.string import EP, ISA_CLASSES, judge, string_for

RELEASE = "2026.4.1"
BY_CAP = {known.cap: known for known in ISA_CLASSES}
AVX2 = string_for(RELEASE, BY_CAP["AVX2"])


def computer(vendor: str | None, *features: str, release: str | None = RELEASE) -> Machine:
    details = {"openvino": release} if release else {}
    return Machine(
        arch="x86_64",
        cpu=Cpu(vendor=vendor, features=features),
        eps={EP: Ep(version="1.8.1", details=details)},
    )


HASWELL = ("avx", "avx2", "sse4_1")


@pytest.mark.parametrize(
    ("machine", "grade", "code"),
    [
        (computer("GenuineIntel", *HASWELL), Grade.OPTIMAL, Code.FITS),
        # No device to the EP, whatever its instructions.
        (computer("AuthenticAMD", *HASWELL), Grade.UNSUPPORTED, Code.NO_DEVICE),
        (computer(None, *HASWELL), Grade.UNKNOWN, Code.NOT_IN_PROFILE),
        (computer("GenuineIntel", *HASWELL, release=None), Grade.UNKNOWN, Code.NOT_IN_PROFILE),
        (computer("GenuineIntel", *HASWELL, release="2026.3.0"), Grade.UNSUPPORTED, Code.RUNTIME_VERSION),
        (computer("GenuineIntel", "avx", "sse4_1"), Grade.UNSUPPORTED, Code.ISA),
        (computer("GenuineIntel", *HASWELL, "avx_vnni"), Grade.UNSUPPORTED, Code.ISA),
    ],
)
def test_the_release_the_maker_and_the_class_decide(machine: Machine, grade: Grade, code: Code) -> None:
    verdict = judge(AVX2, machine)
    assert (verdict.grade, verdict.code) == (grade, code), verdict


@pytest.mark.parametrize(
    ("name", "cap"),
    [
        ("avx2-desktop", "AVX2"),
        ("core-ultra-1", "AVX2_VNNI"),
        ("core-ultra-2", "AVX2_VNNI_2"),
        ("core-ultra-3", "AVX2_VNNI_2"),
        ("avx512-server", "AVX512_CORE_VNNI"),
        ("amx-server", "AVX512_CORE_AMX"),
        ("rtx-30", None),
        ("rtx-50", None),
        ("ryzen-ai-300", None),
    ],
)
def test_a_known_machine_takes_blobs_of_its_own_class_and_no_others(name: str, cap: str | None) -> None:
    machine = find_machine(name)
    fitting = [
        each
        for each, known in BY_CAP.items()
        if judge(string_for(RELEASE, known), machine).grade is Grade.OPTIMAL
    ]
    assert fitting == ([cap] if cap else [])
