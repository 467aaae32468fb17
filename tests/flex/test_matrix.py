"""Every lowering of every named mod in every type, against onnx's ReferenceEvaluator.

Where that cannot run, for mods that capture values, our own reference in numpy stands in; it is itself held
to onnx's wherever both run.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from aotpack import flex
from aotpack.errors import FlexError
from tests.flex.running import CPU, expected, run, tensors

B, HEADS, KV_HEADS, SIZE, V_SIZE = 2, 4, 2, 8, 5
#: Odd, and apart where a mod does not need as many queries as keys.
LENGTH, KEYS = 45, 38
#: The schema's body takes its square root in float32, even for float64: this one's is exact.
SCALE = 0.25
BIAS = np.random.default_rng(3).standard_normal((32, HEADS))
SINKS = np.random.default_rng(4).standard_normal(HEADS)
IDS = np.sort(np.arange(LENGTH) % 4)


@functools.cache
def last() -> flex.Mask:
    """The last key, a sink."""
    return flex.mask(lambda b, h, q, k: k == KEYS - 1, "last")


#: Mods by name, and whether they want as many keys as queries.
MODS: dict[str, tuple[Callable[[], flex.Mod | None], bool]] = {
    "none": (lambda: None, False),
    "causal": (lambda: flex.causal(), False),
    # The first queries see nothing, a whole block of them and part of the next.
    "causal-offset": (lambda: flex.causal(offset=-20), False),
    "window": (lambda: flex.sliding_window(5), False),  # and here the last ones
    "dilated": (lambda: flex.dilated_window(4, 3), True),
    "prefix-lm": (lambda: flex.prefix_lm(9), False),
    "document": (lambda: flex.document(IDS), True),
    "document-captured": (
        lambda: flex.document(flex.Capture(name="ids", dtype="int64", shape=(B, LENGTH))) & flex.causal(),
        True,
    ),
    "global-window": (lambda: flex.sliding_window(6) | flex.first_keys(3), False),
    "alibi": (lambda: flex.alibi(HEADS) & flex.causal(), False),
    "softcap": (lambda: flex.softcap(2.0), False),
    "window-softcap": (lambda: flex.sliding_window(6) & flex.softcap(2.0), False),
    "relative-bias": (lambda: flex.relative_bias(BIAS.astype(np.float32)), False),
    "relative-bias-captured": (
        lambda: flex.relative_bias(flex.Capture(name="table", dtype="float32", shape=(32, HEADS))),
        False,
    ),
    "natten1d": (lambda: flex.natten1d(7, LENGTH), True),
    "natten2d": (lambda: flex.natten2d(3, 5, 9), True),
    "sinks": (lambda: (flex.causal() | last()) & flex.sink_logits(SINKS.astype(np.float32)), False),
}
CAPTURED = {"document-captured", "relative-bias-captured"}
#: Of outputs, by the type of Q: some roundings of the type, since the orders of sums differ.
TOLERANCE = {"float32": 3e-6, "float16": 4e-3, "bfloat16": 3e-2, "float64": 1e-12}
#: Lowerings, and options that force them.
LOWERINGS: dict[str, dict[str, Any]] = {
    "function": {"lowering": "function"},
    "dense": {"lowering": "dense"},
    "tiles of all heads": {"lowering": "block-sparse", "block": (16, 8)},
    "tiles of one head": {"lowering": "block-sparse", "block": (16, 8), "kv_heads": 1},
    "chosen": {},
}


@functools.cache
def model_of(name: str, dtype: str) -> onnx.ModelProto:
    make, same = MODS[name]
    return flex.attention(
        (B, HEADS, LENGTH, SIZE),
        kv_shape=(B, KV_HEADS, LENGTH if same else KEYS, SIZE),
        v_size=V_SIZE,
        dtype=dtype,
        scale=SCALE,
        score_mod=make(),
    )


@functools.cache
def wanted(name: str, dtype: str) -> np.ndarray:
    model = model_of(name, dtype)
    feeds = tensors(model)
    with np.errstate(invalid="ignore"):
        ours = expected(model, feeds)
        if name in CAPTURED:
            return ours
        onnx_own = first_of(model, feeds)
    assert onnx_own.dtype == ours.dtype
    close(ours, onnx_own, dtype)
    return onnx_own


def first_of(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """The output of onnx's own evaluator."""
    (output,) = ReferenceEvaluator(model).run(None, feeds)
    assert isinstance(output, np.ndarray)
    return output


def close(got: np.ndarray, want: np.ndarray, dtype: str) -> None:
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(
        got.astype(np.float64), want.astype(np.float64), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", MODS)
def test_named_mod(name: str, dtype: str, lowering: str) -> None:
    model, options = model_of(name, dtype), LOWERINGS[lowering]
    if lowering == "function" and name in CAPTURED:
        with pytest.raises(FlexError, match="cannot capture"):
            flex.lower(model, CPU, options=flex.Options(**options))
        return
    result, _ = flex.lower(model, CPU, options=flex.Options(**options))
    onnx.checker.check_model(result, full_check=True)
    if lowering == "function" and dtype == "bfloat16":
        pytest.skip("the schema's body multiplies in bfloat16, which ONNX Runtime's CPU has no kernel for")
    close(run(result, tensors(model)), wanted(name, dtype), dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", ["causal-offset", "window"])
def test_queries_that_see_nothing_are_among_them(name: str, dtype: str) -> None:
    blind = np.isnan(wanted(name, dtype).astype(np.float64)).all(axis=(0, 1, 3))
    assert 0 < blind.sum() < LENGTH
    for lowering in ("dense", "tiles of all heads", "tiles of one head"):
        options = flex.Options(**LOWERINGS[lowering], masked_rows="zeros")
        result, _ = flex.lower(model_of(name, dtype), CPU, options=options)
        got = run(result, tensors(model_of(name, dtype)))
        assert (got[:, :, blind] == 0).all()
        close(got[:, :, ~blind], wanted(name, dtype)[:, :, ~blind], dtype)


@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_quantised_probabilities(dtype: str, lowering: str) -> None:
    model = flex.attention(
        (B, HEADS, LENGTH, SIZE),
        kv_shape=(B, KV_HEADS, KEYS, SIZE),
        v_size=V_SIZE,
        dtype=dtype,
        scale=SCALE,
        score_mod=flex.sliding_window(9),
        prob_mod=flex.quantize(64),
    )
    feeds = tensors(model)
    with np.errstate(invalid="ignore"):
        want = first_of(model, feeds)
    result, _ = flex.lower(model, CPU, options=flex.Options(**LOWERINGS[lowering]))
    close(run(result, feeds), want, dtype)
