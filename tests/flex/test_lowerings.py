"""Every lowering of every mod gives what numpy gives."""

import dataclasses
from typing import Any

import numpy as np
import onnx
import pytest

from aotpack import flex
from aotpack.errors import FlexError
from aotpack.flex.capabilities import Lowering
from tests.flex.running import CPU, expected, run, tensors

H = 4
RNG = np.random.default_rng(7)
MODS = {
    "none": lambda s: None,
    "causal": lambda s: flex.causal(),
    "window": lambda s: flex.sliding_window(20),
    "window-softcap": lambda s: flex.sliding_window(20) & flex.softcap(3.0),
    "dilated": lambda s: flex.dilated_window(8, 3),
    "prefix": lambda s: flex.prefix_lm(30),
    "document": lambda s: flex.document(np.sort(np.arange(s) % 5)),
    "document-of-batch": lambda s: flex.document(np.sort(np.stack([np.arange(s) % 3, np.arange(s) % 7]))),
    "document-captured": lambda s: flex.document(flex.Capture(name="ids", dtype="int64", shape=(2, s))),
    "causal-document-captured": lambda s: (
        flex.causal() & flex.document(flex.Capture(name="ids", dtype="int64", shape=(s,)))
    ),
    "global-window": lambda s: (flex.sliding_window(16) | flex.first_keys(3)) & flex.softcap(2.0),
    "alibi": lambda s: flex.causal() & flex.alibi(H),
    "natten1d": lambda s: flex.natten1d(13, s),
    "natten2d": lambda s: flex.natten2d(3, 9, s // 9),
    "relative": lambda s: flex.relative_bias(RNG.standard_normal((32, H)).astype(np.float32)),
    "relative-captured": lambda s: (
        flex.causal() & flex.relative_bias(flex.Capture(name="table", dtype="float32", shape=(32, H)))
    ),
    "sinks": lambda s: flex.sink_logits(RNG.standard_normal(H).astype(np.float32)),
}
#: Of outputs against numpy in float64, by the type of Q.
TOLERANCE = {"float32": 2e-6, "float16": 4e-3, "bfloat16": 3e-2, "float64": 1e-12}


def lowered(model: onnx.ModelProto, lowering: Lowering | None, **options: Any) -> onnx.ModelProto:
    options = {"block": (32, 16), **options}
    result, records = flex.lower(model, CPU, options=flex.Options(lowering=lowering, **options))
    onnx.checker.check_model(result, full_check=True)
    assert [record.node for record in records] == ["attention"]
    assert lowering is None or records[0].lowering == lowering
    return result


def agree(
    model: onnx.ModelProto, lowering: Lowering | None, dtype: str = "float32", **options: object
) -> None:
    feeds = tensors(model)
    want = expected(model, feeds).astype(np.float64)
    got = run(lowered(model, lowering, **options), feeds).astype(np.float64)
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("lowering", ["function", "dense", "block-sparse", None])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("name", MODS)
def test_lowering_equals_numpy(name: str, kv_heads: int, lowering: Lowering | None) -> None:
    if lowering == "function" and "captured" in name:
        pytest.skip("a function cannot capture")
    mod = MODS[name](99)
    agree(flex.attention((2, H, 99, 8), kv_shape=(2, kv_heads, 99, 8), score_mod=mod), lowering)


@pytest.mark.parametrize("lowering", ["function", "dense", "block-sparse"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("name", ["none", "window-softcap", "alibi", "global-window"])
def test_other_types(name: str, dtype: str, lowering: Lowering) -> None:
    if (lowering, dtype) == ("function", "bfloat16"):
        pytest.skip("the schema's body multiplies in bfloat16, which ONNX Runtime's CPU has no kernel for")
    model = flex.attention((1, H, 70, 8), kv_shape=(1, 2, 70, 8), dtype=dtype, score_mod=MODS[name](70))
    # The schema's body takes the square root of the scale in float32 even for float64.
    agree(model, lowering, "float32" if (lowering, dtype) == ("function", "float64") else dtype)


@pytest.mark.parametrize("lowering", ["function", "dense", "block-sparse"])
@pytest.mark.parametrize(("length", "keys"), [(1, 77), (40, 77), (77, 40), (64, 64), (33, 1)])
def test_lengths_and_sizes_that_differ(length: int, keys: int, lowering: Lowering) -> None:
    mod = flex.causal(offset=3) & flex.softcap(4.0)
    agree(
        flex.attention(
            (2, H, length, 8),
            kv_shape=(2, 2, keys, 8),
            v_size=5,
            score_mod=mod,
            prob_mod=flex.quantize(64),
            scale=0.7,
        ),
        lowering,
    )


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("lowering", ["function", "dense", "block-sparse"])
def test_softmax_precision(lowering: Lowering, precision: str) -> None:
    model = flex.attention((1, 2, 50, 8), score_mod=flex.sliding_window(9), softmax_precision=precision)
    agree(model, lowering)


@pytest.mark.parametrize("op", ["Attention", "GroupQueryAttention", "MultiHeadAttention"])
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("name", ["none", "causal", "window", "window-softcap"])
def test_fused(name: str, kv_heads: int, op: str) -> None:
    model = flex.attention((2, H, 99, 8), kv_shape=(2, kv_heads, 99, 8), score_mod=MODS[name](99), scale=0.3)
    only = flex.Capabilities(fused_ops=frozenset(item for item in CPU.fused_ops if item.name == op))
    fits = {
        "Attention": name in {"none", "causal"},
        "GroupQueryAttention": name != "none",
        "MultiHeadAttention": name in {"none", "causal"} and kv_heads == H,
    }[op]
    options = flex.Options(lowering="fused")
    if not fits:
        with pytest.raises(FlexError, match="attention: cannot be lowered as fused"):
            flex.lower(model, only, options=options)
        return
    result, (record,) = flex.lower(model, only, options=options)
    assert op in record.why
    assert op in {node.op_type for node in result.graph.node}
    feeds = tensors(model)
    np.testing.assert_allclose(run(result, feeds), expected(model, feeds), rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize("lowering", ["dense", "block-sparse"])
@pytest.mark.parametrize("masked_rows", ["nan", "zeros"])
@pytest.mark.parametrize("captured", [False, True])
def test_rows_that_see_nothing(captured: bool, masked_rows: str, lowering: Lowering) -> None:
    # Keys are hidden from the queries 0 to 40, a whole block and part of the next; captured ids hide more.
    mod: flex.Mod = flex.mask(lambda b, h, q, k: (q > 40) & (q >= k) & ((h > 0) | (q > 50)))
    if captured:
        ids = flex.Capture(name="ids", dtype="int64", shape=(90,))
        mod = mod & flex.mask(lambda b, h, q, k: ids[q] != 1)
    model = flex.attention((1, 2, 90, 8), score_mod=mod)
    feeds = tensors(model)
    want = expected(model, feeds)
    blind = np.isnan(want)
    assert blind[:, 0, :51].all() and blind[:, 1, :41].all() and not blind.all()
    if masked_rows == "zeros":
        want = np.where(blind, 0, want)
    got = run(lowered(model, lowering, masked_rows=masked_rows), feeds)
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-6)


def test_prob_mod_that_moves_zero_stays_dense() -> None:
    model = flex.attention(
        (1, 2, 70, 8), score_mod=flex.sliding_window(9), prob_mod=flex.mod(lambda p, b, h, q, k: p + 0.25)
    )
    _, (record,) = flex.lower(model, CPU)
    assert record.lowering == "dense"
    assert record.why == "prob_mod turns a probability of 0 into another"
    agree(model, "dense")
    with pytest.raises(FlexError, match="probability of 0"):
        flex.lower(model, CPU, options=flex.Options(lowering="block-sparse"))


def test_mod_that_mixes_scores_stays_dense() -> None:
    def centred(score, b, h, q, k):
        mean = score.trace.emitter.op("ReduceMean", score.name, score.trace.emitter.ints(-1), keepdims=1)
        return score - flex.Tensor(score.trace, mean, score.element_type)

    model = flex.attention((1, 2, 70, 8), score_mod=flex.mod(centred) & flex.causal())
    _, (record,) = flex.lower(model, CPU)
    assert record.lowering == "dense"
    assert "ReduceMean" in record.why
    agree(model, None)


def test_masks_that_hide_everything_are_refused() -> None:
    nothing = flex.mask(lambda b, h, q, k: k > 1000)
    with pytest.raises(FlexError, match=r"attention.score_mod: masks every key"):
        flex.lower(flex.attention((1, 2, 70, 8), score_mod=nothing), CPU)


@pytest.mark.parametrize("lowering", ["function", "dense", None])
def test_symbolic_lengths(lowering: Lowering | None) -> None:
    model = flex.attention(
        ("batch", H, "length", 8),
        kv_shape=("batch", 2, "keys", 8),
        score_mod=flex.causal() & flex.softcap(3.0),
    )
    result, (record,) = flex.lower(model, CPU, options=flex.Options(lowering=lowering))
    if lowering != "function":
        assert record.why == "its lengths are not known"
    rng = np.random.default_rng(0)
    for batch, length, keys in ((1, 5, 5), (2, 17, 40)):
        shapes = {"Q": (batch, H, length, 8), "K": (batch, 2, keys, 8), "V": (batch, 2, keys, 8)}
        feeds = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        np.testing.assert_allclose(run(result, feeds), expected(model, feeds), rtol=2e-6, atol=2e-6)


def test_symbolic_batch_is_block_sparse() -> None:
    model = flex.attention(
        ("batch", H, 99, 8), kv_shape=("batch", 2, 99, 8), score_mod=flex.sliding_window(9)
    )
    agree(model, "block-sparse")


def test_untouched_without_nodes() -> None:
    graph = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[2] x) => (float[2] y) { y = Neg(x) }'
    )
    result, records = flex.lower(graph, CPU)
    assert result is graph
    assert records == ()


def test_model_is_not_changed() -> None:
    model = flex.attention((1, 2, 70, 8), score_mod=flex.causal())
    before = model.SerializeToString(deterministic=True)
    for lowering in ("function", "dense", "block-sparse", "fused"):
        lowered(model, lowering)
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("batch", [2, "batch"])
@pytest.mark.parametrize("kv_heads", [1, 2])
@pytest.mark.parametrize("name", ["causal", "window-softcap", "global-window", "alibi"])
def test_keys_are_copied_by_gather_or_slice(name: str, kv_heads: int, batch: int | str) -> None:
    # Lengths that blocks divide, so that whole blocks of keys can be gathered.
    model = flex.attention((batch, H, 192, 8), kv_shape=(batch, 2, 192, 8), score_mod=MODS[name](192))
    feeds = tensors(model)
    results = []
    for gathers in (True, False):
        target = dataclasses.replace(CPU, gathers=gathers)
        options = flex.Options(lowering="block-sparse", block=(32, 16), kv_heads=kv_heads)
        result, _ = flex.lower(model, target, options=options)
        onnx.checker.check_model(result, full_check=True)
        assert ("Gather" in {node.op_type for node in result.graph.node}) == gathers
        results.append(run(result, feeds))
    gathered, sliced = results
    np.testing.assert_array_equal(gathered, sliced)
    np.testing.assert_allclose(results[0], expected(model, feeds), rtol=2e-6, atol=2e-6)


#: Masks that leave most of the keys of a tile alone; those of a window hide keys at both ends.
LONG = {
    "causal": flex.causal(),
    "prefix": flex.prefix_lm(30),
    "window": flex.sliding_window(130),
    "window-softcap": flex.sliding_window(130) & flex.softcap(3.0),
    "global-window": flex.sliding_window(120) | flex.first_keys(3),
    "alibi": flex.causal() & flex.alibi(H),
    "sinks": flex.causal() & flex.sink_logits(RNG.standard_normal(H).astype(np.float32)),
}


@pytest.mark.parametrize("batch", [2, "batch"])
@pytest.mark.parametrize("name", LONG)
def test_masks_pass_over_the_keys_they_hide_only(name: str, batch: int | str) -> None:
    model = flex.attention((batch, H, 192, 8), kv_shape=(batch, 2, 192, 8), score_mod=LONG[name])
    feeds = tensors(model)
    results = []
    for updates in (True, False):
        target = dataclasses.replace(CPU, updates_in_place=updates, node_cost=0)
        options = flex.Options(lowering="block-sparse", block=(16, 16))
        result, _ = flex.lower(model, target, options=options)
        onnx.checker.check_model(result, full_check=True)
        # Where to write is said for each batch.
        written = "TensorScatter" in {node.op_type for node in result.graph.node}
        assert written == (updates and batch == 2)
        results.append(run(result, feeds))
    in_place, copied = results
    np.testing.assert_allclose(in_place, copied, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(results[0], expected(model, feeds), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_masks_are_written_in_place_in_every_type(dtype: str) -> None:
    model = flex.attention((2, H, 192, 8), dtype=dtype, score_mod=LONG["window-softcap"])
    target = dataclasses.replace(CPU, node_cost=0)
    options = flex.Options(lowering="block-sparse", block=(16, 16))
    result, _ = flex.lower(model, target, options=options)
    assert "TensorScatter" in {node.op_type for node in result.graph.node}
    got, want = run(result, tensors(model)), expected(model, tensors(model))
    np.testing.assert_allclose(got, want.astype(got.dtype), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_masks_are_added_whole_where_the_opset_has_no_update() -> None:
    model = flex.attention((1, H, 192, 8), opset=23, score_mod=flex.causal())
    target = dataclasses.replace(CPU, node_cost=0)
    options = flex.Options(lowering="block-sparse", block=(16, 16))
    result, _ = flex.lower(model, target, options=options)
    assert "TensorScatter" not in {node.op_type for node in result.graph.node}
    feeds = tensors(model)
    np.testing.assert_allclose(run(result, feeds), expected(model, feeds), rtol=2e-6, atol=2e-6)


def test_mask_that_broadcasts_along_the_keys_is_added_whole() -> None:
    # Every second query sees nothing: the mask has one column, which is not the first key.
    blind = flex.mask(lambda b, h, q, k: q % 2 == 0)
    model = flex.attention((1, H, 64, 8), score_mod=blind)
    target = dataclasses.replace(CPU, node_cost=0)
    options = flex.Options(lowering="block-sparse", block=(16, 16), masked_rows="zeros")
    result, _ = flex.lower(model, target, options=options)
    got, want = run(result, tensors(model)), expected(model, tensors(model))
    assert (got[:, :, 1::2] == 0).all()
    np.testing.assert_allclose(got[:, :, ::2], want[:, :, ::2], rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("masked", [True, False])
def test_tables_stay_tables_beyond_the_budget_of_constants(masked: bool) -> None:
    # The biases of a tile take so many constants that even the table of buckets is no longer one.
    mod = flex.relative_bias(RNG.standard_normal((32, 8)).astype(np.float32))
    model = flex.attention((1, 8, 512, 8), score_mod=mod & flex.causal() if masked else mod)
    options = flex.Options(lowering="block-sparse", block=(256, 16))
    result, _ = flex.lower(model, CPU, options=options)
    onnx.checker.check_model(result, full_check=True)
    feeds = tensors(model)
    np.testing.assert_allclose(run(result, feeds), expected(model, feeds), rtol=2e-6, atol=2e-6)


def test_bias_without_a_mask_is_added_to_all_scores_at_once() -> None:
    # It is a constant for all scores, and looked up anew in tiles: 2 to 3 times slower, measured.
    bias = flex.relative_bias(RNG.standard_normal((32, 8)).astype(np.float32))
    for length in (512, 1024):
        _, (record,) = flex.lower(flex.attention((1, 8, length, 64), score_mod=bias), CPU)
        assert record.lowering == "dense"
        _, (record,) = flex.lower(flex.attention((1, 8, length, 64), score_mod=bias & flex.causal()), CPU)
        assert record.lowering == "block-sparse"
