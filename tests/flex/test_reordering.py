"""Masks over grids, lowered in another order of the positions."""

from typing import Literal

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, reject, settings
from hypothesis import strategies as st
from onnx import helper

from aotpack import flex
from aotpack.errors import FlexError
from aotpack.flex.emit import Emitter
from aotpack.flex.mask import block_mask
from aotpack.flex.reordering import Order, best_orders, reordered
from aotpack.flex.sparse import Tiling, write_block_sparse
from tests.flex.running import CPU, expected, run, tensors
from tests.flex.test_random_mods import mods

LENGTH, HEADS = 45, 2


def in_order(model: onnx.ModelProto, order: Order) -> onnx.ModelProto | None:
    """The model with its node written in an order; None if it cannot be."""
    (node,) = flex.read(model)
    known = flex.understand(node, 24, (15, 5), 5)
    if known.score_mod is None or known.why_dense is not None:
        return None
    score_mod = reordered(known.score_mod, order)
    if score_mod is None:
        return None
    mask = block_mask(score_mod, (15, 10), 5)
    tiling = Tiling(mask=mask, kv_heads=1, score_mod=score_mod, order=order)
    emitter = Emitter("attention/")
    write_block_sparse(node, emitter, CPU, flex.Options(), tiling)
    written = onnx.ModelProto()
    written.CopyFrom(model)
    del written.graph.node[:]
    written.graph.node.extend(emitter.nodes)
    written.graph.initializer.extend(emitter.initializers)
    del written.opset_import[:]
    written.opset_import.append(helper.make_opsetid("", 24))
    return written


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
@given(
    mod=mods(),
    grid=st.sampled_from([(3, 1), (9, 1), (9, 3), (15, 1), (15, 3), (15, 5)]),
    seed=st.integers(0, 99),
)
def test_any_mod_in_any_order(mod: flex.Mod, grid: tuple[int, int], seed: int) -> None:
    model = flex.attention((2, HEADS, LENGTH, 4), score_mod=mod)
    feeds = tensors(model, seed)
    # Those are for another number of keys.
    assume("ids" not in feeds)
    try:
        written = in_order(model, Order(length=LENGTH, width=grid[0], band=grid[1]))
    except FlexError:
        written = None
    if written is None:
        reject()
    onnx.checker.check_model(written)
    with np.errstate(all="ignore"):
        want = expected(model, feeds)
    np.testing.assert_allclose(run(written, feeds), want, rtol=2e-5, atol=2e-5)


def test_places_are_bands_of_columns() -> None:
    order = Order(length=12, width=4, band=2)
    assert order.places.tolist() == [0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11]
    assert order.places[order.inverse].tolist() == list(range(12))


@pytest.mark.parametrize(
    ("mod", "width"),
    [
        (flex.natten2d(7, 16, 64), 64),
        (flex.natten2d(7, 16, 64) & flex.softcap(2.0) & flex.alibi(4), 64),
        # Every eighth key: in the order of residues it is a plain window.
        (flex.dilated_window(32, 8), 8),
    ],
)
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_grids_are_found(mod: flex.Mod, width: int, kv_heads: int) -> None:
    model = flex.attention((1, 4, 1024, 16), kv_shape=(1, kv_heads, 1024, 16), score_mod=mod)
    natural, (before,) = flex.lower(model, CPU, options=flex.Options(lowering="block-sparse", block=(64, 16)))
    result, (record,) = flex.lower(model, CPU)
    onnx.checker.check_model(result, full_check=True)
    assert f"of a grid {width} wide" in record.why
    assert record.blocks_skipped > before.blocks_skipped + 0.1
    feeds = tensors(model)
    np.testing.assert_allclose(run(result, feeds), run(natural, feeds), rtol=3e-6, atol=3e-6)


def test_queries_that_see_nothing_in_another_order() -> None:
    # A mask of residues: the others would be skipped whole, were they side by side.
    mod = flex.dilated_window(32, 8) & flex.mask(lambda b, h, q, k: q % 8 > 1)
    model = flex.attention((1, 8, 1024, 4), score_mod=mod)
    feeds = tensors(model)
    with np.errstate(invalid="ignore"):
        want = expected(model, feeds)
    right: np.ndarray
    masked_rows: Literal["nan", "zeros"]
    for masked_rows, right in (("nan", want), ("zeros", np.nan_to_num(want))):
        result, (record,) = flex.lower(model, CPU, options=flex.Options(masked_rows=masked_rows))
        assert "column at a time of a grid" in record.why
        np.testing.assert_allclose(run(result, feeds), right, rtol=3e-6, atol=3e-6)


def test_masks_without_a_grid_keep_their_order() -> None:
    for mod in (flex.causal(), flex.sliding_window(100), flex.natten1d(65, 512)):
        _, (record,) = flex.lower(flex.attention((1, 2, 512, 16), score_mod=mod), flex.Capabilities())
        assert "grid" not in record.why


def test_captured_tables_are_looked_up_in_the_other_order() -> None:
    ids = flex.Capture(name="ids", dtype="int64", shape=(1, 1024))
    model = flex.attention(
        (1, 4, 1024, 16), score_mod=flex.natten2d(7, 16, 64) & flex.mask(lambda b, h, q, k: ids[b, k] != 1)
    )
    feeds = tensors(model)
    result, (record,) = flex.lower(model, CPU)
    assert "of a grid 64 wide" in record.why
    np.testing.assert_allclose(run(result, feeds), expected(model, feeds), rtol=3e-6, atol=3e-6)


def test_captured_data_of_the_shape_of_scores_keep_their_order() -> None:
    add = onnx.parser.parse_graph("add (float[B,H,L,S] x) => (float[B,H,L,S] y) { y = Add(x, bias) }")
    mod = flex.from_graph(add) & flex.natten2d(7, 16, 64)
    node, _ = flex.make_node(("Q", "K", "V"), "Y", score_mod=mod, name="attention")
    shapes = dict.fromkeys("QKVY", (1, 4, 1024, 16)) | {"bias": (1, 1, 1, 1024)}
    values = {
        name: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    }
    output = values.pop("Y")
    model = helper.make_model(
        helper.make_graph([node], "biased", list(values.values()), [output]),
        opset_imports=[helper.make_opsetid("", 24), helper.make_opsetid("ai.onnx.preview", 1)],
        ir_version=11,
    )
    (read,) = flex.read(model)
    known = flex.understand(read, 24)
    assert known.score_mod is not None
    assert best_orders(known.score_mod, 3) == []
    feeds = tensors(model)
    result, (record,) = flex.lower(model, CPU)
    assert (record.lowering, "grid" in record.why) == ("block-sparse", False)
    np.testing.assert_allclose(run(result, feeds), expected(model, feeds), rtol=3e-6, atol=3e-6)


def test_lengths_that_no_grid_fits() -> None:
    # 521 is prime.
    model = flex.attention((1, 2, 521, 16), score_mod=flex.dilated_window(8, 8))
    feeds = tensors(model)
    result, (record,) = flex.lower(model, CPU)
    assert "grid" not in record.why
    np.testing.assert_allclose(run(result, feeds), expected(model, feeds), rtol=3e-6, atol=3e-6)
