"""Weights of less than 8 bits in wider types: the same numbers, for what a DequantizeLinear reads alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from aotpack.builder.models.low_bits import LOW_BIT_TYPES, low_bit_types, widen_weights
from aotpack.errors import ModelError
from samples.made_models import quantised

HERE = Path()
X = np.random.default_rng(1).standard_normal((1, 16, 64)).astype(np.float32)


def computed(model: onnx.ModelProto) -> Any:
    """By ORT as it stands: its optimisations would compute in int8."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": X})[0]


@given(
    st.sampled_from([(narrow, wide) for narrow, wider in LOW_BIT_TYPES.items() for wide in (narrow, *wider)]),
    st.sampled_from(["tensor", "channel", "block"]),
    st.booleans(),
    st.integers(0, 99),
)
def test_a_wider_type_computes_the_very_same(
    types: tuple[str, str], scales: Literal["tensor", "channel", "block"], zero_points: bool, seed: int
) -> None:
    narrow, wide = types
    model = quantised(narrow, scales=scales, zero_points=zero_points, seed=seed)
    assert low_bit_types(model) == {narrow}
    before = computed(model)
    counts = widen_weights(model, {narrow: wide}, HERE)
    onnx.checker.check_model(model, full_check=True)
    # Without a zero point a UINT4 goes up to 15, and INT4 to 7.
    became = "INT8" if (narrow, wide, zero_points) == ("UINT4", "INT4", False) else wide
    assert counts == ({} if narrow == wide and zero_points else {(narrow, became): 2})
    assert low_bit_types(model) == {became} & set(LOW_BIT_TYPES)
    dequantised = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert all(len(node.input) == 3 for node in dequantised), "the zero point is written out"
    assert np.array_equal(computed(model), before)


@pytest.mark.parametrize("scales", ["tensor", "channel", "block"])
@pytest.mark.parametrize("narrow", ["UINT2", "UINT4"])
@given(seed=st.integers(0, 99))
def test_each_value_loses_the_zero_point_of_its_own(
    narrow: str, scales: Literal["tensor", "channel", "block"], seed: int
) -> None:
    model = quantised(narrow, scales=scales, seed=seed)
    generator = np.random.default_rng(seed)
    for tensor in model.graph.initializer:
        if tensor.name.startswith("z"):
            zeros = generator.integers(0, 2 ** int(narrow[4:]), tuple(tensor.dims)).astype(np.uint8)
            tensor.CopyFrom(
                numpy_helper.from_array(zeros.astype(ml_dtypes.__dict__[narrow.lower()]), tensor.name)
            )
    before = computed(model)
    assert sum(widen_weights(model, {narrow: "INT4"}, HERE).values()) == 2
    onnx.checker.check_model(model, full_check=True)
    assert "UINT" not in "".join(low_bit_types(model))
    assert np.array_equal(computed(model), before)


def test_zero_points_that_do_not_fit_their_weights_are_named() -> None:
    model = quantised("UINT4")
    model.graph.node[0].attribute[0].i = 0
    with pytest.raises(ModelError, match="the zero points 'z0' do not fit the weights 'w0'"):
        widen_weights(model, {"UINT4": "INT4"}, HERE)


def test_a_narrower_type_is_refused() -> None:
    for narrow, wide in (("INT4", "INT2"), ("INT2", "UINT8"), ("INT2", "UINT4"), ("INT8", "INT8")):
        with pytest.raises(ModelError, match=f"{wide} does not hold every value of {narrow}"):
            widen_weights(quantised("INT4"), {narrow: wide}, HERE)


def test_weights_in_constants_of_a_branch_are_found_too() -> None:
    inner = quantised("INT2", zero_points=False).graph
    constants = [
        helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in inner.initializer
    ]
    branch = helper.make_graph([*constants, *inner.node], "branch", [], inner.output)
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
                helper.make_node("If", ["yes"], ["z"], then_branch=branch, else_branch=branch),
            ],
            "outer",
            inner.input,
            [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 16, 32])],
        ),
        opset_imports=[helper.make_opsetid("", 25)],
        ir_version=13,
    )
    before = computed(model)
    assert widen_weights(model, {"INT2": "INT4"}, HERE) == {("INT2", "INT4"): 2}
    assert low_bit_types(model) == {"INT4"}
    assert np.array_equal(computed(model), before)


def test_external_weights_are_read_and_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    model = quantised("UINT4")
    before = computed(model)
    onnx.save_model(model, tmp_path / "m.onnx", save_as_external_data=True, location="d", size_threshold=0)
    external = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    assert widen_weights(external, {"UINT4": "UINT8"}, tmp_path) == {("UINT4", "UINT8"): 2}
    onnx.save(external, tmp_path / "wide.onnx")
    assert np.array_equal(computed(onnx.load(tmp_path / "wide.onnx")), before)
    (tmp_path / "d").write_bytes(b"")
    with pytest.raises(ModelError, match="weights 'w0' cannot be read"):
        widen_weights(onnx.load(tmp_path / "m.onnx", load_external_data=False), {"UINT4": "UINT8"}, tmp_path)


def test_what_something_else_reads_stays_what_it_is() -> None:
    """The zero point here decides where QuantizeLinear saturates, and the other one is computed."""
    four = numpy_helper.from_array(np.array(1, np.int8).astype(ml_dtypes.int4), "z")
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
                helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
                helper.make_node("Identity", ["z"], ["later"]),
                helper.make_node("DequantizeLinear", ["w", "s", "later"], ["v"]),
            ],
            "saturates",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 64])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "v")],
            [
                four,
                numpy_helper.from_array(np.array(0.5, np.float32), "s"),
                numpy_helper.from_array(np.arange(-8, 8).astype(np.int8).astype(ml_dtypes.int4), "w"),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    before = model.SerializeToString()
    assert widen_weights(model, {"INT4": "INT8"}, HERE) == {}
    assert model.SerializeToString() == before


def test_a_name_that_is_taken_is_not_taken_again() -> None:
    model = quantised("INT4", zero_points=False)
    for node in model.graph.node:
        node.output[:] = ["w0_as_int8" if name == "m0" else name for name in node.output]
        node.input[:] = ["w0_as_int8" if name == "m0" else name for name in node.input]
    before = computed(model)
    widen_weights(model, {"INT4": "INT8"}, HERE)
    assert np.array_equal(computed(model), before)


def test_the_reference_is_what_the_model_says_and_not_what_ort_makes_of_it(tmp_path: Path) -> None:
    """ORT's own optimisations multiply with quantised weights in int8, which is off by a hundredth."""
    from aotpack.builder.jobs.job import make_reference
    from aotpack.builder.jobs.supervise import Workers
    from aotpack.builder.numerics.values import ArrayFile
    from aotpack.builder.spec import Limits

    model = quantised("INT4", scales="block")
    onnx.save(model, tmp_path / "m.onnx")
    with Workers() as workers:
        reference = make_reference(tmp_path / "m.onnx", tmp_path, workers, Limits())
    assert reference.path is not None, reference.failure
    with ArrayFile(reference.path) as kept:
        (wanted,) = ReferenceEvaluator(model).run(None, {"x": kept.get("0/in/x")})
        assert kept.get("0/out/0/") == pytest.approx(wanted, abs=1e-5)
