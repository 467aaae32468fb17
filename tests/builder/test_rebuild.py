"""A second build compiles what changed and nothing else, and says why for each job."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from samples.made_models import cnn, quantised
from tests.command_line import aotpack

BUILD_FILE = """
name = "two"

[[component]]
name = "first"
model = "first.onnx"

[[component]]
name = "second"
model = "second.onnx"
shapes = { image = [1, 3, 8, 8] }

[[target]]
target = "ort-cpu"

[[target]]
target = "trouble-none"

[[target]]
target = "qnn-htp-v73"
options = { htp_graph_finalization_optimization_mode = "1" }
"""

NOT_BUILT = "It was not built for this package before."
JOBS = {(component, target) for component in ("first", "second") for target in ("ort", "trouble", "qnn")}

Rows = dict[tuple[str, str], dict[str, Any]]


class Project:
    """A folder with a build file, a cache, and a third party's toolchain."""

    def __init__(self, folder: Path, troublesome: Path) -> None:
        self.folder = folder
        self.toolchain = folder / "third-party"
        shutil.copytree(troublesome, self.toolchain)
        for name, layers in (("first", 1), ("second", 2)):
            onnx.save(cnn(layers=layers, channels=4, size=8), folder / f"{name}.onnx")
        (folder / "aotpack.toml").write_text(BUILD_FILE, encoding="utf-8")

    def replace(self, before: str, after: str, file: str = "aotpack.toml") -> None:
        path = self.folder / file
        text = path.read_text(encoding="utf-8")
        assert before in text
        path.write_text(text.replace(before, after, 1), encoding="utf-8")

    def build(self, *arguments: str, **env: str) -> Rows:
        done = aotpack(
            *("build", "aotpack.toml", "--json", *arguments),
            cwd=self.folder,
            env={"AOTPACK_CACHE": str(self.folder / "cache"), **env},
            path=(self.toolchain,),
        )
        assert done.status == 0, done.err
        return {
            (row["component"], row["target"].split("-")[0]): row
            for row in done.document("build-report")["rows"]
            if row["target"] != "portable"
        }


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, troublesome: Path) -> tuple[Project, Rows]:
    project = Project(tmp_path_factory.mktemp("template"), troublesome)
    return project, project.build()


@pytest.fixture
def project(template: tuple[Project, Rows], tmp_path: Path) -> Project:
    """One that was built a moment ago."""
    shutil.copytree(template[0].folder, tmp_path, dirs_exist_ok=True)
    copy = object.__new__(Project)
    copy.folder, copy.toolchain = tmp_path, tmp_path / "third-party"
    # What was built is remembered by the package's path.
    copy.build()
    return copy


def anew(rows: Rows) -> dict[tuple[str, str], str]:
    """The jobs that were done, and why."""
    return {key: row["why"] for key, row in rows.items() if not row["cached"]}


def test_the_first_build_does_all_and_the_second_nothing(
    template: tuple[Project, Rows], project: Project
) -> None:
    assert anew(template[1]) == dict.fromkeys(JOBS, NOT_BUILT)
    assert anew(project.build()) == {}


def test_a_changed_model_is_built_anew_for_all_targets(project: Project) -> None:
    onnx.save(cnn(layers=3, channels=4, size=8), project.folder / "second.onnx")
    wanted = {("second", target): "Changed: the model of second." for target in ("ort", "trouble", "qnn")}
    assert anew(project.build()) == wanted


def test_a_changed_shape_is_built_anew_for_all_targets(project: Project) -> None:
    project.replace("shapes = { image = [1, 3, 8, 8] }", "")
    found = anew(project.build())
    assert set(found) == {("second", target) for target in ("ort", "trouble", "qnn")}
    assert all("second.image is gone ([1, 3, 8, 8])" in reason for reason in found.values()), found


def test_a_changed_option_is_built_anew_for_its_target_alone(project: Project) -> None:
    project.replace('mode = "1"', 'mode = "2"')
    why = "Changed: htp_graph_finalization_optimization_mode is 2, was 1"
    found = anew(project.build())
    assert set(found) == {("first", "qnn"), ("second", "qnn")}
    assert all(reason.startswith(why) for reason in found.values()), found


def test_another_version_of_a_toolchain_is_built_anew_for_its_targets_alone(project: Project) -> None:
    project.replace("Version: 1.0", "Version: 1.1", "third-party/troublesome-1.0.dist-info/METADATA")
    why = "Changed: troublesome is 1.1, was 1.0."
    assert anew(project.build()) == {("first", "trouble"): why, ("second", "trouble"): why}


