"""Our own toolchains, and one of a third party, in the suite that `aotpack.testing` has for them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from aotpack.machine.profile import Machine
from aotpack.manifest.values import Variant
from aotpack.runtime.probing import probe
from aotpack.selection.verdict import Verdict
from aotpack.testing import ToolchainTests
from aotpack.toolchains.base import Toolchain
from aotpack.toolchains.in_tree.toolchain import MiGraphXToolchain, TensorRtToolchain, VitisAiToolchain
from aotpack.toolchains.openvino.toolchain import OpenVinoToolchain
from aotpack.toolchains.ort.toolchain import OrtToolchain
from aotpack.toolchains.qnn.toolchain import QnnToolchain
from aotpack.toolchains.tensorrt_rtx.toolchain import TensorRtRtxToolchain
from aotpack.toolchains.webgpu.toolchain import WebGpuToolchain
from tests.command_line import ROOT, aotpack, environment

SAMPLE = ROOT / "samples" / "third_party_toolchain"


class TestOrt(ToolchainTests):
    def make(self) -> Toolchain:
        return OrtToolchain()


class TestOpenVino(ToolchainTests):
    def make(self) -> Toolchain:
        return OpenVinoToolchain()


class TestQnn(ToolchainTests):
    def make(self) -> Toolchain:
        return QnnToolchain()


class TestTensorRtRtx(ToolchainTests):
    def make(self) -> Toolchain:
        return TensorRtRtxToolchain()


class TestWebGpu(ToolchainTests):
    def make(self) -> Toolchain:
        return WebGpuToolchain()


class TestTensorRt(ToolchainTests):
    def make(self) -> Toolchain:
        return TensorRtToolchain()


class TestVitisAi(ToolchainTests):
    def make(self) -> Toolchain:
        return VitisAiToolchain()


class TestMiGraphX(ToolchainTests):
    def make(self) -> Toolchain:
        return MiGraphXToolchain()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sample's package, installed by pip from a wheel as its build backend makes it."""
    folder = tmp_path_factory.mktemp("acme")
    wheel = _wheel(SAMPLE, folder)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    done = subprocess.run(
        [*pip, "--disable-pip-version-check", "--target", folder / "site", wheel],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder / "site"


def _wheel(project: Path, folder: Path) -> Path:
    """The wheel of a project that is all Python. Build backends would have to be fetched from an index."""
    about = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    stem = f"{about['name'].replace('-', '_')}-{about['version']}"
    points = "".join(
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in named.items())
        for group, named in about["entry-points"].items()
    )
    metadata = f"Metadata-Version: 2.4\nName: {about['name']}\nVersion: {about['version']}\n"
    files = {
        path.relative_to(project).as_posix(): path.read_text(encoding="utf-8")
        for path in (project / "aotpack_acme").rglob("*.py")
    } | {
        f"{stem}.dist-info/METADATA": metadata,
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{stem}.dist-info/entry_points.txt": points,
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{stem}.dist-info/RECORD"))
    wheel = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in (files | {f"{stem}.dist-info/RECORD": record}).items():
            archive.writestr(name, text)
    return wheel


def test_the_sample_of_a_third_party_passes_where_it_is_installed(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            SAMPLE / "tests",
            "--rootdir",
            SAMPLE,
        ],
        env=environment({}, (installed,)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout
    assert "passed" in done.stdout


def test_a_package_for_the_sample_is_built_and_loaded(
    installed: Path, small_model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "small.aotpack"
    target = "acme-x86-64" if probe().arch == "x86_64" else "acme-aarch64"
    done = aotpack("build", small_model, "-o", output, "-t", target, path=(installed,))
    assert done.status == 0, done.err
    run = aotpack("run", output, "--runs", 1, "--json", path=(installed,)).document("run")
    assert run["target"] == target
    # Where it is not installed nobody can say, and what is portable runs.
    run = aotpack("run", output, "--runs", 1, "--json").document("run")
    assert run["target"] == "portable"
    codes = {each["target"]: each["code"] for each in run["refused"]}
    select = aotpack("select", output, "--json").document("selection")["candidates"]
    assert {each["target"]: each["code"] for each in select}[target] == "toolchain-unknown", codes


class Reads(OrtToolchain):
    """A toolchain that does what its `judge` must not."""

    name = "reads"
    read: object = None

    def judge(self, variant: Variant, machine: Machine, *, emulate: bool) -> Verdict:
        self.read()  # type: ignore[operator]
        return super().judge(variant, machine, emulate=emulate)


@pytest.mark.parametrize(
    "read",
    [
        lambda: Path("/etc").exists(),
        lambda: Path(pytest.__file__).read_text(),
        lambda: __import__("os").environ.get("HOME"),
        lambda: "X" in __import__("os").environ,
        lambda: __import__("os").listdir("."),
        lambda: __import__("os.path").path.exists("/x"),
        lambda: __import__("platform").machine(),
        lambda: __import__("socket").gethostname(),
    ],
)
def test_the_suite_sees_what_a_judge_reads(read: object) -> None:
    class Suite(ToolchainTests):
        def make(self) -> Toolchain:
            made = Reads()
            made.read = read
            return made

    with pytest.raises(AssertionError, match="nothing is known"):
        Suite().test_judging_reads_nothing_but_its_arguments()
    Suite().test_judging_never_raises()


def test_importing_the_suites_needs_no_pytest() -> None:
    code = "import sys; sys.modules['pytest'] = None; import aotpack.testing; print('onnx' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment({}), capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
