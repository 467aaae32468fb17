"""What counts as a difference, and that made-up inputs are the same everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aotpack.builder.models.numerics import Array, difference, seeded_inputs
from aotpack.errors import ModelError
from aotpack.manifest import TensorInfo

DTYPES = st.sampled_from(["float16", "float32", "float64", "int64", "uint8", "bool"])
ARRAYS = DTYPES.flatmap(lambda name: hnp.arrays(np.dtype(name), hnp.array_shapes(max_dims=3, max_side=4)))


@given(ARRAYS)
def test_nothing_differs_from_itself(array: Array) -> None:
    assert difference([array], [array.copy()]) == (0.0, 0.0)


@given(ARRAYS, st.data())
def test_a_difference_is_of_the_size_that_was_added(array: Array, data: Any) -> None:
    finite = np.nan_to_num(array.astype(np.float64), nan=0.0, posinf=1e6, neginf=-1e6).clip(-1e6, 1e6)
    added = data.draw(st.floats(1e-3, 1e3))
    changed = finite.copy()
    changed.flat[data.draw(st.integers(0, finite.size - 1))] += added
    max_abs, error = difference([changed], [finite])
    assert max_abs == pytest.approx(added, rel=1e-5)
    assert error == pytest.approx(max_abs / max(1.0, np.abs(finite).max()))


@given(ARRAYS, ARRAYS)
def test_any_two_outputs_compare_without_a_warning(ours: Array, theirs: Array) -> None:
    max_abs, error = difference([ours], [theirs])
    assert max_abs >= 0
    assert 0 <= error <= max_abs
    if ours.shape != theirs.shape:
        assert error == float("inf")


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
def test_a_strange_number_is_equal_to_itself_alone(strange: float) -> None:
    one, other = np.array([strange, 1.0]), np.array([2.0, 1.0])
    assert difference([one], [one]) == (0.0, 0.0)
    assert difference([one], [other])[1] == float("inf")
    assert difference([other], [one])[1] == float("inf")


def test_another_number_of_outputs_is_no_match() -> None:
    assert difference([np.zeros(1)], []) == (float("inf"), float("inf"))


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.one_of(st.none(), st.text(max_size=3), st.integers(1, 5)), max_size=3),
    DTYPES,
)
def test_made_up_inputs_are_the_same_for_the_same_seed(seed: int, shape: list[Any], dtype: str) -> None:
    info = TensorInfo(name="x", dtype=dtype, shape=tuple(shape))
    one, other = (seeded_inputs([info], seed=seed)["x"] for _ in range(2))
    assert one.dtype == dtype
    assert one.shape == tuple(size if isinstance(size, int) else 1 for size in shape)
    assert np.array_equal(one, other)


def test_inputs_are_drawn_alike_on_every_machine() -> None:
    drawn = seeded_inputs([TensorInfo(name="x", dtype="float32", shape=(3,))])["x"]
    # numpy promises the stream of PCG64 for good (NEP 19).
    assert drawn == pytest.approx([0.12573022, -0.13210486, 0.64042264])


def test_integers_stay_below_what_they_may_index() -> None:
    info = TensorInfo(name="x", dtype="int64", shape=(1000,))
    assert seeded_inputs([info], highest_integer=2)["x"].max() == 1


@pytest.mark.parametrize("dtype", ["string", "object", "complex64", "float8e4m3fn"])
def test_an_input_that_nobody_can_make_up_is_named(dtype: str) -> None:
    with pytest.raises(ModelError, match=r"input 'x': inputs of type \w+ cannot be made up"):
        seeded_inputs([TensorInfo(name="x", dtype=dtype, shape=(1,))])
