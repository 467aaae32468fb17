"""ONNX Runtime's own CPU EP: what its graphs, optimised ahead of time, hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from aotpack.targets.catalogue import find
from aotpack.toolchains.base import Compiled
from aotpack.toolchains.ort.toolchain import OrtToolchain
from tests.command_line import aotpack
from tests.hardware import needs

ROWS, COLUMNS = 1024, 256


def scaled(element: np.dtype, *, rows: int = ROWS, columns: int = COLUMNS) -> onnx.ModelProto:
    """MatMul with weights that are cast and scaled, one scale a column, as some exporters write int8."""
    random = np.random.default_rng(0)
    weights = random.integers(0, 100, (rows, columns)).astype(element)
    scales = random.uniform(0.001, 0.002, (1, columns)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["weights"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["wide", "scales"], ["scaled"]),
            helper.make_node("MatMul", ["x", "scaled"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, rows])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, columns])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(scales, "scales")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def filled() -> onnx.ModelProto:
    """Adds a tensor of ones that is made from its shape: a megabyte when it is computed."""
    graph = helper.make_graph(
        [
            helper.make_node(
                "ConstantOfShape", ["shape"], ["ones"], value=helper.make_tensor("", 1, [1], [1])
            ),
            helper.make_node("Add", ["x", "ones"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, ROWS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [COLUMNS, ROWS])],
        [numpy_helper.from_array(np.array([COLUMNS, ROWS], np.int64), "shape")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def compiled(model: Path, folder: Path) -> Compiled:
    folder.mkdir()
    return OrtToolchain().compile(find("ort-cpu"), model, folder)


def size(done: Compiled) -> int:
    return sum(path.stat().st_size for _, path in done.files)


@pytest.mark.parametrize(
    ("model", "external"),
    [
        (scaled(np.dtype(np.int8)), False),
        (scaled(np.dtype(np.int8)), True),
        (scaled(np.dtype(np.float16)), False),
        (filled(), False),
    ],
    ids=["int8", "int8 in a file of its own", "float16", "made from a shape"],
)
def test_constants_that_would_grow_stay_as_they_are(
    model: onnx.ModelProto, external: bool, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=external, location="weights", size_threshold=1024)
    source = sum(file.stat().st_size for file in tmp_path.iterdir())
    done = compiled(path, tmp_path / "compiled")
    assert size(done) <= 2 * source + 2048
    feeds = {"x": np.random.default_rng(1).standard_normal((1, ROWS), np.float32)}
    ours, theirs = (ort.InferenceSession(file).run(None, feeds) for file in (done.files[0][1], path))
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)


def test_other_constants_are_computed_ahead_of_time(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(scaled(np.dtype(np.float32)), path)
    graph = onnx.load(compiled(path, tmp_path / "compiled").files[0][1], load_external_data=False).graph
    assert [node.op_type for node in graph.node] == ["MatMul"]


@needs("tensorrt-rtx-sm89")
def test_a_row_says_that_its_variant_is_several_times_as_large_as_the_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(scaled(np.dtype(np.int8), rows=2048, columns=2048), path)
    done = aotpack(
        "build", path, "-o", tmp_path / "m.aotpack", "-t", "tensorrt-rtx-sm89", "-t", "ort-cpu", "--json"
    )
    assert done.status == 0, done.err
    grown, packed, portable = done.document("build-report")["rows"]
    assert grown["size"] > 3.5 * packed["size"]
    assert "times as large as the model: the compiler keeps weights in a wider type." in grown["reason"]
    assert packed["reason"] is portable["reason"] is None


def test_constants_in_graphs_nested_in_nested_graphs_are_written_once(tmp_path: Path) -> None:
    model, output = tmp_path / "model.onnx", tmp_path / "out"
    output.mkdir()
    graph = parser.parse_model("""<ir_version: 9, opset_import: ["": 18]>
    g (float[4] x, bool c) => (float[4] y) <int64 n = {3}> {
        y = Loop (n, c, x) <body = b (int64 i, bool ci, float[4] s) => (bool co, float[4] so) {
            co = Identity (ci)
            so = If (co) <
                then_branch = t () => (o) { k = Constant <value_float = 0.5> () o = Mul (s, k) },
                else_branch = e () => (p) { m = Constant <value_float = 2.0> () p = Sub (s, m) }
            >
        }>
    }""")
    onnx.save(graph, model)
    compiled = OrtToolchain().compile(find("ort-cpu"), model, output)
    feeds = {"x": np.arange(4, dtype=np.float32), "c": np.array(True)}
    ours, theirs = (
        ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feeds)[0]
        for path in (compiled.files[0][1], model)
    )
    np.testing.assert_array_equal(ours, theirs)
