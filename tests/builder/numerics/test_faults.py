"""Variants that compute something else are refused, and those that only round otherwise are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from aotpack.builder.numerics.judge import Tolerances, judge
from tests.builder.numerics.models import FLOAT, compared, fault, info, model, weights

PRECISIONS = ("f32", "f16", "bf16")


def detector(classes: float = 1e-3, boxes: float = 300.0, **changed: float) -> onnx.ModelProto:
    """Boxes of hundreds of pixels beside scores of thousandths in one output (1, 84, 100), as of a YOLO."""
    factor = np.ones((1, 84, 1), np.float32)
    factor[:, :4] = boxes
    factor[:, 4:] = classes
    offset = np.zeros((1, 84, 1), np.float32)
    factor[:, 4:] *= changed.get("scores", 1.0)
    offset[:, 20] = changed.get("bias", 0.0)
    factor[:, 7] *= changed.get("one", 1.0)
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["features"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Reshape", ["features", "shape"], ["flat"]),
        helper.make_node("Sigmoid", ["flat"], ["between"]),
        helper.make_node("Mul", ["between", "factor"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["y"]),
    ]
    constants = [
        weights("w", 84, 3, 4, 4, scale=0.3),
        numpy_helper.from_array(np.array([1, 84, 100]), "shape"),
        numpy_helper.from_array(factor, "factor"),
        numpy_helper.from_array(offset, "offset"),
    ]
    return model(nodes, [info("image", [1, 3, 40, 40])], [info("y", [1, 84, 100])], constants)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "change", [{"scores": 0.0}, {"one": -1.0}, {"bias": 1e-3}], ids=["zeroed", "one-channel", "biased"]
)
def test_a_fault_in_small_channels_beside_large_ones_is_seen(
    change: dict[str, float], precision: str, tmp_path: Path
) -> None:
    found = fault(detector(), detector(**change), tmp_path, precision=precision)
    assert found is not None
    assert "output 'y', index" in found
    assert "of axis 1" in found
    assert "worst at [0, " in found


def test_a_bias_of_a_hundredth_of_a_small_channel_is_seen_in_float32(tmp_path: Path) -> None:
    found = fault(detector(), detector(bias=1e-5), tmp_path)
    assert found is not None
    assert "index 20 of axis 1" in found


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_same_model_has_no_fault(precision: str, tmp_path: Path) -> None:
    assert fault(detector(), detector(), tmp_path, precision=precision) is None


def test_a_tolerance_of_the_users_is_not_widened_by_the_precision(tmp_path: Path) -> None:
    """What rounding to bfloat16 does is no reason to refuse a variant, unless less was asked for."""
    found = compared(detector(), detector(one=1.01), tmp_path, precision="bf16")
    assert judge(found, Tolerances("bf16"), "host")[1] is None
    for said in (Tolerances("bf16", overall=1e-3), Tolerances("bf16", outputs={"y": 1e-3})):
        numerics, fault_found = judge(found, said, "host")
        assert fault_found is not None
        assert "index 7 of axis 1" in fault_found
        assert numerics.tolerance == 1e-3
    # What rounding in float32 does is one still.
    same = compared(detector(), detector(), tmp_path, precision="bf16")
    assert judge(same, Tolerances("bf16", overall=1e-9), "host")[1] is None


def after(name: str, inputs: list[str], **attributes: Any) -> onnx.ModelProto:
    """Features (1, 24, 24) of an image-like input, and one more node behind them."""
    extra: dict[str, np.ndarray] = {
        "zero": np.zeros(1, np.float32),
        "order": np.roll(np.arange(24), 1),
        "mean": np.array([0.5], "f4"),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Sigmoid", ["h"], ["features"]),
        helper.make_node(name, inputs, ["y"], **attributes),
    ]
    constants = [weights("w", 24, 24)]
    constants += [numpy_helper.from_array(extra[each], each) for each in inputs if each in extra]
    return model(nodes, [info("x", [1, 24, 24])], [info("y", [1, 24, 24])], constants)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "wrong",
    [
        after("Transpose", ["features"], perm=[0, 2, 1]),
        after("Gather", ["features", "order"], axis=1),
        after("Gather", ["features", "order"], axis=2),
        after("Mul", ["features", "zero"]),
        after("Clip", ["features", "", "mean"]),
        after("Neg", ["features"]),
        after("ReduceMean", ["features"], axes=[2]),
    ],
    ids=["transposed", "rows", "columns", "zeros", "clipped", "negative", "mean"],
)
def test_what_is_moved_about_lost_or_constant_is_seen(
    wrong: onnx.ModelProto, precision: str, tmp_path: Path
) -> None:
    if wrong.graph.node[-1].op_type == "ReduceMean":
        # The mean in place of what varies about it.
        wrong.graph.node[-1].output[0] = "average"
        wrong.graph.node.append(helper.make_node("Expand", ["average", "size"], ["y"]))
        wrong.graph.initializer.append(numpy_helper.from_array(np.array([1, 24, 24]), "size"))
    assert fault(after("Identity", ["features"]), wrong, tmp_path, precision=precision) is not None


def test_a_constant_beside_a_large_offset_is_seen(tmp_path: Path) -> None:
    """All within a thousandth of each other: relative to their size nothing is off."""

    def offset(factor: float) -> onnx.ModelProto:
        made = after("Add", ["scaled", "far"])
        made.graph.node.insert(2, helper.make_node("Mul", ["features", "factor"], ["scaled"]))
        made.graph.initializer.extend(
            [
                numpy_helper.from_array(np.array([1000.0], "f4"), "far"),
                numpy_helper.from_array(np.array([factor], "f4"), "factor"),
            ]
        )
        return made

    assert fault(offset(1.0), offset(0.0), tmp_path) is not None
    assert fault(offset(1.0), offset(1.0), tmp_path) is None


def lstm(gates: tuple[int, ...]) -> onnx.ModelProto:
    """An LSTM, the rows of whose weights stand in the order of `gates`; ONNX's is (0, 1, 2, 3)."""
    size = 8
    order = np.concatenate([np.arange(size) + gate * size for gate in gates])

    def ordered(name: str, width: int) -> onnx.TensorProto:
        array = numpy_helper.to_array(weights(name, 1, 4 * size, width, seed=width, scale=0.5))
        return numpy_helper.from_array(np.ascontiguousarray(array[:, order]), name)

    node = helper.make_node("LSTM", ["x", "w", "r"], ["y", "h", "c"], hidden_size=size)
    outputs = [info("y", [6, 1, 1, size]), info("h", [1, 1, size]), info("c", [1, 1, size])]
    return model([node], [info("x", [6, 1, 4])], outputs, [ordered("w", 4), ordered("r", size)])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_lstm_with_its_gates_in_another_order_is_refused(precision: str, tmp_path: Path) -> None:
    right, wrong = lstm((0, 1, 2, 3)), lstm((0, 2, 1, 3))
    assert fault(right, wrong, tmp_path, precision=precision) is not None
    assert fault(right, right, tmp_path, precision=precision) is None


