"""The release of the module `onnxruntime`, whatever distribution it came in."""

import subprocess
import sys
import sysconfig
import venv
from importlib import metadata
from pathlib import Path

import onnxruntime
import pytest

from aotpack.machine.ort_release import ort_minor, ort_version, read_version
from aotpack.runtime.probing import _probe, probe
from aotpack.selection.verdict import version_fits
from aotpack.targets.catalogue import find
from aotpack.toolchains import toolchains
from tests.command_line import ROOT, aotpack


def elsewhere(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """What `ort_version` says where `folder` has another module onnxruntime."""
    (folder / "onnxruntime").mkdir()
    (folder / "onnxruntime" / "__init__.py").write_text(text)
    code = (
        "import sys; from aotpack.machine.ort_release import *; "
        "print(ort_version(), 'onnxruntime' in sys.modules)"
    )
    path = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(ROOT)!r}]; "
    return subprocess.run([sys.executable, "-c", path + code], capture_output=True, text=True)


def test_the_module_that_is_imported_counts() -> None:
    assert ort_version() == onnxruntime.__version__
    assert read_version(onnxruntime.__file__) == onnxruntime.__version__


def test_a_nightly_of_another_distribution(tmp_path: Path) -> None:
    """The metadata of the release beside it says something else, and nothing is imported to find out."""
    done = elsewhere(tmp_path, 'raise ImportError("not now")\n__version__ = "1.33.0.dev20261101001"\n')
    assert done.stdout.split() == ["1.33.0.dev20261101001", "False"], done.stderr


def test_a_folder_that_says_no_version(tmp_path: Path) -> None:
    done = elsewhere(tmp_path, "pass\n")
    assert "ToolchainMissing: onnxruntime: is not installed (pip install onnxruntime)" in done.stderr


def test_no_distribution_is_called_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where onnxruntime-gpu is installed: everything that says the version still does."""
    known = metadata.version

    def version(name: str) -> str:
        if name == "onnxruntime":
            raise metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(metadata, "version", version)
    _probe.cache_clear()
    assert probe().onnxruntime == onnxruntime.__version__
    ort = toolchains()["ort"]
    assert ort.version() == ort.built_with()["onnxruntime"] == onnxruntime.__version__
    assert ort.requirements(find("ort-cpu")).onnxruntime == f">={ort_minor()}"
    for name, target in {"qnn": "qnn-htp-v73", "openvino": "openvino-cpu-avx2", "webgpu": "webgpu"}.items():
        toolchain = toolchains()[name]
        assert toolchain.built_with()["onnxruntime"] == onnxruntime.__version__
        assert ort_minor() in str(toolchain.requirements(find(target)).onnxruntime)


@pytest.fixture(scope="module")
def with_gpu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python whose module onnxruntime is of onnxruntime-gpu, of which the metadata say another version."""
    folder = tmp_path_factory.mktemp("gpu") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith("onnxruntime-"):
            (site / entry.name).symlink_to(entry)
    info = site / "onnxruntime_gpu-1.20.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: onnxruntime-gpu\nVersion: 1.20.0\n")
    return folder / "bin" / "python"


def test_each_verb_takes_the_module_of_another_distribution(
    with_gpu: Path, small_model: Path, tmp_path: Path
) -> None:
    package = tmp_path / "m.aotpack"
    for verb in (
        ("build", small_model, "-o", package, "-t", "ort-cpu", "-t", "qnn-htp-v73"),
        ("doctor", package),
        ("run", package, "--runs", "1"),
    ):
        assert (done := aotpack(*verb, python=with_gpu)).status == 0, done.err
    manifest = aotpack("inspect", package, "--json", python=with_gpu).document("manifest")
    built_with = [each["built_with"] for each in manifest["components"][0]["variants"][:2]]
    assert {each["onnxruntime"] for each in built_with} == {onnxruntime.__version__}
    selection = aotpack("select", package, "--json", python=with_gpu).document("selection")
    assert selection["candidates"][0]["target"] == "ort-cpu"


@pytest.mark.parametrize(
    ("version", "specifier", "fits"),
    [
        ("1.33.0.dev20261101001", ">=1.33", True),
        ("1.33.0.dev20261101001", ">=1.34", False),
        ("1.33.0.dev20261101001", "==1.33.*", True),
        ("1.32.0+cu12", ">=1.32", True),
        ("1.33.0rc1", ">=1.33", False),
    ],
)
def test_nightly_builds_fit_what_their_release_will(version: str, specifier: str, fits: bool) -> None:
    """A variant that a nightly compiled loads in that nightly."""
    assert version_fits(version, specifier) is fits
