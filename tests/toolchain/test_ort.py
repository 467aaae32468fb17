"""ONNX Runtime's CPU EP: graphs that are optimised ahead of time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import parser

from aotpack.target import find
from aotpack.toolchain import toolchains


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
    compiled = toolchains()["ort"].compile(find("ort-cpu"), model, output)
    feeds = {"x": np.arange(4, dtype=np.float32), "c": np.array(True)}
    ours, theirs = (
        ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feeds)[0]
        for path in (compiled.files[0][1], model)
    )
    np.testing.assert_array_equal(ours, theirs)
