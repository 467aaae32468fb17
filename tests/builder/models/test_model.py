"""Source models: what is read, what is refused, and what fixing a shape changes."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper, parser

from aotpack.builder.models.model import (
    ModelFiles,
    count_nodes,
    import_model,
    prepare,
    read_graph,
    read_model,
)
from aotpack.builder.models.shapes import default_inputs, fix_shapes, open_dimensions, tensor_infos
from aotpack.builder.models.traversal import all_graphs
from aotpack.errors import ModelError, ShapeError, UnknownName

TEXT = """<ir_version: 10, opset_import: ["": 20]>
pair (float[batch, 3] x, float[batch, 3] y, float[n, 2] z) => (float[batch, 3] sum, float[n, 2] twice) {
    sum = Add (x, y)
    twice = Add (z, z)
}"""


def model() -> onnx.ModelProto:
    return parser.parse_model(TEXT)


def shape_of(graph: onnx.ModelProto, name: str) -> list[int | str]:
    values = {value.name: value for value in (*graph.graph.input, *graph.graph.output)}
    return [dim.dim_value or dim.dim_param for dim in values[name].type.tensor_type.shape.dim]


def test_an_inputs_shape_fixes_its_symbols_everywhere() -> None:
    fixed = fix_shapes(model(), {"x": (4, 3)})
    assert [shape_of(fixed, name) for name in ("x", "y", "sum", "z")] == [[4, 3], [4, 3], [4, 3], ["n", 2]]
    assert open_dimensions(fixed) == ["z[0] (n)"]


def test_a_symbol_is_fixed_by_its_own_name() -> None:
    fixed = fix_shapes(model(), {"batch": (4,), "n": (7,)})
    assert [shape_of(fixed, name) for name in ("y", "sum", "twice")] == [[4, 3], [4, 3], [7, 2]]
    assert open_dimensions(fixed) == []


@pytest.mark.parametrize(
    ("shapes", "error", "says"),
    [
        ({"x": (4,)}, ShapeError, r"--shape x: has 1 sizes; expected 2, the rank of the input"),
        ({"x": (4, 5)}, ShapeError, r"--shape x: sets a size of 3 to 5"),
        ({"x": (4, 3), "y": (5, 3)}, ShapeError, r"--shape y: makes 'batch' both 4 and 5"),
        ({"x": (4, 3), "batch": (5,)}, ShapeError, r"--shape batch: makes 'batch' both 4 and 5"),
        ({"batch": (4, 3)}, ShapeError, r"--shape batch: is one dimension; expected one size"),
        ({"bach": (4,)}, UnknownName, r"unknown input or symbolic dimension 'bach' \(did you mean batch"),
        ({"sum": (4, 3)}, UnknownName, r"unknown input or symbolic dimension 'sum'"),
    ],
)
def test_a_shape_that_the_model_does_not_have_is_named(
    shapes: Mapping[str, tuple[int, ...]], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        fix_shapes(model(), shapes)


def test_an_input_of_any_rank_takes_the_shape_it_is_given() -> None:
    open_rank = model()
    open_rank.graph.input[2].type.tensor_type.ClearField("shape")
    assert tensor_infos(open_rank)[2].shape is None
    assert open_dimensions(open_rank)[2:] == ["z[…] (of any rank)"]
    fixed = fix_shapes(open_rank, {"z": (5, 2), "batch": (1,)})
    assert tensor_infos(fixed)[2].shape == (5, 2)
    assert open_dimensions(fixed) == []


def test_a_size_of_zero_in_the_model_means_not_known() -> None:
    zero = model()
    zero.graph.input[2].type.tensor_type.shape.dim[0].dim_value = 0
    assert tensor_infos(zero)[2].shape == (None, 2)
    assert "z[0]" in open_dimensions(zero)


def test_initializers_that_are_listed_as_inputs_are_none() -> None:
    old = model()
    old.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 3), np.float32), "y"))
    assert [info.name for info in tensor_infos(old)] == ["x", "z"]


@pytest.mark.parametrize(
    ("imports", "counts"),
    [
        # What text2tashkeel's ensemble of two models has.
        ([("", 17), ("com.microsoft", 1), ("", 17), ("com.microsoft", 1)], {"": 17, "com.microsoft": 1}),
        ([("", 17), ("", 12)], {"": 12}),
        ([("ai.onnx", 17), ("", 12)], {"": 12}),
        ([("", 17), ("ai.onnx", 12)], {"ai.onnx": 12}),
    ],
)
def test_of_opsets_of_one_domain_the_last_counts_as_in_onnxruntime(
    imports: list[tuple[str, int]], counts: dict[str, int], tmp_path: Path
) -> None:
    import onnxruntime as ort

    # Axes are an attribute until opset 12, and an input from 13 on.
    axes: dict[str, Any] = {"axes": [0]} if 12 in counts.values() else {}
    graph = helper.make_graph(
        [helper.make_node("Squeeze", ["x"], ["y"], **axes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])],
    )
    opsets = [helper.make_opsetid(*item) for item in imports]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "merged.onnx")
    ort.InferenceSession(tmp_path / "merged.onnx")
    read = read_model(tmp_path / "merged.onnx")
    assert read.source.opsets == counts
    kept = read_graph(imported(tmp_path / "merged.onnx", tmp_path).path).opset_import
    assert {item.domain: item.version for item in kept} == counts and len(kept) == len(counts)


def imported(model: Path, folder: Path) -> ModelFiles:
    (folder / "imported").mkdir()
    return import_model(read_model(model), folder / "imported")


def test_a_prepared_copy_computes_what_its_source_does(
    real_model: Callable[[str], Path], tmp_path: Path
) -> None:
    import onnxruntime as ort

    from aotpack.builder.numerics.inputs import made_inputs

    source = imported(real_model("silero_vad_16k_sequence"), tmp_path)
    prepared, _ = prepare(source, {"input": (3, 576)}, tmp_path)
    assert prepared.path.parent == tmp_path
    inputs = made_inputs(tensor_infos(read_graph(prepared.path)))
    assert inputs["input"].shape == (3, 576)
    ours, theirs = (ort.InferenceSession(path).run(None, inputs) for path in (prepared.path, source.path))
    assert all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_a_shape_that_changes_nothing_copies_nothing(small_model: Path, tmp_path: Path) -> None:
    source = imported(small_model, tmp_path)
    assert source.path.read_bytes() == small_model.read_bytes()
    assert prepare(source, {}, tmp_path / "empty") == (source, {})
    assert prepare(source, {"image": (1, 3, 8, 8)}, tmp_path / "empty") == (source, {})
    assert not (tmp_path / "empty").exists()


def with_data(folder: Path, location: str, rows: int = 400) -> Path:
    """A model whose one weight lies in the file `location` beside it."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[rows, 2])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", rows])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [tensor],
    )
    path = folder / "model.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()
    )
    return path


