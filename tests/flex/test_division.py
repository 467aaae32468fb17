"""`//`, `%` and `/` in mods mean what they mean in Python, for negative numbers too."""

import numpy as np
import onnx
import pytest
from onnx import helper

from aotpack import flex
from aotpack.flex.mod import to_graph

from .running import CPU, expected, run, session, tensors

L = 13
Q, K = np.meshgrid(np.arange(L), np.arange(L), indexing="ij")
SCORES = (np.arange(L * L).reshape(1, 1, L, L) - 80).astype(np.float32) / 8


def given(mod, kind=onnx.TensorProto.FLOAT):
    """What a score_mod makes of SCORES, run by ONNX Runtime."""
    graph, _ = to_graph(mod, kind)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    scores = SCORES.astype(helper.tensor_dtype_to_np_dtype(kind))
    return session(model).run(None, {graph.input[0].name: scores})[0][0, 0]


INTEGERS = [-7, -4, -1, 1, 3, 4, 20]


@pytest.mark.parametrize("number", INTEGERS)
def test_integers(number):
    """Differences of positions are negative for keys behind the query."""
    floor = flex.mod(lambda s, b, h, q, k: ((q - k) // number).like(s) + s * 0)
    rest = flex.mod(lambda s, b, h, q, k: ((q - k) % number).like(s) + s * 0)
    assert np.array_equal(given(floor), (Q - K) // number)
    assert np.array_equal(given(rest), (Q - K) % number)


@pytest.mark.parametrize("number", INTEGERS)
def test_a_number_before_the_operator(number):
    """Divisors are never zero here, as the largest difference is 12."""
    floor = flex.mod(lambda s, b, h, q, k: (number // (q - k - 20)).like(s) + s * 0)
    rest = flex.mod(lambda s, b, h, q, k: (number % (q - k - 20)).like(s) + s * 0)
    assert np.array_equal(given(floor), number // (Q - K - 20))
    assert np.array_equal(given(rest), number % (Q - K - 20))


@pytest.mark.parametrize("number", [-4.0, -0.1, 0.1, 0.75, 3.0])
@pytest.mark.parametrize("kind", [onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE])
def test_floats(number, kind):
    """1.0 // 0.1 is 9 in Python: the quotient of floats rounds past what the floor of it should be."""
    scores = SCORES[0, 0].astype(helper.tensor_dtype_to_np_dtype(kind))
    divisor = scores.dtype.type(number)
    assert np.array_equal(given(flex.mod(lambda s, b, h, q, k: s // number), kind), scores // divisor)
    assert np.array_equal(given(flex.mod(lambda s, b, h, q, k: s % number), kind), scores % divisor)


def test_scores_by_positions():
    """A mixed pair is computed in the type of the score."""
    mod = flex.mod(lambda s, b, h, q, k: s % (k - 20) + (q - k) // (s + 100.0))
    wanted = SCORES[0, 0] % (K - 20).astype("f4") + (Q - K).astype("f4") // (SCORES[0, 0] + np.float32(100))
    np.testing.assert_allclose(given(mod), wanted, rtol=1e-6)


def test_a_quotient_of_integers_is_a_fraction():
    """Python's `/`; ONNX's Div of integers would truncate."""
    mod = flex.mod(lambda s, b, h, q, k: s * 0 + (q - k) / 4)
    assert np.array_equal(given(mod), ((Q - K) / 4).astype("f4"))


def test_a_table_of_negative_numbers():
    """What is looked up may be negative though the position is not."""
    table = flex.Table(np.arange(L) - 6)
    mod = flex.mod(lambda s, b, h, q, k: s * 0 + (table[k] // 4).like(s))
    assert np.array_equal(given(mod), (K - 6) // 4)


@pytest.mark.parametrize("lowering", ["dense", "block-sparse"])
def test_masks_of_negative_differences(lowering):
    """Each lowering masks what Python says."""
    model = flex.attention(
        (1, 2, 300, 16), score_mod=flex.mask(lambda b, h, q, k: ((q - k) // 64 >= -1) & ((q - k) % 3 != 1))
    )
    feeds = tensors(model)
    lowered, (record,) = flex.lower(model, CPU, options=flex.Options(lowering=lowering))
    assert record.lowering == lowering
    q, k = np.meshgrid(np.arange(300), np.arange(300), indexing="ij")
    scores = feeds["Q"].astype("f8") @ feeds["K"].swapaxes(-1, -2) / 4
    scores = np.where(((q - k) // 64 >= -1) & ((q - k) % 3 != 1), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    wanted = weights / weights.sum(-1, keepdims=True) @ feeds["V"]
    np.testing.assert_allclose(run(lowered, feeds), wanted, atol=1e-5)
    np.testing.assert_allclose(expected(model, feeds), wanted, atol=1e-5)


def test_positions_alone_stay_one_division():
    """No index is negative: nothing is corrected for it."""
    graph, _ = to_graph(flex.natten2d(3, 4, 4), onnx.TensorProto.FLOAT)
    assert sum(node.op_type == "Div" for node in graph.node) == 2
    assert sum(node.op_type == "Mod" for node in graph.node) == 2
