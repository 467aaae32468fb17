"""Mods that nobody thought of: random graphs, all of whose lowerings must agree."""

import dataclasses
from typing import Literal

import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aotpack import flex
from aotpack.errors import FlexError
from aotpack.flex.capabilities import Lowering
from tests.flex.running import CPU, expected, run, tensors

LENGTH, KEYS, HEADS = 45, 38, 2
#: Where nodes cost nothing masks are written in place wherever they can be.
IN_PLACE = dataclasses.replace(CPU, node_cost=0)


@st.composite
def positions(draw: st.DrawFn, depth: int = 2):
    """An integer function of b, h, q and k."""
    kind = draw(
        st.sampled_from(
            ["q", "k", "h", "b", "difference", "number"] if depth == 0 else ["deeper", "difference", "lookup"]
        )
    )
    if kind == "difference":
        return lambda b, h, q, k: q - k
    if kind == "number":
        number = draw(st.integers(-9, 40))
        return lambda b, h, q, k: q * 0 + number
    if kind == "lookup":
        table = flex.Table(
            np.array(draw(st.lists(st.integers(0, 3), min_size=LENGTH, max_size=LENGTH)), np.int64)
        )
        return lambda b, h, q, k: table[q]
    if kind == "deeper":
        first, second = draw(positions(depth=depth - 1)), draw(positions(depth=depth - 1))
        op = draw(st.sampled_from(["+", "-", "*", "min", "max", "//", "%"]))
        number = draw(st.integers(1, 7))
        return {
            "+": lambda *at: first(*at) + second(*at),
            "-": lambda *at: first(*at) - second(*at),
            "*": lambda *at: first(*at) * number,
            "min": lambda *at: flex.minimum(first(*at), second(*at)),
            "max": lambda *at: flex.maximum(first(*at), second(*at)),
            "//": lambda *at: abs(first(*at)) // number,
            "%": lambda *at: abs(first(*at)) % number,
        }[op]
    return {
        "q": lambda b, h, q, k: q,
        "k": lambda b, h, q, k: k,
        "h": lambda b, h, q, k: h,
        "b": lambda b, h, q, k: b,
    }[kind]


@st.composite
def conditions(draw: st.DrawFn, depth: int = 2):
    """A boolean function of b, h, q and k."""
    if depth and draw(st.booleans()):
        first, second = draw(conditions(depth=depth - 1)), draw(conditions(depth=depth - 1))
        op = draw(st.sampled_from(["and", "or", "not"]))
        return {
            "and": lambda *at: first(*at) & second(*at),
            "or": lambda *at: first(*at) | second(*at),
            "not": lambda *at: ~first(*at),
        }[op]
    if draw(st.integers(0, 5)) == 0:
        ids = flex.Capture(name="ids", dtype="int64", shape=(KEYS,))
        return lambda b, h, q, k: ids[k] != 1
    first, second = draw(positions()), draw(positions())
    op = draw(st.sampled_from(["<", "<=", ">", ">=", "=="]))
    return {
        "<": lambda *at: first(*at) < second(*at),
        "<=": lambda *at: first(*at) <= second(*at),
        ">": lambda *at: first(*at) > second(*at),
        ">=": lambda *at: first(*at) >= second(*at),
        "==": lambda *at: first(*at) == second(*at),
    }[op]


@st.composite
def changes(draw: st.DrawFn):
    """A function of a score and its place."""
    kind = draw(st.sampled_from(["cap", "bias", "choose", "scale", "mask", "captured"]))
    number = draw(st.floats(0.25, 4.0, width=16))
    place, condition = draw(positions()), draw(conditions())
    weights = flex.Capture(name="weights", dtype="float32", shape=(HEADS,))
    return {
        "cap": lambda s, *at: (s * (1.0 / number)).tanh() * number,
        "bias": lambda s, *at: s + place(*at).like(s) * 0.125,
        "choose": lambda s, *at: flex.where(condition(*at), s * number, s - number),
        "scale": lambda s, *at: s * number,
        "mask": lambda s, *at: flex.where(condition(*at), float("-inf"), s),
        "captured": lambda s, b, h, q, k: s + weights[h],
    }[kind]


@st.composite
def mods(draw: st.DrawFn) -> flex.Mod:
    mod = flex.mod(lambda s, *at: s, "identity")
    for change in draw(st.lists(changes(), max_size=3)):
        mod = mod & flex.mod(change, "change")
    for condition in draw(st.lists(conditions(), max_size=2)):
        mod = mod & flex.mask(condition, "condition")
    return mod


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    mod=mods(),
    kv_heads=st.sampled_from([1, 2]),
    tile_heads=st.sampled_from([1, None]),
    zeros=st.booleans(),
    seed=st.integers(0, 99),
    target=st.sampled_from([CPU, IN_PLACE]),
)
def test_all_lowerings_agree(
    mod: flex.Mod,
    kv_heads: int,
    tile_heads: int | None,
    zeros: bool,
    seed: int,
    target: flex.Capabilities,
) -> None:
    model = flex.attention((2, HEADS, LENGTH, 4), kv_shape=(2, kv_heads, KEYS, 4), score_mod=mod)
    feeds = tensors(model, seed)
    with np.errstate(all="ignore"):
        want = expected(model, feeds)
    masked_rows: Literal["nan", "zeros"]
    lowering: Lowering
    for lowering in ("function", "dense", "block-sparse"):
        masked_rows = "zeros" if zeros and lowering != "function" else "nan"
        options = flex.Options(lowering=lowering, masked_rows=masked_rows, block=(16, 8), kv_heads=tile_heads)
        try:
            result, _ = flex.lower(model, target, options=options)
        except FlexError as error:
            assert "masks every key" in str(error) or "cannot capture" in str(error), error
            continue
        onnx.checker.check_model(result)
        right = np.where(np.isnan(want), 0, want) if masked_rows == "zeros" else want
        np.testing.assert_allclose(run(result, feeds), right, rtol=2e-5, atol=2e-5, err_msg=lowering)


@settings(max_examples=40, deadline=None)
@given(
    ahead=st.integers(-40, 100),
    behind=st.integers(1, 140),
    first=st.integers(0, 40),
    cap=st.sampled_from([None, 2.0]),
    block=st.sampled_from([(16, 16), (32, 16), (48, 32)]),
    kv_heads=st.sampled_from([1, 2]),
    zeros=st.booleans(),
)
def test_bands_agree_whose_edges_are_gathered_next_to_each_other(
    ahead: int, behind: int, first: int, cap: float | None, block: tuple[int, int], kv_heads: int, zeros: bool
) -> None:
    band = flex.mask(lambda b, h, q, k: (k - q <= ahead) & (q - k < behind + h * 3))
    mod: flex.Mod = band | flex.first_keys(first)
    if cap is not None:
        mod = mod & flex.softcap(cap)
    model = flex.attention((2, HEADS, 96, 4), kv_shape=(2, kv_heads, 160, 4), score_mod=mod)
    feeds = tensors(model)
    with np.errstate(all="ignore"):
        want = expected(model, feeds)
    options = flex.Options(
        lowering="block-sparse", block=block, kv_heads=1, masked_rows="zeros" if zeros else "nan"
    )
    try:
        result, _ = flex.lower(model, IN_PLACE, options=options)
    except FlexError as error:
        assert "masks every key" in str(error), error
        return
    onnx.checker.check_model(result)
    right = np.where(np.isnan(want), 0, want) if zeros else want
    np.testing.assert_allclose(run(result, feeds), right, rtol=2e-5, atol=2e-5)
