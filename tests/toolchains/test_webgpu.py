"""WebGPU, compiled for and run on a GPU in software."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import onnx
import pytest

from aotpack.machine.profile import Ep, Gpu, Machine
from aotpack.manifest.values import Variant
from aotpack.runtime.package import open_package
from aotpack.runtime.probing import probe
from aotpack.selection.select import select
from aotpack.selection.verdict import Code
from aotpack.toolchains import toolchains
from tests.command_line import aotpack
from tests.hardware import software_gpu

pytestmark = pytest.mark.skipif(toolchains()["webgpu"].version() is None, reason="its EP is not installed")

EP = "WebGpuExecutionProvider"


@pytest.fixture(scope="module")
def gpu() -> dict[str, str]:
    return software_gpu()


@pytest.fixture(scope="module")
def package(gpu: dict[str, str], small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("webgpu") / "small.aotpack"
    done = aotpack("build", small_model, "-o", path, "-t", "webgpu", "--json", env=gpu)
    assert done.status == 0, done.err
    row, _ = done.document("build-report")["rows"]
    assert row["numerics"]["ran_on"] == "emulator"
    assert row["numerics"]["error"] < 1e-5
    assert row["ep_string"] is None
    return path


def test_the_graph_is_the_eps_own(package: Path, tmp_path: Path) -> None:
    with open_package(package) as opened:
        (variant,) = [each for each in opened.manifest.variants() if each.target == "webgpu"]
        paths = opened.extract(variant.id, tmp_path / "loose")
    graph = onnx.load(paths[0], load_external_data=False).graph
    # Why no other release of the EP can load it.
    assert "com.ms.internal.nhwc" in {node.domain for node in graph.node}


def test_it_runs_here_when_asked_to_emulate_and_only_then(package: Path, gpu: dict[str, str]) -> None:
    run = aotpack("run", package, "--emulate", "--json", env=gpu).document("run")
    assert (run["target"], run["ep"]) == ("webgpu", EP)
    run = aotpack("run", package, "--json", env=gpu).document("run")
    assert run["target"] == "portable"
    codes = {
        each["target"]: each["code"]
        for each in aotpack("select", package, "--json", env=gpu).document("selection")["candidates"]
    }
    assert codes["webgpu"] == "emulation-not-asked"


def test_only_the_release_that_wrote_it_takes_it(package: Path) -> None:
    with open_package(package) as opened:
        component = opened.manifest.components[0]
    gpus = (Gpu(vendor="amd", name="Radeon 780M"),)
    own, ort = metadata.version("onnxruntime-ep-webgpu"), metadata.version("onnxruntime")
    for version, release, expected in (
        (own, ort, "OPTIMAL"),
        ("0.3.0", ort, "UNSUPPORTED"),
        (own, "1.33.0", "UNSUPPORTED"),
    ):
        machine = Machine(arch="x86_64", gpus=gpus, eps={EP: Ep(version=version)}, onnxruntime=release)
        candidates = select(component, machine, toolchains(), here=False).candidates
        (grade,) = [each.verdict.grade for each in candidates if each.variant.target == "webgpu"]
        assert grade == expected, (version, release)


def test_judging_looks_for_no_file_of_a_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The profile may be of another machine, and its paths are a stranger's; probing looks for the driver."""
    toolchain = toolchains()["webgpu"]
    variant = Variant(id="some", target="webgpu", toolchain="webgpu", ep=EP, device="gpu")
    there, missing = tmp_path / "driver.json", tmp_path / "missing.json"
    there.touch()
    for driver, details in ((there, {}), (missing, {"software-driver": "missing"})):
        monkeypatch.setenv("ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER", "1")
        monkeypatch.setenv("VK_ICD_FILENAMES", str(driver))
        assert toolchain.runtime_details() == details
        assert "software-driver" not in toolchain.built_with()
    for driver in (there, missing):
        environment = {"ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER": "1", "VK_ICD_FILENAMES": str(driver)}
        profile = Machine(gpus=(), eps={EP: Ep(version="0.4.0")}, environment=environment)
        assert toolchain.judge(variant, profile, emulate=True).code is Code.EMULATED
        probed = {EP: Ep(version="0.4.0", details={"software-driver": "missing"})}
        here = profile.replace(eps=probed)
        assert toolchain.judge(variant, here, emulate=True).code is Code.NO_DEVICE


@pytest.mark.parametrize(
    ("name", "shapes"), [("magika", ("--shape", "unk__214=1")), ("light_squeezenet", ())]
)
def test_real_models_run_on_it_and_match(
    gpu: dict[str, str], real_model: Callable[[str], Path], tmp_path: Path, name: str, shapes: tuple[str, ...]
) -> None:
    build = ("build", real_model(name), "-o", tmp_path / "m.aotpack", "-t", "webgpu", *shapes, "--json")
    done = aotpack(*build, env=gpu)
    assert done.status == 0, done.err
    row = done.document("build-report")["rows"][0]
    assert row["coverage"]["compiled"] == row["coverage"]["nodes"] > 0
    assert row["numerics"]["ran_on"] == "emulator"
    assert row["numerics"]["error"] <= row["numerics"]["tolerance"]
    # Both give probabilities.
    assert row["numerics"]["max_abs"] < 1e-5


def test_numbers_that_its_kernels_get_wrong_are_refused(
    gpu: dict[str, str], real_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """The LSTM of silero-vad: release 0.4.0 of the EP is off by 0.9, however the graph is optimised."""
    done = aotpack(
        *("build", real_model("silero_vad_16k_sequence"), "-o", tmp_path / "vad.aotpack"),
        *("--shape", "input=1,576", "-t", "webgpu", "--json"),
        env=gpu,
    )
    assert done.status == 1
    refused = re.search(
        r"its numbers are off: output '[hc]n', .* an error of (\S+) of its own scale", done.error
    )
    assert refused, done.error
    assert float(refused[1]) > 0.5
    assert "the tolerance is 0.001" in done.error


@pytest.mark.skipif(bool(probe().gpus), reason="there is a GPU here")
def test_without_a_gpu_it_says_what_to_set_at_once(small_model: Path, tmp_path: Path) -> None:
    off = {"ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER": "", "VK_ICD_FILENAMES": ""}
    build = ("build", small_model, "-o", tmp_path / "x.aotpack", "-t", "webgpu", "--no-reuse")
    done = aotpack(*build, env=off)
    assert done.status == 1
    assert "set ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER=1, and VK_ICD_FILENAMES" in done.error
    # The portable model is run all the same, for a row of its own.
    assert done.err.index("FAILED main/webgpu") < done.err.index("running main")
