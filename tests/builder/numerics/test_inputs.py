"""Inputs that fit a model: by types, shapes and names of its inputs, and by what its graph says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from aotpack.builder.numerics.hints import hints_of
from aotpack.builder.numerics.inputs import WAYS, Hint, Way, dtype_of_ort, find_inputs, made_inputs
from aotpack.errors import ModelError
from aotpack.manifest.values import TensorInfo
from tests.builder.numerics.models import info, model, weights

DTYPES = st.sampled_from(["float16", "float32", "float64", "int64", "uint8", "bool"])


def one(name: str, dtype: str, *shape: int | str | None, **settings: Any) -> Any:
    return made_inputs([TensorInfo(name=name, dtype=dtype, shape=shape)], **settings)[name]


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.one_of(st.none(), st.text(max_size=3), st.integers(1, 5)), max_size=3),
    DTYPES,
    st.sampled_from(WAYS),
)
def test_they_are_the_same_for_the_same_seed(seed: int, shape: list[Any], dtype: str, way: Way) -> None:
    first, second = (one("x", dtype, *shape, seed=seed, way=way) for _ in range(2))
    assert first.dtype == dtype
    assert all(
        size == wanted for size, wanted in zip(first.shape, shape, strict=True) if isinstance(wanted, int)
    )
    assert np.array_equal(first, second)


def test_they_are_drawn_alike_on_every_machine() -> None:
    # numpy promises the stream of PCG64 for good (NEP 19).
    assert one("x", "float32", 3) == pytest.approx([0.12573022, -0.13210486, 0.64042264])


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "low", "high"),
    [
        ("attention_mask", "int64", (2, 8), 1, 1),
        ("attention_mask", "bool", (2, 8), 1, 1),
        ("attention_mask", "float32", (1, 1, 8, 8), 0, 0),
        ("token_type_ids", "int64", (1, 64), 0, 1),
        ("position_ids", "int64", (1, 8), 0, 7),
        ("sr", "int64", (), 16000, 16000),
        ("image", "float32", (1, 3, 16, 16), 0, 1),
        ("image", "float32", (1, 16, 16, 3), 0, 1),
        ("image", "uint8", (1, 16, 16, 3), 0, 255),
        ("waveform", "float32", (1, 800), -1, 1),
        ("iou_threshold", "float32", (), 0.5, 0.5),
        ("some_mask", "int64", (1, 100), 0, 1),
        ("input_ids", "int64", (1, 100), 0, 255),
        ("use_cache_branch", "bool", (1,), 0, 0),
        ("scales", "float32", (3,), 0.6, 1),
    ],
)
def test_names_of_the_ecosystem_mean_what_they_mean_there(
    name: str, dtype: str, shape: tuple[int, ...], low: float, high: float
) -> None:
    drawn = one(name, dtype, *shape)
    assert drawn.shape == shape
    assert low <= drawn.min()
    assert drawn.max() <= high


def test_lengths_are_those_of_the_inputs_that_they_are_of() -> None:
    made = made_inputs(
        [
            TensorInfo(name="x", dtype="float32", shape=(1, 80, 50)),
            TensorInfo(name="x_lengths", dtype="int64", shape=(1,)),
            TensorInfo(name="total_sequence_length", dtype="int64", shape=()),
            TensorInfo(name="tokens", dtype="int64", shape=(1, 12)),
        ]
    )
    assert made["x_lengths"] == [80] or made["x_lengths"] == [50]
    assert made["total_sequence_length"] == 12


def test_open_sizes_follow_their_names_and_each_other() -> None:
    made = made_inputs(
        [
            TensorInfo(name="input_ids", dtype="int64", shape=("batch", "sequence_length")),
            TensorInfo(name="attention_mask", dtype="int64", shape=("batch", "past + sequence_length")),
            TensorInfo(name="past_key_values.0.key", dtype="float32", shape=("batch", 2, "past", 8)),
            TensorInfo(name="pixels", dtype="float32", shape=(1, 3, "height", "width")),
        ]
    )
    assert made["input_ids"].shape == (1, 16)
    assert made["attention_mask"].shape == (1, 16)
    assert made["past_key_values.0.key"].shape == (1, 2, 0, 8)
    assert made["pixels"].shape == (1, 3, 64, 64)


def test_sizes_of_given_inputs_are_those_of_the_others() -> None:
    infos = [
        TensorInfo(name="ids", dtype="int64", shape=(1, "length")),
        TensorInfo(name="mask", dtype="int64", shape=(1, "length")),
    ]
    made = made_inputs(infos, given={"ids": np.zeros((1, 5), np.int64)})
    assert made.keys() == {"mask"}
    assert made["mask"].shape == (1, 5)


def test_what_is_no_tensor_is_made_too() -> None:
    parts = one("parts", "seq(tensor(float))", 1, 4)
    assert [part.shape for part in parts] == [(1, 4), (1, 4)]
    assert one("maybe", "optional(tensor(int64))", 3).dtype == np.int64
    numbers = one("counts", "map(int64,tensor(float))")
    assert isinstance(numbers, dict)
    assert all(isinstance(key, int) and isinstance(value, float) for key, value in numbers.items())
    (word,) = one("counts", "map(string,tensor(float))", hints={"counts": Hint(keys=("word",))})
    assert word == "word"
    words = one("text", "string", 2)
    assert words.dtype == object
    assert all(isinstance(word, str) for word in words)


@pytest.mark.parametrize("dtype", ["complex64", "float8e4m3fn", "map(int64,tensor(string))"])
def test_an_input_that_nobody_can_make_up_is_named(dtype: str) -> None:
    with pytest.raises(ModelError, match=r"input 'x': inputs of type .* cannot be made up"):
        one("x", dtype, 1)


def test_types_are_named_as_numpy_names_them() -> None:
    found = [dtype_of_ort(f"tensor({name})") for name in ("float", "double", "int64", "string")]
    assert found == ["float32", "float64", "int64", "string"]
    assert dtype_of_ort("seq(tensor(float))") == "seq(tensor(float))"


# What a graph says ------------------------------------------------------------------------------------------


def embedding(rows: int, *, between: str | None = None, nested: bool = False) -> onnx.ModelProto:
    ids = "ids"
    nodes = []
    if between is not None:
        attributes: dict[str, Any] = {"to": TensorProto.INT32} if between == "Cast" else {}
        nodes.append(helper.make_node(between, ["ids"], ["moved"], **attributes))
        ids = "moved"
    gather = helper.make_node("Gather", ["table", ids], ["y"])
    if nested:
        branch = helper.make_graph(
            [helper.make_node("Gather", ["table", ids], ["inner"])], "b", [], [info("inner", [1, 4, 8])]
        )
        gather = helper.make_node("If", ["always"], ["y"], then_branch=branch, else_branch=branch)
    constants = [weights("table", rows, 8), numpy_helper.from_array(np.array(True), "always")]
    return model(
        [*nodes, gather], [info("ids", [1, 4], TensorProto.INT64)], [info("y", [1, 4, 8])], constants
    )


@pytest.mark.parametrize(
    "settings", [{}, {"between": "Cast"}, {"between": "Identity"}, {"nested": True}], ids=str
)
def test_ids_are_below_the_vocabulary_that_they_index(settings: Mapping[str, Any]) -> None:
    hints = hints_of(embedding(7, **settings))
    assert hints == {"ids": Hint(below=7)}
    assert one("ids", "int64", 1, 1000, hints=hints).max() == 6


def test_what_an_input_is_compared_with_is_what_it_is() -> None:
    nodes = [helper.make_node("Equal", ["rate", "k"], ["y"])]
    made = model(
        nodes,
        [info("rate", [], TensorProto.INT64)],
        [info("y", [], TensorProto.BOOL)],
        [numpy_helper.from_array(np.array(8000), "k")],
    )
    hints = hints_of(made)
    assert hints == {"rate": Hint(choices=(8000,))}
    assert one("rate", "int64", hints=hints) == 8000


# Which way is taken -----------------------------------------------------------------------------------------


def test_a_way_is_taken_on_which_the_model_runs() -> None:
    def run(feeds: Mapping[str, Any]) -> list[Any]:
        if feeds["ids"].max() > 1:
            raise ValueError("out of bounds")
        return [feeds["ids"] * 1.0]

    found = find_inputs(run, [TensorInfo(name="ids", dtype="int64", shape=(1, 50))])
    assert found.way.below == 2
    assert found.finite


def test_a_way_is_taken_on_which_all_numbers_are_finite() -> None:
    with np.errstate(all="ignore"):
        found = find_inputs(
            lambda feeds: [np.log(feeds["x"])], [TensorInfo(name="x", dtype="float32", shape=(9,))]
        )
    assert found.finite
    assert found.way.floats == "unit"


def test_where_there_is_none_the_first_refusal_is_told() -> None:
    def run(feeds: Mapping[str, Any]) -> list[Any]:
        raise ValueError(f"no {feeds['x'].max():.3f}")

    with pytest.raises(ModelError, match=r"refuses the inputs that were made up for it: no 0\.6"):
        find_inputs(run, [TensorInfo(name="x", dtype="float32", shape=(3,))])