def test_external_data_is_part_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    path = with_data(tmp_path, "data/weights.bin", rows=4)
    with pytest.raises(ModelError, match=r"weights\.bin: No such file or directory \(it is part of the"):
        read_model(path)
    weights = np.arange(8, dtype=np.float32).tobytes()
    (tmp_path / "data" / "weights.bin").write_bytes(weights)
    source = read_model(path)
    assert source.data == ("data/weights.bin",)
    assert source.source.sha256 == hashlib.sha256(path.read_bytes() + weights).hexdigest()
    assert source.source.size == path.stat().st_size + len(weights)


def test_a_prepared_copy_has_the_data_beside_it_also_on_another_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime as ort

    weights = np.arange(800, dtype=np.float32)
    (tmp_path / "weights.bin").write_bytes(weights.tobytes())
    source = imported(with_data(tmp_path, "weights.bin"), tmp_path)

    def refuse(*arguments: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    for name in ("linked", "copied"):
        folder = tmp_path / name
        folder.mkdir()
        prepared, _ = prepare(source, {"batch": (1,)}, folder)
        # ORT refuses a symbolic link out of the folder.
        (y,) = ort.InferenceSession(prepared.path).run(None, {"x": np.ones((1, 400), np.float32)})
        assert np.array_equal(y, [weights.reshape(400, 2).sum(axis=0)])
        linked = (folder / "model.onnx.data").samefile(source.path.with_name("model.onnx.data"))
        assert linked == (name == "linked")
        monkeypatch.setattr(os, "link", refuse)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "", "..\\weights.bin", "a/../../b"])
def test_external_data_outside_the_folder_is_refused(location: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="external data of 'w': "):
        read_model(with_data(tmp_path, location))