def test_a_new_component_is_built_and_the_others_are_kept(project: Project) -> None:
    onnx.save(cnn(layers=1, channels=8, size=8), project.folder / "third.onnx")
    project.replace("[[target]]", '[[component]]\nname = "third"\nmodel = "third.onnx"\n\n[[target]]')
    assert anew(project.build()) == {("third", target): NOT_BUILT for target in ("ort", "trouble", "qnn")}


def test_a_new_target_is_built_and_the_others_are_kept(project: Project) -> None:
    project.replace("[[target]]", '[[target]]\ntarget = "qnn-htp-v75"\nname = "more"\n\n[[target]]')
    assert anew(project.build()) == {("first", "more"): NOT_BUILT, ("second", "more"): NOT_BUILT}


def test_weights_that_are_rewritten_for_some_targets_are_said_for_those(project: Project) -> None:
    onnx.save(quantised("INT2"), project.folder / "first.onnx")
    found = anew(project.build())
    assert "INT2 is new (INT4)" in found["first", "qnn"]
    assert found["first", "ort"] == "Changed: the model of first."


@pytest.mark.parametrize("change", ["tolerance = 0.5", 'license = "MIT"', "compress = 0", 'version = "2"'])
def test_what_no_compiler_sees_builds_nothing_anew(project: Project, change: str) -> None:
    project.replace('name = "two"', f'name = "two"\n{change}')
    assert anew(project.build()) == {}


def rotten(entry: Path) -> None:
    # Of the portable variant only its check is kept, no files.
    files = [path for path in (entry / "files").rglob("*") if path.is_file()]
    file = files[0] if files else entry / "done.json"
    file.chmod(0o644)
    file.write_bytes(b"rotten")


@pytest.mark.parametrize("harm", [rotten, shutil.rmtree])
def test_a_result_that_is_gone_or_damaged_is_built_anew(
    project: Project, harm: Callable[[Path], None]
) -> None:
    entries = list((project.folder / "cache" / "results").glob("*/done.json"))
    for entry in entries:
        harm(entry.parent)
    assert anew(project.build()) == dict.fromkeys(JOBS, "Its result is no longer in the cache.")


def test_what_failed_is_tried_again(project: Project) -> None:
    project.replace("trouble-none", "trouble-raise")
    project.replace('name = "two"', 'name = "two"\nportable = false')
    # Both components fail, the others are kept.
    first = project.build("--keep-going")
    assert {row["state"] for key, row in first.items() if key[1] == "trouble"} == {"failed"}
    again = project.build("--keep-going")
    assert anew(again) == {
        ("first", "trouble"): "It failed the last time.",
        ("second", "trouble"): "It failed the last time.",
    }


def test_what_could_not_be_run_is_once_it_can(project: Project) -> None:
    """A cache may come from a machine without the device, and a device later than the first build."""
    key = ("first", "trouble")
    project.replace("trouble-none", "trouble-wrong-numbers")
    unplugged = {"TROUBLESOME_UNPLUGGED": "1"}
    assert project.build(**unplugged)[key]["reason"] == "Not run here: it is not plugged in."
    assert project.build(**unplugged)[key]["cached"]
    kept = project.build(TROUBLESOME_WITHOUT_COMPILER="1")[key]
    assert kept["cached"], "there would be nothing in its place"
    row = project.build("--keep-going")[key]
    assert row["state"] == "failed", "its numbers are looked at now"
    assert row["why"] == "It could not be run where it was compiled, and can be here."


def test_results_that_are_not_to_be_used_are_not(project: Project) -> None:
    why = "Results of earlier builds were not to be used."
    assert anew(project.build("--no-reuse")) == dict.fromkeys(JOBS, why)


def test_what_cannot_be_tried_says_so(project: Project) -> None:
    onnx_model = cnn(layers=1, channels=4, size=8)
    onnx_model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(onnx_model, project.folder / "first.onnx")
    found = anew(project.build("--keep-going"))
    assert found["first", "qnn"] == "The model does not fit the target."
    assert found["first", "ort"] == "Changed: the model of first."


def test_it_is_said_on_the_terminal_too(project: Project) -> None:
    project.replace("Version: 1.0", "Version: 1.1", "third-party/troublesome-1.0.dist-info/METADATA")
    done = aotpack(
        *("build", "aotpack.toml", "--explain-rebuild"),
        cwd=project.folder,
        env={"AOTPACK_CACHE": str(project.folder / "cache")},
        path=(project.toolchain,),
    )
    said = " ".join(done.out.split())
    assert "first/trouble-none, second/trouble-none: Changed: troublesome is 1.1, was 1.0." in said
    assert re.search(r"first/qnn-htp-v73\b[^:]*, second/qnn-htp-v73: Taken from an earlier build\.", said)
    assert "first/portable, second/portable: Nothing had to be done for it." in said
