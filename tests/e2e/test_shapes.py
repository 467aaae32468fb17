"""Shapes that differ by target: compiled, recorded, kept apart, and chosen by."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import aotpack
from aotpack import Policy
from aotpack.builder.spec import TargetSpec
from aotpack.errors import ShapeError, UnknownName
from aotpack.runtime.probing import probe
from aotpack.selection.select import select
from aotpack.selection.verdict import Code, Grade
from aotpack.toolchains import toolchains
from tests import command_line


def projection(path: Path) -> Path:
    """x (b, n, 8) to y (b, n, 4)."""
    weights = np.random.default_rng(0).standard_normal((8, 4)).astype("f4")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "projection",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", "n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", "n", 4])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return projection(tmp_path_factory.mktemp("shapes") / "m.onnx")


@pytest.fixture(scope="module")
def package(model: Path) -> Path:
    """A CPU variant of any size, and one NPU's at two lengths."""
    path = model.with_suffix(".aotpack")
    shapes: list[Any] = [(np.int64(1), n, 8) for n in (16, 32)]
    targets = [TargetSpec(target="qnn-htp-v73", shapes={"x": each}) for each in shapes]
    aotpack.build(model, targets=["ort-cpu", *targets], output=path)
    return path


def by_length(path: Path) -> dict[object, str]:
    """The length that each NPU variant takes, to its id."""
    with aotpack.open(path) as opened:
        return {
            variant.shapes["x"][1]: variant.id
            for variant in opened.component().variants
            if variant.device == "npu" and variant.shapes
        }


def test_the_shapes_of_one_target_leave_the_others_open(package: Path) -> None:
    with aotpack.open(package) as opened:
        shapes = [(variant.target, variant.shapes) for variant in opened.component().variants]
    assert shapes == [
        ("ort-cpu", {"x": ("b", "n", 8)}),
        ("qnn-htp-v73", {"x": (1, 16, 8)}),
        ("qnn-htp-v73", {"x": (1, 32, 8)}),
        ("portable", {"x": ("b", "n", 8)}),
    ]


@pytest.mark.parametrize("length", [16, 32])
def test_load_takes_the_variant_of_the_shapes(package: Path, length: int) -> None:
    session = aotpack.load(package, shapes={"x": (1, length, 8)}, emulate=True)
    assert session.get_inputs()[0].shape == [1, length, 8]
    assert session.get_providers()[0] == "QNNExecutionProvider"


def test_a_dynamic_variant_takes_what_no_other_was_compiled_for(package: Path) -> None:
    selection = aotpack.select(package, shapes={"n": 7}, emulate=True)
    assert selection.chosen is not None
    assert selection.chosen.variant.target == "ort-cpu"
    refused = {item.id: item.verdict for item in selection.rejected}
    assert {verdict.code for verdict in refused.values()} == {Code.OTHER_SHAPES}
    sentence = refused[by_length(package)[16]].reason
    assert sentence == "It was compiled for x 1x16x8; x [b, 7, 8] is asked for."


def test_shapes_that_the_model_never_takes(package: Path) -> None:
    selection = aotpack.select(package, shapes={"x": (1, 16, 9)})
    assert selection.chosen is None
    assert {item.verdict.code for item in selection.rejected} >= {Code.OTHER_SHAPES}
    assert "sets a size of 8 to 9" in selection.rejected[0].verdict.reason
    with pytest.raises(UnknownName):
        aotpack.select(package, shapes={"sequence": 16})
    with pytest.raises(ShapeError):
        aotpack.select(package, shapes={"n": 0})
    with pytest.raises(ShapeError, match="makes 'n' both 16 and 7"):
        aotpack.load(package, shapes={"n": 16, "x": (1, 7, 8)})
    with pytest.raises(ShapeError, match="the rank of the input"):
        aotpack.load(package, shapes={"x": (1, 16)})


def test_packages_of_earlier_releases_do_not_say_their_shapes(package: Path) -> None:
    """Nobody knows then whether a variant fits, so the one that takes any size comes first."""
    with aotpack.open(package) as opened:
        component = opened.component()
        old = component.replace(variants=tuple(v.replace(shapes=None) for v in component.variants))
        policy = aotpack.Policy(emulate=True)
        chosen = opened.select(emulate=True)
    here = probe()
    asked = select(old, here, toolchains(), here=True, policy=policy, shapes={"n": 16})
    assert asked.chosen is not None
    assert asked.chosen.portable
    assert {item.verdict.code for item in asked.rejected} == {Code.SHAPES_NOT_RECORDED}
    assert {item.verdict.grade for item in asked.rejected} == {Grade.UNKNOWN}
    plain = select(old, here, toolchains(), here=True, policy=policy)
    assert [item.id for item in plain.candidates] == [item.id for item in chosen.candidates]


def test_run_takes_the_shapes_of_what_it_is_given(package: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((1, 32, 8), "f4"))
    given = command_line.aotpack("run", package, "--emulate", "--input", f"x={tmp_path / 'x.npy'}", "--json")
    assert given.document("run")["variant"] == by_length(package)[32]
    made_up = command_line.aotpack("run", package, "--emulate", "--shape", "n=5", "--shape", "b=2", "--json")
    document = made_up.document("run")
    assert document["target"] == "ort-cpu"
    assert document["inputs"][0]["shape"] == [2, 5, 8]


def test_select_and_inspect_show_them(package: Path) -> None:
    selected = command_line.aotpack("select", package, "--emulate", "--shape", "x=1,32,8", "--json")
    assert selected.document("selection")["chosen"] == by_length(package)[32]
    shown = command_line.aotpack("inspect", package).out
    assert "  shapes   x 1x32x8" in shown
    assert "  shapes   x [b, n, 8]" in shown


