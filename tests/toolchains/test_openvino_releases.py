"""Our rules for the OpenVINO EP's string on every pair of a real blob and a runtime, of several releases."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from aotpack.machine.profile import Ep, Machine
from aotpack.selection.verdict import Grade
from aotpack.toolchains.openvino.string import CAP, EP, ISA_CLASSES, judge
from aotpack.toolchains.openvino.toolchain import OpenVinoToolchain
from samples.made_models import cnn
from tests.command_line import aotpack, environment
from tests.hardware import EMULATOR, INTEL
from tests.toolchains.venvs import python_with

INSTALLED = OpenVinoToolchain().version()

#: Those before the one that is required that ONNX Runtime 1.32 loads (docs/toolchains/openvino.md).
OLDER = ("1.6.1", "1.5.2")

#: What the CPU here, or the emulated one, can compile for; two classes show what several do.
CAPS = [
    known.cap
    for known in ISA_CLASSES
    if known.cap in ("SSE41", "AVX2", "AVX512_CORE") and known.features <= set(INTEL.cpu.features or ())
][-2:]

#: What the EP's answers are worth; a string that is not applicable is refused.
GRADES = {
    "EP_SUPPORTED_OPTIMAL": Grade.OPTIMAL,
    "EP_SUPPORTED_PREFER_RECOMPILATION": Grade.PREFER_RECOMPILATION,
    "EP_UNSUPPORTED": Grade.UNSUPPORTED,
    "EP_NOT_APPLICABLE": Grade.UNSUPPORTED,
    None: Grade.UNSUPPORTED,
}

pytestmark = [
    pytest.mark.skipif(INSTALLED is None, reason="the OpenVINO EP is not installed"),
    pytest.mark.skipif(EMULATOR is None, reason="the EP takes Intel CPUs only, and no QEMU is here"),
    # Two minutes in the emulator, and some seconds on an Intel CPU.
    *([pytest.mark.long] if EMULATOR else []),
]


def run(python: Path, cap: str, *arguments: object) -> Any:
    script = Path(__file__).with_name("openvino_blobs.py")
    done = subprocess.run(
        [*(EMULATOR or ()), python, script, *map(str, arguments)],
        env=environment({CAP: cap}),
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return json.loads(done.stdout.splitlines()[-1])


def machine_with(python: Path, cap: str) -> Machine:
    """What the computer is to us with the EP of that interpreter and that cap."""
    told = json.loads(aotpack("machine", python=python).out)["eps"][EP]
    return INTEL.replace(eps={EP: Ep.from_builtins(told)}, environment={CAP: cap})


def test_every_pair_of_a_blob_and_a_runtime_is_as_the_ep_says(tmp_path: Path) -> None:
    model = tmp_path / "small.onnx"
    onnx.save(cnn(layers=2, channels=4, size=8), model)
    pythons = {str(INSTALLED): Path(sys.executable)}
    pythons |= {release: python_with(f"onnxruntime-ep-openvino=={release}") for release in OLDER}
    written = {
        (release, cap): run(python, cap, "compile", model, tmp_path / release / cap)
        for release, python in pythons.items()
        for cap in CAPS
    }
    folders = [tmp_path / release / cap for release, cap in written]
    seen: set[tuple[str, Grade, bool]] = set()
    for release, python in pythons.items():
        for cap in CAPS:
            machine = machine_with(python, cap)
            answers = run(python, cap, "judge", *folders)
            for blob, (said, loads) in zip(written, answers, strict=True):
                ours = judge(written[blob], machine)
                assert ours.grade is GRADES[said], (release, cap, blob, said, ours)
                assert loads or ours.grade is not Grade.OPTIMAL, (release, cap, blob)
                if release == INSTALLED:
                    assert loads == (ours.grade is Grade.OPTIMAL), (release, cap, blob)
                    assert (ours.grade is Grade.OPTIMAL) == (blob == (release, cap))
                seen.add((release, ours.grade, loads))
    assert {grade for _, grade, _ in seen} == {Grade.OPTIMAL, Grade.UNSUPPORTED}
    # The older releases say of nothing that it fits, not even of their own blobs, which they load.
    assert {grade for release, grade, _ in seen if release in OLDER} == {Grade.UNSUPPORTED}
    assert all((release, Grade.UNSUPPORTED, True) in seen for release in OLDER)
