"""``inputs =``, ``check =``, ``tolerance =`` and shapes per target: what a build file says of numbers."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from aotpack import build
from aotpack.builder.build import build_spec
from aotpack.builder.numerics.samples import as_input, read_array
from aotpack.builder.refresh import refresh
from aotpack.builder.report import Row
from aotpack.builder.spec import TargetSpec
from aotpack.builder.spec_file import read_build_file
from aotpack.cache.variants import Cache
from aotpack.errors import AotpackError, UsageError
from aotpack.manifest.values import TensorInfo, Variant
from tests.builder.numerics.models import info, model
from tests.command_line import aotpack
from tests.repack import repack

FILE = """
name = "given"
{top}
[[component]]
name = "main"
model = "m.onnx"
{component}
[[target]]
target = "ort-cpu"
{target}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of one input [batch, 4], and samples of batch 1, 2 and 3."""
    made = model([helper.make_node("Relu", ["x"], ["y"])], [info("x", ["b", 4])], [info("y", ["b", 4])])
    onnx.save(made, tmp_path / "m.onnx")
    (tmp_path / "samples").mkdir()
    for batch in (1, 2, 3):
        np.savez(tmp_path / "samples" / f"{batch}.npz", x=np.full((batch, 4), batch, "f4"))
    (tmp_path / "samples" / "README.md").write_text("where they are from")
    (tmp_path / "empty").mkdir()
    return tmp_path


def built(folder: Path, *, top: str = "", component: str = "", target: str = "") -> dict[str, Row]:
    (folder / "b.toml").write_text(FILE.format(top=top, component=component, target=target))
    report = build_spec(read_build_file(folder / "b.toml"), keep_going=True, cache=Cache(folder / "cache"))
    return {row.target: row for row in report.rows}


def refusal(folder: Path, **texts: str) -> str:
    with pytest.raises(AotpackError) as error:
        built(folder, **texts)
    said = str(error.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    ("inputs", "samples"),
    [('"samples"', 3), ('"samples/2.npz"', 1), ('["samples/1.npz", "samples/3.npz"]', 2), ("[]", 4)],
)
def test_a_file_a_folder_or_several_are_what_is_compared_on(folder: Path, inputs: str, samples: int) -> None:
    row = built(folder, component=f"inputs = {inputs}")["ort-cpu"]
    assert row.numerics is not None
    assert row.numerics.samples == samples
    assert row.numerics.inputs == ("made" if inputs == "[]" else "given")


def test_each_target_takes_the_samples_of_its_shapes(folder: Path) -> None:
    more = '[[target]]\ntarget = "ort-cpu"\nname = "three"\nshapes = { b = 3 }'
    rows = built(folder, component='inputs = "samples"', target=f"shapes = {{ b = 2 }}\n{more}")
    assert {name: row.numerics and row.numerics.samples for name, row in rows.items()} == {
        "ort-cpu": 1,
        "three": 1,
        "portable": 3,
    }


def test_a_target_without_a_sample_of_its_shapes_is_not_compared_and_says_so(folder: Path) -> None:
    row = built(folder, component='inputs = "samples"', target="shapes = { b = 9 }")["ort-cpu"]
    assert (row.state, row.numerics) == ("built", None)
    assert "Not compared" in str(row.reason)
    assert "found [1, 4]; expected [9, 4]" in str(row.reason)


def junk(path: Path) -> None:
    path.write_bytes(b"PK\3\4" + bytes(range(256)))


def truncated(path: Path) -> None:
    np.savez(path, x=np.zeros((1, 4), "f4"))
    path.write_bytes(path.read_bytes()[:-60])


def objects(path: Path) -> None:
    np.savez(path, x=np.array([[{}] * 4], dtype=object))


def no_array(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", "1, 2, 3, 4")


def huge(path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999, 4)}"
    text = header.ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text)


@pytest.mark.parametrize("write", [junk, truncated, objects, no_array, huge, os.mkfifo])
def test_a_file_that_holds_no_inputs_is_one_line(folder: Path, write: Callable[[Path], Any]) -> None:
    write(folder / "bad.npz")
    said = refusal(folder, component='inputs = "bad.npz"')
    assert said.startswith(f"{folder}/b.toml, line 7, component[0].inputs: {folder}/bad.npz: is no")


@pytest.mark.parametrize("write", [junk, truncated, objects, no_array, huge, os.mkfifo, np.savez, Path.mkdir])
def test_a_file_for_a_run_that_holds_no_array_is_one_line(
    tmp_path: Path, write: Callable[[Path], Any]
) -> None:
    write(tmp_path / "bad.npz")
    with pytest.raises(UsageError, match=r"^[^\n]*bad\.npz: is no file of"):
        read_array(tmp_path / "bad.npz")


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ({"component": 'inputs = "gone.npz"'}, "line 7, component[0].inputs: {}/gone.npz: is not there"),
        ({"component": 'inputs = ["samples", "empty"]'}, "component[0].inputs: {}/empty: holds no inputs"),
        ({"component": "inputs = 3"}, "line 7, component[0].inputs: cannot be that; found 3"),
        ({"target": 'inputs = "samples"'}, "line 10, target[0].inputs: unknown key"),
        ({"top": "check = 0"}, "line 3, check: cannot be that; found 0; expected true or false"),
        ({"target": 'check = "no"'}, "line 10, target[0].check: cannot be that"),
        ({"target": "tolerance = -1"}, "line 10, target[0].tolerance: cannot be that; found -1"),
        ({"target": "tolerance = nan"}, "line 10, target[0].tolerance: cannot be that; found nan"),
        (
            {"target": "tolerance = { z = 1 }"},
            "line 10, target[0].tolerance: unknown output with",
        ),
        ({"target": "shapes = { z = 1 }"}, "line 10, target[0].shapes.z: unknown input"),
        ({"target": "shapes = { b = 0 }"}, "line 10, target[0].shapes.b: cannot be that; found 0"),
        ({"target": "shapes = { x = [1, 5] }"}, "line 10, target[0].shapes.x: sets a size of 4 to 5"),
    ],
    ids=str,
)
def test_what_is_wrong_is_told_with_its_line(folder: Path, texts: dict[str, str], says: str) -> None:
    assert says.format(folder) in refusal(folder, **texts)


@pytest.mark.parametrize(
    ("top", "target", "compared"),
    [("check = false", "", False), ("check = false", "check = true", True), ("", "check = false", False)],
)
def test_what_is_not_to_be_compared_has_no_number(
    folder: Path, top: str, target: str, compared: bool
) -> None:
    row = built(folder, top=top, target=target)["ort-cpu"]
    assert row.state == "built"
    assert (row.numerics is not None) is compared
    assert ("Not compared: the build was told not to" in str(row.reason)) is not compared


def test_a_tolerance_is_of_one_output_or_of_all(folder: Path) -> None:
    for text, tolerance in (("0.5", 0.5), ("{ y = 0.25 }", 0.25), ("0", 0.0)):
        row = built(folder, target=f"tolerance = {text}")["ort-cpu"]
        assert row.numerics is not None
        assert [output.tolerance for output in row.numerics.outputs] == [tolerance]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_what_would_let_all_through_is_no_tolerance(folder: Path, value: float) -> None:
    """Of a target as well as of the build, in Python as in a file."""
    for given in ({"tolerance": value}, {"tolerances": {"y": value}}):
        with pytest.raises(UsageError, match="is no tolerance"):
            build(folder / "m.onnx", targets=[TargetSpec(target="ort-cpu", **given)], output=folder / "o")
    for of_all in (value, {"y": value}):
        with pytest.raises(UsageError, match="is no tolerance"):
            build(folder / "m.onnx", targets=["ort-cpu"], output=folder / "o", tolerance=of_all)


def test_a_number_that_its_type_cannot_hold_is_told() -> None:
    half = TensorInfo(name="x", dtype="float16", shape=(2,))
    assert as_input(np.array([1.5, np.inf]), half, "x").dtype == np.float16
    with pytest.raises(UsageError, match="x: has numbers that its type cannot hold"):
        as_input(np.array([1.5, 70000.0]), half, "x")


def test_a_folder_on_the_command_line(folder: Path) -> None:
    done = aotpack(
        *("build", "m.onnx", "-o", "m.aotpack", "-t", "ort-cpu", "--inputs", "samples", "--json"), cwd=folder
    )
    rows = {row["target"]: row for row in done.document("build-report")["rows"]}
    assert {row["numerics"]["samples"] for row in rows.values()} == {3}
    np.savez(folder / "samples" / "4.npz", x=np.zeros((1, 4), "i8"))
    again = aotpack("build", "m.onnx", "-o", "n.aotpack", "-t", "ort-cpu", "--inputs", "samples", cwd=folder)
    assert (again.status, again.error.count("\n")) == (2, 0)
    assert "4.npz: x: is of the wrong type; found int64; expected float32" in again.error


def test_another_release_of_onnx_runtime_runs_the_portable_variant_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are the same, and its numbers are those of the release that ran it."""
    assert built(folder)["portable"].check_seconds > 0
    assert built(folder)["portable"].check_seconds == 0
    monkeypatch.setattr("onnxruntime.__version__", "1.32.99")
    assert built(folder)["portable"].check_seconds > 0