def test_the_command_line_gives_shapes_to_one_target(model: Path, tmp_path: Path) -> None:
    made = tmp_path / "m.aotpack"
    targets = ("-t", "ort-cpu", "-t", "qnn-htp-v73", "--shape", "qnn-htp-v73:x=1,16,8", "--shape", "b=1")
    assert command_line.aotpack("build", model, "-o", made, *targets).status == 0
    assert command_line.aotpack("add", made, "-t", "qnn-htp-v73", "--shape", "x=1,32,8").status == 0
    with aotpack.open(made) as opened:
        shapes = {variant.shapes["x"] for variant in opened.component().variants if variant.shapes}
    assert shapes == {("b", "n", 8), (1, "n", 8), (1, 16, 8), (1, 32, 8)}


def test_merge_keeps_shapes_apart(package: Path, model: Path, tmp_path: Path) -> None:
    other, merged = tmp_path / "other.aotpack", tmp_path / "merged.aotpack"
    aotpack.build(model, targets=["qnn-htp-v73"], output=other, shapes={"x": (1, 64, 8)})
    assert command_line.aotpack("merge", package, other, "-o", merged).status == 0
    assert set(by_length(merged)) == {16, 32, 64}


def test_a_build_file_gives_shapes_to_targets_and_buckets(model: Path, tmp_path: Path) -> None:
    (tmp_path / "aotpack.toml").write_text(
        f"""
name = "p"
[[component]]
name = "main"
model = {json.dumps(str(model))}
buckets = {{ short = {{ n = 4 }}, long = {{ n = 9 }} }}
[[target]]
target = "ort-cpu"
shapes = {{ b = 2 }}
""",
        encoding="utf-8",
    )
    assert command_line.aotpack("build", "aotpack.toml", cwd=tmp_path).status == 0
    for component in (None, "main"):
        session = aotpack.load(tmp_path / "p.aotpack", component=component, shapes={"n": 9})
        assert session.get_inputs()[0].shape == [2, 9, 8]
    with aotpack.open(tmp_path / "p.aotpack") as opened:
        assert opened.select(component="main", shapes={"n": 4}).component == "main.short"
        other = opened.select(component="main.long", shapes={"n": 4}).chosen
        # An id is of one bucket, and the others do not have it.
        long = opened.variant("ort-cpu", "main.long").id
        named = opened.select(component="main", shapes={"n": 9}, policy=Policy(variant=long))
    assert other is not None
    assert other.portable
    assert named.component == "main.long"
    assert [each.id for each in named.accepted] == [long]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("shapes = { x = [1, 16, 9] }", "line 9, target[0].shapes.x: sets a size of 8 to 9"),
        ("shapes = { nn = 3 }", "line 9, target[0].shapes.nn: unknown input or symbolic dimension 'nn'"),
        ("shapes = { n = 0 }", "line 9, target[0].shapes.n: cannot be that"),
        ("shapes = { n = 4, x = [1, 5, 8] }", "line 9, target[0].shapes.x: makes 'n' both 4 and 5"),
    ],
)
def test_wrong_shapes_of_a_target(model: Path, tmp_path: Path, line: str, expected: str) -> None:
    (tmp_path / "aotpack.toml").write_text(
        f"""
name = "p"
[[component]]
name = "main"
model = {json.dumps(str(model))}

[[target]]
target = "ort-cpu"
{line}
""",
        encoding="utf-8",
    )
    assert expected in command_line.aotpack("build", "aotpack.toml", cwd=tmp_path).error


def test_what_is_compiled_here_is_compiled_for_the_shapes(model: Path, tmp_path: Path) -> None:
    """And another shape is compiled for anew."""
    made = tmp_path / "m.aotpack"
    aotpack.build(model, targets=[], output=made)
    for length in (3, 5, 3):
        session = aotpack.load(made, shapes={"x": (1, length, 8)}, on_miss="compile")
        assert session.get_inputs()[0].shape == [1, length, 8]


def decoder(path: Path) -> Path:
    """ids (b, s) and mask (b, "past + s"), of which a mask for the last of the keys is made."""
    nodes = [
        helper.make_node("ReduceSum", ["mask", "axis"], ["count"], keepdims=1),
        helper.make_node("Add", ["ids", "count"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "decoder",
        [
            helper.make_tensor_value_info("ids", TensorProto.FLOAT, ["b", "s"]),
            helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["b", "past + s"]),
            helper.make_tensor_value_info("past", TensorProto.FLOAT, ["?", 2, "past", "?"]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", "s"])],
        [numpy_helper.from_array(np.array([1]), "axis")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_expressions_and_axes_without_a_name(tmp_path: Path) -> None:
    model = decoder(tmp_path / "decoder.onnx")
    report = aotpack.build(
        model,
        targets=["qnn-htp-v73"],
        output=tmp_path / "m.aotpack",
        shapes={"ids": (1, 4), "past": (3, 2, 6, 8)},
    )
    assert [row.state for row in report.rows] == ["built", "built"]
    with aotpack.open(tmp_path / "m.aotpack") as opened:
        variant, _ = opened.component().variants
    assert variant.shapes == {"ids": (1, 4), "mask": (1, 10), "past": (3, 2, 6, 8)}
    with pytest.raises(ShapeError, match=r"makes 'past \+ s' 11.*expected 10, since past = 6, s = 4"):
        aotpack.build(
            model,
            targets=["ort-cpu"],
            output=tmp_path / "n.aotpack",
            shapes={"ids": (1, 4), "past": (3, 2, 6, 8), "mask": (1, 11)},
        )


def test_a_policy_and_shapes_both_narrow(package: Path) -> None:
    policy = replace(aotpack.Policy(devices=("npu",)), emulate=True)
    assert aotpack.select(package, shapes={"n": 7}, policy=policy).chosen is None
