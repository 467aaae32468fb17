"""Attention subgraphs as models of their own."""

import numpy as np
import onnx
from onnx import helper

from aotpack import flex
from tests.flex.running import CPU, run, tensors


def layers(*mods: flex.Mod | None, names: bool = True) -> onnx.ModelProto:
    """A chain of attentions, each over the last one's output."""
    nodes, captured = [], []
    last = "X"
    for index, mod in enumerate(mods):
        node, found = flex.make_node(
            (last, "K", "V"), f"y{index}", score_mod=mod, name=f"layer{index}" if names else ""
        )
        captured += [item for item in found if item not in captured]
        nodes.append(node)
        last = f"y{index}"
    inputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 2, 40, 8]) for name in "XKV"]
    inputs += [
        helper.make_tensor_value_info(item.name, item.element_type, list(item.shape)) for item in captured
    ]
    output = helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, [1, 2, 40, 8])
    opsets = [helper.make_opsetid("", 24), helper.make_opsetid("ai.onnx.preview", 1)]
    return helper.make_model(
        helper.make_graph(nodes, "layers", inputs, [output]), opset_imports=opsets, ir_version=12
    )


def test_equal_ones_once() -> None:
    window = flex.sliding_window(8)
    model = layers(flex.causal(), window, flex.causal(), window, None)
    found = flex.extract(model)
    assert [name for name, _ in found] == ["attention-0", "attention-1", "attention-2"]
    for _, alone in found:
        onnx.checker.check_model(alone)
    feeds = tensors(model)
    value = feeds["X"]
    for index in (0, 1, 0, 1, 2):
        lowered, _ = flex.lower(found[index][1], CPU)
        value = run(lowered, {"Q": value, "K": feeds["K"], "V": feeds["V"]})
    whole, records = flex.lower(model, CPU)
    assert [record.node for record in records] == [f"layer{index}" for index in range(5)]
    np.testing.assert_allclose(run(whole, feeds), value, rtol=1e-5, atol=1e-6)


def test_names_do_not_matter() -> None:
    one = layers(flex.causal())
    other = layers(flex.causal(), names=False)
    for attribute in other.graph.node[0].attribute:
        attribute.g.CopyFrom(onnx.compose.add_prefix_graph(attribute.g, "other/"))
    assert one.graph.node[0].attribute[0] != other.graph.node[0].attribute[0]
    assert flex.extract(one) == flex.extract(other)


def test_captures_become_inputs() -> None:
    ids = flex.Capture(name="document_of", dtype="int64", shape=(40,))
    model = layers(flex.document(ids) & flex.causal(), flex.document(ids) & flex.causal())
    ((_, alone),) = flex.extract(model)
    assert [value.name for value in alone.graph.input] == ["Q", "K", "V", "captured_0"]
    feeds = tensors(alone)
    lowered, _ = flex.lower(alone, CPU)
    assert run(lowered, feeds).shape == (1, 2, 40, 8)


def test_constants_go_along() -> None:
    model = layers(
        flex.mod(lambda s, b, h, q, k: s + flex.Capture(name="bias", dtype="float32", shape=(1,))[q * 0])
    )
    (bias,) = (value for value in model.graph.input if value.name == "bias")
    model.graph.input.remove(bias)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0.5], np.float32), "bias"))
    ((_, alone),) = flex.extract(model)
    assert [value.name for value in alone.graph.input] == ["Q", "K", "V"]
    feeds = tensors(model)
    want = run(flex.lower(model, CPU)[0], feeds)
    got = run(flex.lower(alone, CPU)[0], {"Q": feeds["X"], "K": feeds["K"], "V": feeds["V"]})
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