def classifier(labels: bool, top: bool = False) -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["logits"])]
    outputs = [info("logits", [32, 40])]
    if labels:
        nodes.append(helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0))
        outputs.append(info("label", [32], TensorProto.INT64))
    if top:
        nodes.append(helper.make_node("TopK", ["logits", "k"], ["values", "indices"]))
        outputs += [info("values", [32, 5]), info("indices", [32, 5], TensorProto.INT64)]
    constants = [weights("w", 16, 40), numpy_helper.from_array(np.array([5]), "k")]
    return model(nodes, [info("x", [32, 16])], outputs, constants)


def test_labels_of_the_wrong_class_are_refused(tmp_path: Path) -> None:
    wrong = classifier(labels=True)
    wrong.graph.node[1].op_type = "ArgMin"
    found = fault(classifier(labels=True), wrong, tmp_path)
    assert found is not None
    assert "output 'label' 100 % of the elements that matter differ" in found


def in_half(original: onnx.ModelProto) -> onnx.ModelProto:
    """The same computed in float16, as an NPU does."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(
        onnx.ModelProto.FromString(original.SerializeToString()), keep_io_types=True
    )


@pytest.mark.parametrize(
    "original",
    [detector(), after("Identity", ["features"]), lstm((0, 1, 2, 3)), classifier(labels=True, top=True)],
    ids=["detector", "features", "lstm", "top-k"],
)
def test_what_computes_in_half_precision_is_none_the_worse(original: onnx.ModelProto, tmp_path: Path) -> None:
    assert fault(original, in_half(original), tmp_path, precision="f16") is None


def quantised_attention(levels: float, shift: float = 0.0) -> onnx.ModelProto:
    """Probabilities in steps, as a prob_mod that quantises makes them: one that lies on a step jumps."""
    nodes = [
        helper.make_node("MatMul", ["q", "k"], ["scores"]),
        helper.make_node("Add", ["scores", "shift"], ["moved"]),
        helper.make_node("Softmax", ["moved"], ["p"]),
        helper.make_node("Mul", ["p", "levels"], ["many"]),
        helper.make_node("Round", ["many"], ["whole"]),
        helper.make_node("Div", ["whole", "levels"], ["steps"]),
        helper.make_node("MatMul", ["steps", "v"], ["y"]),
    ]
    inputs = [info("q", [2, 64, 16]), info("k", [2, 16, 64]), info("v", [2, 64, 16])]
    random = np.random.default_rng(5).standard_normal((1, 64, 64)) * shift
    constants = [
        numpy_helper.from_array(np.array(levels, np.float32), "levels"),
        # Adding one number to all scores of a row changes nothing but the rounding.
        numpy_helper.from_array(random.astype(np.float32), "shift"),
    ]
    return model(nodes, inputs, [info("y", [2, 64, 16])], constants)


def test_a_jump_of_a_step_that_rounding_makes_is_no_fault(tmp_path: Path) -> None:
    original, rounded = quantised_attention(255.0), quantised_attention(255.0, shift=1e-6)
    assert fault(original, rounded, tmp_path) is None
    # Another number of steps is one.
    assert fault(original, quantised_attention(63.0), tmp_path) is not None


def suppression(threshold: float) -> onnx.ModelProto:
    """Rows that are left of boxes: how many depends on the data."""
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["scores"]),
        helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "iou", "least"], ["kept"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([50]), "most"),
        numpy_helper.from_array(np.array([0.5], np.float32), "iou"),
        numpy_helper.from_array(np.array([threshold], np.float32), "least"),
    ]
    inputs = [info("boxes", [1, 64, 4]), info("x", [1, 1, 64])]
    return model(nodes, inputs, [info("kept", [None, 3], TensorProto.INT64)], constants)


def test_rows_of_data_dependent_number_are_matched(tmp_path: Path) -> None:
    from tests.builder.numerics.models import compared

    assert fault(suppression(0.5), suppression(0.5), tmp_path) is None
    few = compared(suppression(0.5), suppression(0.8), tmp_path)
    (kept,) = few.outputs
    assert kept.rows is not None
    assert kept.rows[0] < kept.rows[1]
    assert kept.error > 0.2
    found = fault(suppression(0.5), suppression(0.8), tmp_path)
    assert found is not None


def test_another_shape_is_named(tmp_path: Path) -> None:
    wrong = after("Identity", ["features"])
    wrong.graph.node[-1].CopyFrom(helper.make_node("Unsqueeze", ["features", "order"], ["y"]))
    wrong.graph.initializer.append(numpy_helper.from_array(np.array([0]), "order"))
    del wrong.graph.output[:]
    wrong.graph.output.append(info("y", [1, 1, 24, 24], FLOAT))
    found = fault(after("Identity", ["features"]), wrong, tmp_path)
    assert found is not None
    assert "float32 of shape [1, 1, 24, 24] instead of float32 of shape [1, 24, 24]" in found


def logarithm(inside: str) -> onnx.ModelProto:
    nodes = [helper.make_node(inside, ["x"], ["h"]), helper.make_node("Log", ["h"], ["y"])]
    return model(nodes, [info("x", [4, 8])], [info("y", [4, 8])])


def test_where_the_reference_has_no_number_none_is_asked_for(tmp_path: Path) -> None:
    """Logarithms of negative numbers: a way is found to draw inputs on which there are none."""
    assert fault(logarithm("Identity"), logarithm("Identity"), tmp_path) is None


def test_an_infinity_or_nan_in_place_of_a_number_is_a_fault(tmp_path: Path) -> None:
    wrong = after("Div", ["features", "zero"])
    found = fault(after("Identity", ["features"]), wrong, tmp_path, precision="bf16")
    assert found is not None
    assert "inf instead of" in found


def voice(ending: str, *, offset: float) -> onnx.ModelProto:
    """One probability (1, 1) near the sigmoid of `offset`, as of a voice detector."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["logit"]),
        helper.make_node("Add", ["logit", "offset"], ["shifted"]),
        helper.make_node("Sigmoid", ["shifted"], ["r"]),
    ]
    if ending == "mean":
        nodes.append(helper.make_node("ReduceMean", ["r"], ["y"], axes=[1]))
    elif ending == "branch":
        branches = {
            f"{name}_branch": helper.make_graph(
                [helper.make_node("Identity", ["r"], [name])], name, [], [info(name, [1, 1])]
            )
            for name in ("then", "else")
        }
        nodes.append(helper.make_node("If", ["yes"], ["y"], **branches))
    elif ending == "product":
        nodes.append(helper.make_node("Mul", ["r", "one"], ["y"]))
    constants = [
        weights("w", 8, 1, scale=0.01),
        numpy_helper.from_array(np.array([[offset]], "f4"), "offset"),
        numpy_helper.from_array(np.array([1.0], "f4"), "one"),
        numpy_helper.from_array(np.array(True), "yes"),
    ]
    return model(nodes, [info("x", [1, 8])], [info("y", [1, 1])], constants)


