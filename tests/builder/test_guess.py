"""Open sizes and choosing inputs: a build file has what a model runs with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from aotpack.builder.guess import Guess, guess_inputs
from aotpack.builder.jobs.supervise import Workers
from aotpack.builder.spec import Limits

Shape = list[int | str | None]


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers() as started:
        yield started


def guessed(folder: Path, workers: Workers, model: onnx.ModelProto) -> Guess:
    onnx.save(model, folder / "m.onnx")
    (folder / "scratch").mkdir()
    return guess_inputs(folder / "m.onnx", folder / "scratch", workers)


def value(name: str, shape: Shape | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], **weights: object
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, [value("y", None)], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def filters(width: int, *shape: int | str | None) -> onnx.ModelProto:
    """A filter over the last axis of an input that takes `width` values at once."""
    weights = np.ones((1, 1, width), np.float32)
    return model([helper.make_node("Conv", ["x", "w"], ["y"])], [value("x", list(shape))], w=weights)


@pytest.mark.parametrize(
    ("made", "shapes"),
    [
        (filters(3, 1, 1, 8), {}),
        (filters(1, "batch", 1, "n"), {"batch": (1,), "n": (1,)}),
        # At first with 16, then with twice as many.
        (filters(9, "batch", 1, "n"), {"batch": (1,), "n": (32,)}),
        (filters(9, None, 1, None), {"x": (1, 1, 32)}),
        # There is no larger one to try.
        (filters(1000, 1, 1, "n"), {"n": (2048,)}),
    ],
)
def test_a_size_is_one_or_what_it_runs_with(
    tmp_path: Path, workers: Workers, made: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]
) -> None:
    assert guessed(tmp_path, workers, made) == Guess(shapes=shapes, constants={}, runs=True)


def test_sizes_are_those_that_people_use(tmp_path: Path, workers: Workers) -> None:
    """An image that has to be 48 high, as those of PP-OCR; nothing says so."""
    made = model(
        [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Reshape", ["c", "rows"], ["y"])],
        [value("x", ["batch", 3, "a", "b"])],
        w=np.ones((1, 3, 48, 1), np.float32),
        rows=np.array([1, 1, 320], np.int64),
    )
    guess = guessed(tmp_path, workers, made)
    assert guess == Guess(shapes={"batch": (1,), "a": (48,), "b": (320,)}, constants={}, runs=True)
    assert guess.why == (
        "a = 48: pixels, a guess",
        "b = 320: pixels, a guess",
        "batch = 1: one at a time",
    )


def test_what_follows_from_others_is_left_to_them(tmp_path: Path, workers: Workers) -> None:
    nodes = [helper.make_node("Concat", ["past", "x"], ["all"], axis=1)]
    nodes.append(helper.make_node("Add", ["all", "mask"], ["y"]))
    inputs = [value("past", [1, "cache"]), value("x", [1, "seq"]), value("mask", [1, "cache + seq"])]
    guess = guessed(tmp_path, workers, model(nodes, inputs))
    assert guess == Guess(shapes={"cache": (128,), "seq": (128,)}, constants={}, runs=True)


def test_one_dimension_is_large_where_another_must_not_be(tmp_path: Path, workers: Workers) -> None:
    """Such as the window and the batch of a state that stands on an axis of its own."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["filtered"]),
        helper.make_node("ReduceMax", ["filtered"], ["loudest"], keepdims=0),
        helper.make_node("Reshape", ["state", "two"], ["kept"]),
        helper.make_node("Add", ["kept", "loudest"], ["y"]),
    ]
    inputs = [value("x", [1, 1, None]), value("state", [2, None])]
    made = model(nodes, inputs, w=np.ones((1, 1, 9), np.float32), two=np.array([2], np.int64))
    guess = guessed(tmp_path, workers, made)
    assert guess == Guess(shapes={"x": (1, 1, 32), "state": (2, 1)}, constants={}, runs=True)


def test_what_runs_with_nothing_that_was_tried_is_said_so(tmp_path: Path, workers: Workers) -> None:
    guess = guessed(tmp_path, workers, filters(5000, 1, 1, "n"))
    assert guess == Guess(shapes={"n": (1,)}, constants={}, runs=False)


@pytest.mark.parametrize("turned", [False, True])
def test_an_input_that_chooses_a_network_chooses_the_first(
    tmp_path: Path, workers: Workers, turned: bool
) -> None:
    def branch(factor: float) -> onnx.GraphProto:
        tensor = numpy_helper.from_array(np.array(factor, np.float32), "factor")
        nodes = [helper.make_node("Mul", ["x", "factor"], ["out"])]
        return helper.make_graph(nodes, "branch", [], [value("out", None)], [tensor])

    compared = ["rate", "wide"][:: -1 if turned else 1]
    nodes = [
        helper.make_node("Equal", compared, ["is_wide"]),
        helper.make_node("If", ["is_wide"], ["y"], then_branch=branch(2), else_branch=branch(3)),
    ]
    inputs = [value("x", [1, 4]), value("rate", [], TensorProto.INT64), value("other", [], TensorProto.INT64)]
    made = model(nodes, inputs, wide=np.array(16000, np.int64))
    assert guessed(tmp_path, workers, made) == Guess(shapes={}, constants={"rate": 16000}, runs=True)


def test_a_model_that_eats_memory_is_a_guess_that_does_not_run(workers: Workers, tmp_path: Path) -> None:
    """It has 240 bytes and makes a tensor of 18 GB; an attempt ends at its limit."""
    eats = model(
        [
            helper.make_node("ConstantOfShape", ["size"], ["much"]),
            helper.make_node("ReduceMax", ["much"], ["most"], keepdims=1),
            helper.make_node("Add", ["x", "most"], ["y"]),
        ],
        [value("x", ["n"])],
        size=np.array([4_500_000_000]),
    )
    onnx.save(eats, tmp_path / "m.onnx")
    (tmp_path / "scratch").mkdir()
    limits = Limits(seconds=60, memory=500 * 1024**2)
    guess = guess_inputs(tmp_path / "m.onnx", tmp_path / "scratch", workers, limits)
    assert not guess.runs
