"""The front of an engine, taken apart and judged; no GPU has confirmed any of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aotpack.machine.profile import Ep, Gpu, Machine, find_machine
from aotpack.selection.verdict import Code, Grade
from aotpack.toolchains.tensorrt_rtx.string import EP, EngineHeader, judge, string_for
from samples.made_models import cnn
from tests.hardware import needs

RELEASE = "1.7.1.116"

#: Of an engine that release built for compute capability 8.9.
REAL = (
    "7674727400000000" + "0200000000000000" + "d411040000000000" + "0107017476747274"
    "0800000000000000" + "0000000000000000" + "0000000000000000" + "6004000000000000"
)


def machine(
    capability: str | None, *, driver: str | None = "581.15", release: str | None = "1.7.1"
) -> Machine:
    details = {"tensorrt-rtx": release} if release else {}
    return Machine(
        arch="x86_64",
        gpus=(Gpu(vendor="nvidia", compute_capability=capability, driver=driver),),
        eps={EP: Ep(version="0.5.0", details=details)},
    )


def test_a_real_header() -> None:
    assert EngineHeader.parse(REAL) == EngineHeader(2, 266708, RELEASE, ("8.9",))


@given(st.sets(st.sampled_from(["7.5", "8.0", "8.6", "8.9", "12.0", "12.1"])))
def test_a_header_says_what_it_was_made_of(capabilities: set[str]) -> None:
    header = EngineHeader.parse(string_for(RELEASE, capabilities))
    assert header is not None
    assert header.release == RELEASE
    assert set(header.capabilities) == capabilities
    assert not header.unknown_capabilities


def changed(byte: int, value: int) -> str:
    raw = bytearray.fromhex(REAL)
    raw[byte] = value
    return raw.hex()


@pytest.mark.parametrize(
    ("text", "on", "grade", "code"),
    [
        (REAL, machine("8.9"), Grade.OPTIMAL, Code.FITS),
        (REAL.upper(), machine("8.9", release="1.7.1.116"), Grade.OPTIMAL, Code.FITS),
        (string_for(RELEASE, ["8.6", "8.9", "12.0"]), machine("12.0"), Grade.OPTIMAL, Code.FITS),
        (REAL, machine("8.6"), Grade.UNSUPPORTED, Code.OTHER_DEVICE),
        (REAL, machine("9.0"), Grade.UNSUPPORTED, Code.OTHER_DEVICE),
        # The builder builds for it, and the EP does not load there.
        (string_for(RELEASE, ["7.5"]), machine("7.5"), Grade.UNSUPPORTED, Code.OTHER_DEVICE),
        (REAL, machine("8.9", driver="555.84"), Grade.UNSUPPORTED, Code.DRIVER),
        (string_for(RELEASE, ["12.0"]), machine("12.0", driver="560.1"), Grade.UNSUPPORTED, Code.DRIVER),
        (REAL, machine("8.9", driver=None), Grade.UNKNOWN, Code.NOT_IN_PROFILE),
        (REAL, machine("8.9", driver="new"), Grade.UNKNOWN, Code.NOT_IN_PROFILE),
        (REAL, machine(None), Grade.UNKNOWN, Code.NOT_IN_PROFILE),
        (REAL, machine("8.9", release=None), Grade.UNKNOWN, Code.NOT_IN_PROFILE),
        (REAL, machine("8.9", release="1.7.0"), Grade.UNSUPPORTED, Code.RUNTIME_VERSION),
        (REAL, Machine(), Grade.UNKNOWN, Code.NOT_IN_PROFILE),
        (REAL, Machine(gpus=()), Grade.UNSUPPORTED, Code.NO_DEVICE),
        (REAL, Machine(gpus=(Gpu(vendor="amd"),)), Grade.UNSUPPORTED, Code.NO_DEVICE),
        # A capability that has a bit nobody knows, and a GPU that nobody knows: who can say?
        (changed(32, 0x48), machine("13.0"), Grade.UNKNOWN, Code.NOT_IN_PROFILE),
        (changed(32, 0x48), machine("8.9"), Grade.OPTIMAL, Code.FITS),
        (changed(8, 3), machine("8.9"), Grade.UNKNOWN, Code.STRING_NEWER),
        (changed(0, 0), machine("8.9"), Grade.UNSUPPORTED, Code.STRING_MALFORMED),
        (changed(28, 0), machine("8.9"), Grade.UNSUPPORTED, Code.STRING_MALFORMED),
        (REAL[:-2], machine("8.9"), Grade.UNSUPPORTED, Code.STRING_MALFORMED),
        (" " + REAL[1:], machine("8.9"), Grade.UNSUPPORTED, Code.STRING_MALFORMED),
        (None, machine("8.9"), Grade.UNKNOWN, Code.STRING_NOT_APPLICABLE),
    ],
)
def test_a_header_against_a_machine(text: str | None, on: Machine, grade: Grade, code: Code) -> None:
    verdict = judge(text, on)
    assert (verdict.grade, verdict.code) == (grade, code), verdict


def test_of_two_gpus_the_better_verdict_counts() -> None:
    gpus = (*(machine("8.6").gpus or ()), *(machine("8.9").gpus or ()))
    assert judge(REAL, machine("8.9").replace(gpus=gpus)).grade is Grade.OPTIMAL


@pytest.mark.parametrize(("name", "capability"), [("rtx-30", "8.6"), ("rtx-40", "8.9"), ("rtx-50", "12.0")])
def test_the_known_machines_take_what_is_for_them_alone(name: str, capability: str) -> None:
    for other in ("8.6", "8.9", "12.0", "12.1"):
        grade = judge(string_for(RELEASE, [other]), find_machine(name)).grade
        assert grade is (Grade.OPTIMAL if other == capability else Grade.UNSUPPORTED)


@needs("tensorrt-rtx-sm89")
def test_the_layout_on_engines_that_are_built_now(tmp_path: Path) -> None:
    model = tmp_path / "small.onnx"
    onnx.save(cnn(layers=2, channels=4, size=8), model)
    asked = {
        "SM75": ("7.5",),
        "SM86": ("8.6",),
        "SM89": ("8.9",),
        "SM120": ("12.0",),
        "SM121": ("12.1",),
        "SM86,SM89,SM120": ("8.6", "8.9", "12.0"),
    }
    script = Path(__file__).with_name("engines.py")
    done = subprocess.run([sys.executable, script, model, *asked], capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout.splitlines()[-1])
    for (text, length), capabilities in zip(answer["engines"], asked.values(), strict=True):
        assert EngineHeader.parse(text) == EngineHeader(2, length, answer["release"], capabilities)
        expected = bytearray.fromhex(string_for(answer["release"], capabilities))
        assert bytes.fromhex(text)[24:36] == expected[24:36]
