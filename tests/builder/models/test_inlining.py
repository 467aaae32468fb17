"""Model-local functions: what is inlined computes what ONNX Runtime computes of the functions."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import parser

from aotpack.builder.models.inlining import inline_functions

HEAD = '<ir_version: 10, opset_import: ["": 18, "a": 1, "b": 1]>'

MODELS = {
    "default values": """
        g (float[2,4] x) => (float[2,4] y, float[2,4] z) {
            y = a.F (x)
            z = a.F <alpha = 0.7> (x)
        }
        <domain: "a", opset_import: ["": 18]>
        F <alpha: float = 0.3> (x) => (y) { y = LeakyRelu <alpha: float = @alpha> (x) }""",
    "default values in functions of functions, one name in two domains": """
        g (float[2,4] x) => (float[2,4] y, float[2,4] z) {
            y = a.F <alpha = 0.5> (x)
            z = a.F (x)
        }
        <domain: "a", opset_import: ["": 18, "b": 1]>
        F <alpha: float = 0.1> (x) => (y) {
            s = LeakyRelu <alpha: float = @alpha> (x)
            t = b.F <k: float = @alpha> (s)
            y = b.F (t)
        }
        <domain: "b", opset_import: ["": 18]>
        F <k: float = 2.0> (x) => (y) {
            t = Constant <value_float: float = @k> ()
            y = Mul (x, t)
        }""",
    "calls in branches and loops": """
        g (float[2,4] x, bool c) => (float[2,4] y) <int64 n = {3}> {
            w = a.F <k = 1.5> (c, x)
            y = Loop (n, c, w) <body = b (int64 i, bool ci, float[2,4] s) => (bool co, float[2,4] so) {
                co = Identity (ci)
                so = a.F (co, s)
            }>
        }
        <domain: "a", opset_import: ["": 18]>
        F <k: float = 2.0> (c, x) => (y) {
            y = If (c) <
                then_branch = t () => (o) { m = Constant <value_float: float = @k> () o = Mul (x, m) },
                else_branch = e () => (o) { m = Constant <value_float: float = @k> () o = Sub (x, m) }
            >
        }""",
    "an attribute without a value falls back to the default of what it is given to": """
        g (float[2,4] x) => (float[2,4] y, float[2,4] z) {
            y = a.F (x)
            z = a.F <k = 5.0> (x)
        }
        <domain: "a", opset_import: ["": 18, "b": 1]>
        F <k> (x) => (y) {
            t = b.F <alpha: float = @k> (x)
            y = LeakyRelu <alpha: float = @k> (t)
        }
        <domain: "b", opset_import: ["": 18]>
        F <alpha: float = 2.0> (x) => (y) {
            c = Constant <value_float: float = @alpha> ()
            y = Mul (x, c)
        }""",
    "operators of the model's opset": """
        g (float[2,3,4] x) => (float[2,3,4] y) { y = a.F (x) }
        <domain: "a", opset_import: ["": 11]>
        F (x) => (y) { y = Softmax <axis = 1> (x) }""",
    "a function called like an operator, and names that are taken": """
        g (float[2,4] x, float[2,4] t) => (float[2,4] y, float[2,4] t__1) {
            t__2 = a.Relu (x, t)
            y = a.Relu (t__2, x)
            t__1 = a.Relu (t, y)
        }
        <domain: "a", opset_import: ["": 18]>
        Relu (t, x) => (y) {
            x__1 = Relu (t)
            t__1 = Add (x__1, x)
            y = Mul (t__1, t)
        }""",
}


def outputs(model: onnx.ModelProto) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    random = np.random.Generator(np.random.PCG64(3))
    feeds = {
        value.name: np.array(True)
        if value.type == "tensor(bool)"
        else random.standard_normal(value.shape).astype(np.float32)
        for value in session.get_inputs()
    }
    return list(session.run(None, feeds))


@pytest.mark.parametrize("name", MODELS)
def test_what_is_inlined_computes_the_same(name: str) -> None:
    model = parser.parse_model(HEAD + MODELS[name])
    before = model.SerializeToString(deterministic=True)
    inlined = inline_functions(model)
    assert not inlined.functions
    assert model.SerializeToString(deterministic=True) == before
    for ours, theirs in zip(outputs(inlined), outputs(model), strict=True):
        np.testing.assert_array_equal(ours, theirs)
