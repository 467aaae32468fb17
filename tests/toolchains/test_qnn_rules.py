"""Our rules for the QNN EP's string: each by itself, and on every pair of real blobs and runtimes."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aotpack.machine.profile import Ep, Machine, Npu
from aotpack.selection.verdict import Code, Grade
from aotpack.toolchains.qnn.string import BACKEND_API, EP, QnnString, judge, string_for
from samples.made_models import cnn
from tests.toolchains.venvs import python_with

NEWEST = "5.51.0"

#: Architecture and SoC of each target in the catalogue.
PAIRS = ("68:39", "69:36", "73:60", "75:57", "79:69", "81:88")


def phone(
    architecture: str | None, vtcm: int | None = 8, api: str | None = NEWEST, *, driver: str | None = None
) -> Machine:
    known = {"qnn-backend-api": api, "user-driver": driver}
    details = {name: value for name, value in known.items() if value}
    return Machine(
        arch="aarch64",
        npus=(Npu(vendor="qualcomm", architecture=architecture, vtcm_mb=vtcm),),
        eps={EP: Ep(version="0", details=details)},
    )


def string(archs: str, vtcm: str = "0", api: str = NEWEST, driver: str = "0", backend: str = "6") -> str:
    socs = ",".join("1" for _ in archs.split(","))
    return f"v2:{backend}:2.51.0:{api}:{archs}:{socs}:{vtcm}:{driver}"


@pytest.mark.parametrize(
    ("written", "machine", "grade", "code"),
    [
        (string("73", "8"), phone("v73"), Grade.OPTIMAL, Code.FITS),
        (string("73", "8"), phone("73"), Grade.OPTIMAL, Code.FITS),
        # What is compiled without a VTCM size never equals what a device has.
        (string("73"), phone("v73"), Grade.PREFER_RECOMPILATION, Code.NOT_EXACT),
        (string("73"), phone("v73", None), Grade.PREFER_RECOMPILATION, Code.NOT_EXACT),
        (string("73", "4"), phone("v73"), Grade.PREFER_RECOMPILATION, Code.NOT_EXACT),
        (string("73", "8"), phone("v73", 4), Grade.UNSUPPORTED, Code.OTHER_DEVICE),
        (string("73", "8"), phone("v73", None), Grade.UNKNOWN, Code.NOT_IN_PROFILE),
        (string("73", "8"), phone("v75"), Grade.PREFER_RECOMPILATION, Code.OLDER_DEVICE),
        (string("75", "8"), phone("v73"), Grade.UNSUPPORTED, Code.OTHER_DEVICE),
        (string("69", "8"), phone("v73"), Grade.UNSUPPORTED, Code.OTHER_DEVICE),
        (string("68", "4"), phone("v69", 4), Grade.PREFER_RECOMPILATION, Code.OLDER_DEVICE),
        # Releases before 2.7 write no architecture for v79.
        (string("0"), phone("v79"), Grade.UNSUPPORTED, Code.OTHER_DEVICE),
        # Several SoCs: the best one counts.
        (string("73,75,79", "8,8,8"), phone("v75"), Grade.OPTIMAL, Code.FITS),
        (string("73,79", "8,8"), phone("v75"), Grade.PREFER_RECOMPILATION, Code.OLDER_DEVICE),
        (string("75,79", "8,8"), phone("v73"), Grade.UNSUPPORTED, Code.OTHER_DEVICE),
        # Versions: patch does not count.
        (string("73", "8", "5.51.9"), phone("v73"), Grade.OPTIMAL, Code.FITS),
        (string("73", "8", "5.50.0"), phone("v73"), Grade.OPTIMAL, Code.FITS),
        (string("73", "8", "5.52.0"), phone("v73"), Grade.UNSUPPORTED, Code.RUNTIME_VERSION),
        (string("73", "8", "6.0.0"), phone("v73"), Grade.UNSUPPORTED, Code.RUNTIME_VERSION),
        (string("73", "8"), phone("v73", api=None), Grade.UNKNOWN, Code.NOT_IN_PROFILE),
        (string("73", "8"), phone("v73", api="five"), Grade.UNKNOWN, Code.NOT_IN_PROFILE),
        # A user driver is compared with the SDK instead.
        (string("73", "8"), phone("v73", driver="2.51.3"), Grade.OPTIMAL, Code.FITS),
        (
            string("73", "8"),
            phone("v73", driver="2.50.0"),
            Grade.UNSUPPORTED,
            Code.RUNTIME_VERSION,
        ),
        (string("73", "8", driver="1"), phone("v73"), Grade.UNSUPPORTED, Code.RUNTIME_VERSION),
        # The first form of the string.
        ("6:2.40.0:5.40.0:3.3.3:73:0", phone("v73"), Grade.OPTIMAL, Code.FITS),
        ("6:2.40.0:5.40.0:3.3.3:69:0", phone("v73"), Grade.UNSUPPORTED, Code.OTHER_DEVICE),
        ("6:2.40.0:5.40.0:3.3.3:73:0", phone("v75"), Grade.PREFER_RECOMPILATION, Code.OLDER_DEVICE),
        # Forms that are none.
        (string("73", "8", backend="3"), phone("v73"), Grade.UNSUPPORTED, Code.STRING_MALFORMED),
        (string("73", "8,8"), phone("v73"), Grade.UNSUPPORTED, Code.STRING_MALFORMED),
        (string("", "8"), phone("v73"), Grade.UNSUPPORTED, Code.STRING_MALFORMED),
        (string("4294967296", "8"), phone("v73"), Grade.UNSUPPORTED, Code.STRING_MALFORMED),
        ("v3:6:2.51.0:5.51.0:73:60:0:0", phone("v73"), Grade.UNKNOWN, Code.STRING_NEWER),
        ("junk", phone("v73"), Grade.UNSUPPORTED, Code.STRING_MALFORMED),
        ("", phone("v73"), Grade.UNSUPPORTED, Code.STRING_MALFORMED),
        # Profiles that lie or say too little.
        (string("73", "8"), phone("banana"), Grade.UNKNOWN, Code.NOT_IN_PROFILE),
        (string("73", "8"), phone(None), Grade.UNKNOWN, Code.NOT_IN_PROFILE),
        (string("73", "8"), Machine(), Grade.UNKNOWN, Code.NOT_IN_PROFILE),
        (string("73", "8"), Machine(arch="aarch64", npus=()), Grade.UNSUPPORTED, Code.NO_DEVICE),
        (
            string("73"),
            Machine(arch="x86_64", npus=(Npu(vendor="intel", architecture="4000"),)),
            Grade.UNSUPPORTED,
            Code.EMULATION_NOT_ASKED,
        ),
    ],
)
def test_a_string_against_a_machine(written: str, machine: Machine, grade: Grade, code: Code) -> None:
    verdict = judge(written, machine, emulate=False)
    assert (verdict.grade, verdict.code) == (grade, code), verdict


@given(st.text(st.sampled_from("v23:,.0689751"), max_size=40))
def test_any_text_gets_a_verdict_and_only_v73_fits_v73(written: str) -> None:
    verdict = judge(written, phone("v73"), emulate=False)
    parsed = QnnString.parse(written)
    if verdict.grade is Grade.OPTIMAL:
        assert parsed is not None
        assert 73 in parsed.archs


def test_a_profile_whose_release_has_another_backend_api_than_it_says_is_not_believed() -> None:
    honest, lying = phone("v73"), phone("v73", api="9.99.0")
    for machine, grade in ((honest, Grade.OPTIMAL), (lying, Grade.UNKNOWN)):
        eps = {EP: Ep(version="2.7.0", details=(machine.eps or {})[EP].details)}
        verdict = judge(string("73", "8"), machine.replace(eps=eps), emulate=False)
        assert verdict.grade is grade
    assert verdict.code is Code.PROFILE_CONTRADICTS
    assert verdict.reason.endswith("the QNN EP 2.7.0 has backend API 5.51.0 and not 9.99.0.")
    assert [item.fits for item in verdict.compared] == [None]


def test_the_emulator_takes_one_architecture_where_it_is_asked_for() -> None:
    here = Machine(arch="x86_64", npus=(), eps={EP: Ep(version="2.7.0")})
    assert judge(string_for(73, 60, 8, NEWEST), here, emulate=True).code is Code.EMULATED
    assert judge(string_for(73, 60, 8, NEWEST), here, emulate=False).code is Code.EMULATION_NOT_ASKED
    assert judge(string("73,75", "0,0"), here, emulate=True).code is Code.NO_DEVICE
    assert judge(string("73", api="5.52.0"), here, emulate=True).code is Code.RUNTIME_VERSION


def run(python: Path, *arguments: object) -> Any:
    script = Path(__file__).with_name("qnn_blobs.py")
    done = subprocess.run(
        [python, script, *map(str, arguments)], capture_output=True, text=True, check=True, timeout=300
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def pythons() -> dict[str, Path]:
    """An interpreter for each release of the EP."""
    try:
        installed = metadata.version("onnxruntime-qnn")
    except metadata.PackageNotFoundError:
        pytest.skip("the QNN EP is not installed")
    return {
        release: Path(sys.executable) if release == installed else python_with(f"onnxruntime-qnn=={release}")
        for release in BACKEND_API
    }


def test_every_pair_of_a_blob_and_a_runtime_is_as_the_emulator_says(
    pythons: dict[str, Path], tmp_path: Path
) -> None:
    model = tmp_path / "small.onnx"
    onnx.save(cnn(layers=2, channels=4, size=8), model)
    written = {
        release: run(python, "compile", model, tmp_path / release, *PAIRS)
        for release, python in pythons.items()
    }
    blobs = [(release, pair.split(":")[0]) for release in pythons for pair in PAIRS]
    for release, python in pythons.items():
        ran = run(python, "run", *(tmp_path / built / arch for built, arch in blobs))
        runtime = Machine(arch="x86_64", npus=(), eps={EP: Ep(version=release)})
        fits = [
            judge(written[built][arch], runtime, emulate=True).grade is Grade.OPTIMAL for built, arch in blobs
        ]
        assert fits == ran, release
    # Older blobs run on newer runtimes and not the other way round, so neither answer is all there is.
    assert [QnnString.parse(text) is None for each in written.values() for text in each.values()] == [
        False
    ] * len(blobs)
    for release, texts in written.items():
        parsed = QnnString.parse(texts["73"])
        assert parsed is not None
        assert ".".join(map(str, parsed.backend_api)) == BACKEND_API[release]
