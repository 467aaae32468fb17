"""bfloat16 models in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, parser
from onnx.reference import ReferenceEvaluator

from aotpack.builder.models.bfloat16 import computes_in_bfloat16, widen_bfloat16
from aotpack.errors import ModelError
from samples.made_models import cnn, of_element_type

#: Inputs, outputs, a branch with a name from outside, a constant (1.0 is 16256) and a function: all bfloat16.
EVERYWHERE = """<ir_version: 10, opset_import: ["": 21, "own": 1]>
everywhere (bfloat16[2, 3] x, bool yes, float[2, 3] f) => (bfloat16[2, 3] y, float[2, 3] g)
<bfloat16[2, 3] seen>
{
    seen = own.twice (x)
    one = Constant <value = bfloat16 {16256}> ()
    y = If (yes) <
        then_branch = a () => (bfloat16[2, 3] then_y) { then_y = Add (seen, one) },
        else_branch = b () => (bfloat16[2, 3] else_y) { else_y = Mul (x, one) }
    >
    half = Cast <to = 16> (f)
    g = Cast <to = 1> (half)
}
<opset_import: ["": 21], domain: "own">
twice (v) => (w) { w = Add (v, v) }
"""


def test_it_computes_what_the_model_says_but_for_the_rounding() -> None:
    model = of_element_type("BFLOAT16")
    x = np.random.default_rng(0).standard_normal((1, 16, 64)).astype(np.float32)
    (wanted,) = ReferenceEvaluator(model).run(None, {"x": x})
    assert computes_in_bfloat16(model)
    with pytest.raises(ort.capi.onnxruntime_pybind11_state.NotImplemented, match="MatMul"):
        ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    widen_bfloat16(model, Path())
    assert not computes_in_bfloat16(model)
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x})
    assert 0 < np.abs(found - wanted).max() < 0.05


def test_inputs_and_outputs_keep_their_type_and_nothing_else_does() -> None:
    model = parser.parse_model(EVERYWHERE)
    onnx.checker.check_model(model, full_check=True)
    assert computes_in_bfloat16(model)
    ends = [value.SerializeToString() for value in (*model.graph.input, *model.graph.output)]
    widen_bfloat16(model, Path())
    onnx.checker.check_model(model, full_check=True)
    assert [value.SerializeToString() for value in (*model.graph.input, *model.graph.output)] == ends
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    to_bfloat16 = [node for node in casts if node.attribute[0].i == TensorProto.BFLOAT16]
    assert [list(node.output) for node in to_bfloat16] == [["y"]]
    ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_weights_that_are_cast_at_once_are_left_alone() -> None:
    model = parser.parse_model("""<ir_version: 10, opset_import: ["": 21]>
    stored (float[2] x) => (float[2] y) <bfloat16[2] w = {16256, 16384}> {
        v = Cast <to = 1> (w)
        y = Add (x, v)
    }""")
    assert not computes_in_bfloat16(model)
    assert not computes_in_bfloat16(cnn(layers=1))


def test_weights_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save_model(
        of_element_type("BFLOAT16"), path, save_as_external_data=True, location="d", size_threshold=0
    )
    (tmp_path / "d").unlink()
    with pytest.raises(ModelError, match=r"/d: No such file or directory \(it is part of the model\)"):
        widen_bfloat16(onnx.load(path, load_external_data=False), tmp_path)
