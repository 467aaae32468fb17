"""Intel GPUs and NPUs: what compiling for them needs, and what is said where that is not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from aotpack.machine.profile import Gpu, Machine, Npu, find_machine
from aotpack.runtime.probing import probe
from aotpack.selection.verdict import Code, Grade
from aotpack.targets.catalogue import find
from aotpack.toolchains import toolchains
from aotpack.toolchains.openvino.devices import has_npu_compiler, judge_device
from tests.command_line import aotpack, environment

PACKAGE = "onnxruntime-ep-openvino"
PLATFORMS = ("4000", "5010", "5020", "6010")

pytestmark = pytest.mark.skipif(
    toolchains()["openvino"].version() is None, reason="OpenVINO is not installed"
)

without_compiler = pytest.mark.skipif(
    bool(probe().npus) or has_npu_compiler(PACKAGE), reason="an NPU, or its compiler, is here"
)


@without_compiler
@pytest.mark.parametrize("target", [*(f"openvino-npu-{platform}" for platform in PLATFORMS), "openvino-gpu"])
def test_what_is_missing_is_told_before_anything_runs(target: str, small_model: Path, tmp_path: Path) -> None:
    if target == "openvino-gpu" and probe().gpus:
        pytest.skip("a GPU is here")
    build = ("build", small_model, "-o", tmp_path / "x.aotpack", "-t", "ort-cpu", "-t", target, "--no-reuse")
    done = aotpack(*build)
    assert done.status == 1
    assert f"{target}: not on this host: it needs " in done.error
    lines = done.err.splitlines()
    assert lines.index(f"FAILED main/{target} (0.0 s)") < next(
        index for index, line in enumerate(lines) if line.startswith("running main")
    )


COMPILE = """
import sys, tempfile
from pathlib import Path
from aotpack.errors import CompileError
from aotpack.targets.catalogue import find
from aotpack.toolchains import toolchains
toolchain = toolchains()["openvino"]
toolchain.load()
try:
    toolchain.compile(find(sys.argv[1]), Path(sys.argv[2]), Path(tempfile.mkdtemp()))
except CompileError as error:
    print(error)
"""


@without_compiler
@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_virtual_npu_is_what_the_ep_compiles_for(platform: str, small_model: Path) -> None:
    """As far as it gets without the compiler: the NPU's plugin is asked, and looks for it."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, f"openvino-npu-{platform}", small_model],
        env=environment({}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "intel_npu/src/compiler_adapter" in done.stdout
    assert "openvino_intel_npu_compiler_loader" in done.stdout


def test_the_compiler_is_found_beside_the_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, info = tmp_path / "some_ep", tmp_path / "some_ep-1.0.dist-info"
    folder.mkdir()
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: some-ep\nVersion: 1.0\n")
    (info / "RECORD").write_text("some_ep/libopenvino_intel_npu_plugin.so,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("libopenvino_intel_npu_plugin.so", "libopenvino_intel_npu_compiler.so"):
        (folder / name).touch()
        assert not has_npu_compiler("some-ep")
    (folder / "libopenvino_intel_npu_compiler_loader.so").touch()
    assert has_npu_compiler("some-ep")
    assert not has_npu_compiler("no-such-package")


def test_the_device_itself_does_as_well() -> None:
    toolchain, lunar_lake = toolchains()["openvino"], find_machine("core-ultra-2")
    assert toolchain.why_not_compile(find("openvino-npu-4000"), lunar_lake) is None
    assert toolchain.how_to_run(find("openvino-npu-4000"), lunar_lake).how == "host"
    assert toolchain.why_not_compile(find("openvino-gpu"), lunar_lake) is None
    other = toolchain.how_to_run(find("openvino-npu-5010"), lunar_lake)
    assert other.how is None


@pytest.mark.parametrize(
    ("device", "machine", "grade", "code"),
    [
        ("npu", Machine(), Grade.UNKNOWN, Code.NOT_IN_PROFILE),
        ("npu", Machine(npus=()), Grade.UNSUPPORTED, Code.NO_DEVICE),
        ("npu", Machine(npus=(Npu(vendor="qualcomm"),)), Grade.UNSUPPORTED, Code.NO_DEVICE),
        # Which of Intel's the blob is for stands in a string that nobody here has seen.
        ("npu", Machine(npus=(Npu(vendor="intel"),)), Grade.UNKNOWN, Code.STRING_NOT_APPLICABLE),
        ("gpu", Machine(), Grade.UNKNOWN, Code.NOT_IN_PROFILE),
        ("gpu", Machine(gpus=(Gpu(vendor="nvidia"),)), Grade.UNSUPPORTED, Code.NO_DEVICE),
        ("gpu", Machine(gpus=(Gpu(vendor="intel"),)), Grade.UNKNOWN, Code.STRING_NOT_APPLICABLE),
    ],
)
def test_a_blob_for_a_device(device: str, machine: Machine, grade: Grade, code: Code) -> None:
    verdict = judge_device(device, "2026.4.1", machine)
    assert (verdict.grade, verdict.code) == (grade, code)