def zeroed(original: onnx.ModelProto) -> onnx.ModelProto:
    """The values of its last node become 0."""
    changed = onnx.ModelProto()
    changed.CopyFrom(original)
    changed.graph.node[-1].output[0] = "before"
    changed.graph.initializer.append(numpy_helper.from_array(np.array([0.0], "f4"), "nothing"))
    changed.graph.node.append(helper.make_node("Mul", ["before", "nothing"], ["y"]))
    return changed


@pytest.mark.parametrize("ending", ["mean", "branch"])
def test_a_small_probability_that_an_npu_rounds_to_0_is_no_fault(ending: str, tmp_path: Path) -> None:
    original = voice(ending, offset=-6.0)
    assert fault(original, zeroed(original), tmp_path, precision="f16") is None


def test_one_of_a_tenth_is(tmp_path: Path) -> None:
    original = voice("mean", offset=-2.0)
    assert fault(original, zeroed(original), tmp_path, precision="f16") is not None


def test_what_only_looks_like_a_probability_is_held_to_its_own_scale(tmp_path: Path) -> None:
    original = voice("product", offset=-6.0)
    assert fault(original, zeroed(original), tmp_path, precision="f16") is not None


def heat_map(offset: float, *, factor: float = 1.0) -> onnx.ModelProto:
    """Probabilities (1, 1, 24, 24) whose first rows are nothing but 0, as of a detector of text."""
    keep = np.ones((1, 1, 24, 24), "f4")
    keep[:, :, :4] = 0
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["logit"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Mul", ["logit", "factor"], ["scaled"]),
        helper.make_node("Add", ["scaled", "hidden"], ["shifted"]),
        helper.make_node("Sigmoid", ["shifted"], ["y"]),
    ]
    constants = [
        weights("w", 1, 3, 3, 3),
        numpy_helper.from_array(np.array(factor, "f4"), "factor"),
        numpy_helper.from_array((1 - keep) * np.float32(offset), "hidden"),
    ]
    return model(nodes, [info("x", [1, 3, 24, 24])], [info("y", [1, 1, 24, 24])], constants)


def test_almost_0_in_place_of_0_is_no_fault_among_probabilities(tmp_path: Path) -> None:
    assert fault(heat_map(-200.0), heat_map(-26.0), tmp_path) is None


def test_other_probabilities_are(tmp_path: Path) -> None:
    assert fault(heat_map(-200.0), heat_map(-200.0, factor=0.9), tmp_path) is not None


def wave(louder: float = 0.0) -> onnx.ModelProto:
    """A wave (1, 1, 8192) that crosses 0 everywhere; `louder` is added to all of it."""
    nodes = [
        helper.make_node("Sin", ["x"], ["s"]),
        helper.make_node("Add", ["s", "more"], ["y"]),
    ]
    constants = [numpy_helper.from_array(np.array(louder, "f4"), "more")]
    return model(nodes, [info("x", [1, 1, 8192])], [info("y", [1, 1, 8192])], constants)


def test_moments_of_a_wave_have_no_scale_of_their_own(tmp_path: Path) -> None:
    assert fault(wave(), wave(2e-4), tmp_path) is None
    found = fault(wave(), wave(5e-3), tmp_path)
    assert found is not None
    assert "output 'y' has an error of" in found