def test_what_is_no_model_says_so(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(ModelError, match=r"model\.onnx: No such file or directory; expected an ONNX model"):
        read_model(path)
    with pytest.raises(ModelError, match="Is a directory; expected an ONNX model"):
        read_model(tmp_path)
    path.touch()
    with pytest.raises(ModelError, match=r"model\.onnx: is empty; expected an ONNX model"):
        read_model(path)


@given(st.binary(min_size=1, max_size=200))
@example(b"#!/bin/sh\n")
@example(b"\x08\x0a")
@example(b"version https://git-lfs.github.com/spec/v1\n")
def test_random_bytes_are_no_model(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"is (not an ONNX model|a Git LFS pointer)"):
        read_model(path)


def test_a_model_cut_anywhere_is_refused_or_lacks_only_its_end(small_model: Path, tmp_path: Path) -> None:
    whole = small_model.read_bytes()
    path = tmp_path / "cut.onnx"
    refused = 0
    for end in range(0, len(whole), max(1, len(whole) // 50)):
        path.write_bytes(whole[:end])
        try:
            read_model(path)
        except ModelError:
            refused += 1
    assert refused > 45


def test_nodes_of_nested_graphs_count_and_constants_do_not(real_model: Callable[[str], Path]) -> None:
    graph = read_graph(real_model("silero_vad"))
    branches = [node for node in graph.graph.node if node.op_type == "If"]
    assert branches
    assert count_nodes(graph) > sum(node.op_type != "Constant" for node in graph.graph.node)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_no_model_and_does_not_block(tmp_path: Path) -> None:
    path = tmp_path / "pipe.onnx"
    os.mkfifo(path)
    with pytest.raises(ModelError):
        read_model(path)


def test_values_of_nested_graphs_get_names_of_their_own(tmp_path: Path) -> None:
    """The QNN EP takes no If whose branches share names."""
    source = parser.parse_model("""<ir_version: 9, opset_import: ["": 18]>
    g (float[2,4] x, bool c) => (float[2,4] y, float[a,b] z) {
        y = If (c) <
            then_branch = a () => (o) { t = Neg (x) o = Exp (t) },
            else_branch = b () => (o) {
                t = Abs (x)
                o = If (c) <
                    then_branch = d () => (t2) { t2 = Neg (t) }, else_branch = e () => (t2) { t2 = Exp (t) }
                >
            }
        >
        z = If (c) <
            then_branch = a () => (o) { t = Exp (x) o = Neg (t) },
            else_branch = b () => (k) <float[1] k = {1.0}> { }
        >
    }""")
    files = ModelFiles(path=tmp_path / "model.onnx", nodes=count_nodes(source))
    onnx.save(source, files.path)
    (tmp_path / "out").mkdir()
    prepared, _ = prepare(files, {}, tmp_path / "out")
    graph = onnx.load(prepared.path)
    made = [
        name
        for each in all_graphs(graph)
        for name in (
            *(value.name for value in (*each.input, *each.initializer)),
            *(name for node in each.node for name in node.output),
        )
    ]
    assert len(made) == len(set(made))
    assert [value.name for value in graph.graph.output] == ["y", "z"]
    for choice in (True, False):
        feeds = {"x": np.ones((2, 4), np.float32), "c": np.array(choice)}
        ours, theirs = (
            ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(["y"], feeds)[0]
            for path in (prepared.path, files.path)
        )
        np.testing.assert_array_equal(ours, theirs)


def test_sizes_of_0_and_less_are_open(tmp_path: Path) -> None:
    """Exporters write them where they know none; a session would take empty tensors alone."""
    source = parser.parse_model("""<ir_version: 9, opset_import: ["": 18]>
    g (float[3,4] x) => (float[3,4] y) { y = Neg (x) }""")
    for value in (*source.graph.input, *source.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 0
        value.type.tensor_type.shape.dim[1].dim_value = -1
    onnx.save(source, tmp_path / "model.onnx")
    model = read_model(tmp_path / "model.onnx")
    assert [info.shape for info in model.inputs] == [(None, None)]
    (tmp_path / "out").mkdir()
    session = ort.InferenceSession(
        import_model(model, tmp_path / "out").path, providers=["CPUExecutionProvider"]
    )
    assert session.run(None, {"x": np.ones((2, 5), np.float32)})[0].shape == (2, 5)


def test_inputs_with_defaults_are_told_where_they_are_meant() -> None:
    """Up to IR version 3 every weight is an input."""
    source = parser.parse_model("""<ir_version: 9, opset_import: ["": 18]>
    g (float[3] x, float[1] k) => (float[3] y) <float[1] w = {2.0}> { h = Mul (x, k) y = Mul (h, w) }""")
    source.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "k"))
    assert default_inputs(source) == ("k",)
    assert [info.name for info in tensor_infos(source)] == ["x"]
    source.ir_version = 3
    assert default_inputs(source) == ()


def test_a_model_that_is_compiled_already_says_by_what(tmp_path: Path) -> None:
    node = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft", source="SomeExecutionProvider")
    made = helper.make_graph([node], "g", model().graph.input[:1], model().graph.output[:1])
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(made, opset_imports=imports), tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="is compiled already, by 'SomeExecutionProvider'"):
        read_model(tmp_path / "model.onnx")
