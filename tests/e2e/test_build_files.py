"""Build files, rebuilds that do nothing, and targets that no list holds, through the command line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import Done, aotpack

BUILD_FILE = """
name = "pipeline"

[[component]]
name = "first"
model = "first.onnx"
shapes = { input = [1, 576] }

[[component]]
name = "second"
model = "second.onnx"

[[target]]
target = "ort-cpu"

[[target]]
target = "qnn-htp-v73"
"""


@pytest.fixture
def project(tmp_path: Path, real_model: Callable[[str], Path]) -> Path:
    """A folder with a build file and its two models, and a cache of its own."""
    shutil.copy(real_model("silero_vad_16k_sequence"), tmp_path / "first.onnx")
    shutil.copy(real_model("silero_vad_openvino_16k"), tmp_path / "second.onnx")
    (tmp_path / "aotpack.toml").write_text(BUILD_FILE, encoding="utf-8")
    return tmp_path


def build(project: Path, *arguments: object) -> Done:
    return aotpack(
        "build",
        "aotpack.toml",
        "-o",
        "out.aotpack",
        *arguments,
        cwd=project,
        env={"AOTPACK_CACHE": str(project / "cache")},
    )


def rows(done: Done) -> dict[tuple[str, str], dict[str, Any]]:
    assert done.status == 0, done.err
    return {(row["component"], row["target"]): row for row in done.document("build-report")["rows"]}


def test_all_components_are_built_for_all_targets(project: Path) -> None:
    built = rows(build(project, "--json"))
    assert set(built) == {
        (component, target)
        for component in ("first", "second")
        for target in ("ort-cpu", "qnn-htp-v73", "portable")
    }
    for component in ("first", "second"):
        run = aotpack("run", "out.aotpack", "--component", component, "--json", cwd=project)
        assert run.document("run")["target"] == "ort-cpu"


def test_a_second_build_compiles_nothing_and_writes_the_same(project: Path) -> None:
    rows(build(project, "--json"))
    before = (project / "out.aotpack").read_bytes()
    again = rows(build(project, "--json"))
    assert all(row["cached"] for (_, target), row in again.items() if target != "portable")
    assert (project / "out.aotpack").read_bytes() == before


def test_only_what_changed_is_built_anew_and_the_report_says_why(project: Path) -> None:
    rows(build(project, "--json"))
    text = BUILD_FILE.replace('target = "ort-cpu"', 'target = "ort-cpu"\ntolerance = 0.5')
    text = text.replace("[1, 576]", "[2, 576]")
    (project / "aotpack.toml").write_text(text, encoding="utf-8")
    again = rows(build(project, "--json"))
    assert not again["first", "qnn-htp-v73"]["cached"]
    assert "first.input is [2, 576], was [1, 576]" in again["first", "qnn-htp-v73"]["why"]
    assert again["second", "qnn-htp-v73"]["cached"]
    explained = " ".join(build(project, "--explain-rebuild").out.split())
    (kept,) = re.findall(r"((?:\S+, )*\S+): Taken from an earlier build\.", explained)
    assert set(kept.split(", ")) >= {"first/qnn-htp-v73", "second/qnn-htp-v73"}


def test_a_page_shows_the_report_without_a_network(project: Path) -> None:
    rows(build(project, "--report", "report.html", "--json"))
    page = (project / "report.html").read_text(encoding="utf-8")
    assert "qnn-htp-v73" in page
    assert "<svg" in page
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page)


def test_init_writes_a_file_that_builds(project: Path) -> None:
    (project / "aotpack.toml").unlink()
    assert aotpack("init", "second.onnx", cwd=project).status == 0
    kept = (project / "aotpack.toml").read_text(encoding="utf-8")
    built = rows(build(project, "--json"))
    assert {target for _, target in built} >= {"ort-cpu", "qnn-htp-v81", "portable"}
    # What a user has written is not overwritten.
    assert aotpack("init", "second.onnx", cwd=project).status != 0
    assert (project / "aotpack.toml").read_text(encoding="utf-8") == kept


@pytest.mark.parametrize(
    "name",
    [
        "silero_vad_16k_op15",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("silero_vad", "silero_vad_half")),
    ],
)
def test_init_finds_what_a_model_does_not_say(
    name: str, real_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """Sizes below 192 break these, and one of them holds a network for each sampling rate."""
    assert aotpack("init", real_model(name), cwd=tmp_path).status == 0
    done = aotpack("build", "aotpack.toml", "--keep-going", "--json", cwd=tmp_path)
    built = [row for row in done.document("build-report")["rows"] if not row["target"].startswith("openvino")]
    assert len(built) >= 12
    # OpenVINO's own compiler takes two other exports of the five.
    assert {row["target"]: row["reason"] for row in built if row["state"] != "built"} == {}
    assert all(row["numerics"] for row in built if not row["target"].startswith("tensorrt"))


def test_components_share_the_weights_of_one_blob(project: Path) -> None:
    text = BUILD_FILE.replace('target = "qnn-htp-v73"', 'target = "qnn-htp-v73"\nshare_weights = true')
    (project / "aotpack.toml").write_text(text, encoding="utf-8")
    built = rows(build(project, "--json"))
    row = built["second", "qnn-htp-v73"]
    assert row["numerics"] is None
    assert "cannot load a blob that several models share" in row["reason"]
    manifest = json.loads(aotpack("inspect", "out.aotpack", "--json", cwd=project).out)
    blobs = [
        variant["files"][1]["sha256"]
        for component in manifest["components"]
        for variant in component["variants"]
        if variant["target"] == "qnn-htp-v73"
    ]
    assert len(blobs) == 2
    assert blobs[0] == blobs[1]
    # The emulator would take the process down: it is never asked.
    chosen = aotpack("select", "out.aotpack", "--emulate", "--json", cwd=project).document("selection")
    codes = {each["target"]: each["code"] for each in chosen["candidates"]}
    assert codes["qnn-htp-v73"] == "no-device"


def test_one_blob_for_several_architectures(project: Path) -> None:
    out = project / "several.aotpack"
    done = aotpack("build", "second.onnx", "-t", "qnn-htp-v73+v79+v75", "-o", out, "--json", cwd=project)
    row = rows(done)["main", "qnn-htp-v73+v75+v79"]
    assert row["ep_string"].split(":")[4:7] == ["73,75,79", "60,57,69", "8,8,8"]
    assert row["numerics"] is None
    for machine, reason in (("snapdragon-x-elite", "v73"), ("snapdragon-8-elite", "v79")):
        selection = aotpack("select", out, "--machine", machine, "--json").document("selection")
        assert selection["candidates"][0]["target"] == "qnn-htp-v73+v75+v79"
        assert selection["candidates"][0]["verdict"] == "OPTIMAL"
        assert reason in selection["candidates"][0]["reason"]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (
            '[[target]]\ntarget = "q',
            '[[target]]\ntraget = "q',
            "line 17, target[1].traget: unknown key (and 1 more) (did you mean target, tol",
        ),
        ('name = "pipeline"', 'nam = "pipeline"', "line 2, nam: unknown key"),
        ("shapes = { i", "shape = { i", "line 7, component[0].shape: unknown key (did you mean shapes"),
        (
            '"qnn-htp-v73"',
            '"qnn-htp-v74"',
            "line 17, target[1].target: unknown target 'qnn-htp-v74' (did you",
        ),
        (
            'target = "qnn-htp-v73"',
            'target = "ort-cpu"',
            "line 17, target[1].target: target ort-cpu: is given twice; found aotpack.toml, line 14,",
        ),
        (
            'target = "qnn-htp-v73"',
            'target = "qnn-htp-v73"\nname = "ort-cpu"',
            "line 18, target[1].name: target ort-cpu: is given twice; found aotpack.toml, line 14,",
        ),
        (
            'target = "qnn-htp-v73"',
            'target = "qnn-htp-v73"\noptions = { vtcm_bm = "8" }',
            "line 18, target[1].options.vtcm_bm: QNNExecutionProvider has no such option that a package may "
            "set; did you mean vtcm",
        ),
        (
            'target = "qnn-htp-v73"',
            'target = "qnn-htp-v73"\n[target.options]\n# vtcm_mb\nvtcm_mb = "eight"',
            "line 20, target[1].options.vtcm_mb: is 'eight'; expected",
        ),
        (
            'target = "ort-cpu"',
            'target = "ort-cpu"\noptions = { threads = 2 }',
            "line 15, target[0].options.threads: CPUExecutionProvider has no options that a package may set",
        ),
        (
            'target = "qnn-htp-v73"',
            'target = "tensorrt-rtx-sm89"\noptions = { threads = 2 }',
            "line 18, target[1].options.threads: NvTensorRTRTXExecutionProvider has no options that a pack",
        ),
        (
            'target = "ort-cpu"',
            'target = "ort-cpu"\nshare_weights = true',
            "line 15, target[0].share_weights: CPUExecutionProvider cannot share weights",
        ),
        (
            'target = "ort-cpu"',
            'target = "ort-cpu"\nprecision = "f16"',
            "line 15, target[0].precision: target ort-cpu: CPUExecutionProvider does not let one choose",
        ),
        (
            'target = "ort-cpu"',
            'target = "ort-cpu"\ncomponents = ["frist"]',
            "line 15, target[0].components: target ort-cpu names the component 'frist', which does not exist "
            "(did you mean first",
        ),
        ('"first.onnx"', '"missing.onnx"', "aotpack.toml, line 6, component[0].model: /"),
        ('"first.onnx"', '"missing.onnx"', "missing.onnx: No such file"),
        (
            "{ input = [1, 576] }",
            "{ inptu = [1, 576] }",
            "line 7, component[0].shapes.inptu: unknown input or symbolic dimension 'inptu' (did",
        ),
        (
            "{ input = [1, 576] }",
            "{ input = [1, 575] }",
            "line 7, component[0].shapes.input: sets a size of 576 to 575",
        ),
        (
            "shapes = { input = [1, 576] }",
            "[component.buckets.short]\nsequence = 1",
            "line 8, component[0].buckets.short.sequence: unknown input or symbolic dimension 'sequence'",
        ),
        (
            "shapes = { input = [1, 576] }",
            "constants = { hh = 1 }",
            "line 7, component[0].constants.hh: unknown input to make constant 'hh' (did you mean h?)",
        ),
        (
            "shapes = { input = [1, 576] }",
            "constants = { h = true }",
            "line 7, component[0].constants.h: is no value of the input; found True; expected float32",
        ),
        (
            'name = "second"',
            'name = "first"',
            "line 10, component[1].name: two components are called 'first'",
        ),
        ('name = "pipeline"', 'name = "pipeline', "is not TOML"),
    ],
)
def test_a_wrong_build_file_is_refused_in_a_line(
    project: Path, before: str, after: str, expected: str
) -> None:
    text = BUILD_FILE.replace(before, after)
    assert text != BUILD_FILE
    (project / "aotpack.toml").write_text(text, encoding="utf-8")
    assert expected in build(project).error
    assert not (project / "out.aotpack").exists()


def test_a_set_of_architectures_that_does_not_exist(project: Path) -> None:
    done = aotpack("build", "second.onnx", "-t", "qnn-htp-v73+v74", "-o", project / "x.aotpack", cwd=project)
    assert "found v74; expected v68, v69" in done.error