def newer(each: Variant) -> Variant:
    """As a variant that another release of ONNX Runtime compiled."""
    if each.target == "portable":
        return each
    requires = each.compatibility.requires.replace(onnxruntime=">=99")
    return each.replace(compatibility=each.compatibility.replace(requires=requires))


def test_targets_that_are_added_or_renewed_are_compared_as_those_of_a_build(folder: Path) -> None:
    """Whoever needed inputs or a tolerance for a build needs them then as well."""
    built(folder)
    stale = repack(folder / "given.aotpack", folder / "stale.aotpack", newer)
    for verb in (
        ("add", "given.aotpack", "-t", "ort-cpu", "--shape", "b=2", "-o", "more.aotpack"),
        ("refresh", stale, "-o", "fresh.aotpack"),
    ):
        said = ("--inputs", "samples", "--tolerance", "0.5", "--tolerance", "y=0.25")
        done = aotpack(*verb, *said, "--json", cwd=folder)
        assert done.status == 0, done.err
        (row,) = done.document("build-report")["rows"]
        assert row["numerics"]["inputs"] == "given"
        assert [each["tolerance"] for each in row["numerics"]["outputs"]] == [0.25]


def test_what_is_wrong_for_a_renewal_is_told_before_anything_is_compiled(folder: Path) -> None:
    """Where a variant cannot be compiled anew it stays as it is; that is no answer to a wrong option."""
    built(folder)
    stale = repack(folder / "given.aotpack", folder / "stale.aotpack", newer)
    wrong: dict[str, dict[str, Any]] = {
        "unknown output with a tolerance 'z'": {"tolerances": {"z": 1.0}},
        "is no tolerance; found nan": {"tolerance": float("nan")},
        "holds no inputs": {"inputs": [folder / "empty"]},
    }
    for says, given in wrong.items():
        with pytest.raises(UsageError, match=says):
            refresh(stale, folder / "fresh.aotpack", **given)
    assert not (folder / "fresh.aotpack").exists()
    report = refresh(stale, folder / "fresh.aotpack", check=False, cache=Cache(folder / "cache"))
    (row,) = report.rows
    assert row.numerics is None
    assert "the build was told not to" in str(row.reason)
