"""Shapes that a user gives, bound to what a model leaves open."""

from typing import Any

import numpy as np
import pytest

from aotpack.errors import ShapeError, UnknownName, UsageError
from aotpack.manifest.values import TensorInfo
from aotpack.selection.shapes import bind, checked_shapes, shape_text, takes


def inputs(**shapes):
    return [TensorInfo(name=name, dtype="float32", shape=shape) for name, shape in shapes.items()]


DECODER = inputs(
    ids=("batch", "sequence"),
    mask=("batch", "past + sequence"),
    past=("batch", 4, "past", 64),
)


def test_a_size_follows_from_others() -> None:
    bound = bind(DECODER, {"batch": (1,), "sequence": (16,), "past": (1, 4, 8, 64)})
    assert bound.shapes == {"ids": (1, 16), "mask": (1, 24), "past": (1, 4, 8, 64)}


def test_the_size_that_is_missing_is_worked_out() -> None:
    bound = bind(DECODER, {"ids": (1, 16), "mask": (1, 24)})
    assert bound.shapes["past"] == (1, 4, 8, 64)
    assert bound.size("past + 2*sequence") == 40


def test_what_does_not_follow_stays_open() -> None:
    bound = bind(DECODER, {"sequence": (16,)})
    assert bound.shapes["mask"] == ("batch", "past + sequence")
    assert bound.size("past + sequence") is None


def test_a_dimension_that_only_an_expression_has() -> None:
    bound = bind(inputs(x=("2*half",)), {"half": (3,)})
    assert bound.shapes["x"] == (6,)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"ids": (1, 16), "mask": (1, 20), "past": (1, 4, 8, 64)}, "makes 'past + sequence' 20"),
        ({"ids": (1, 16), "mask": (2, 20)}, "makes 'batch' both 1 and 2"),
        ({"past": (1, 5, 8, 64)}, "sets a size of 4 to 5"),
        ({"ids": (1,)}, "has 1 sizes; expected 2"),
        ({"batch": (1, 2)}, "is one dimension"),
        ({"sequence": (16,), "mask": (1, 12)}, "with the other sizes no 'past' gives that"),
    ],
)
def test_contradictions(shapes, words) -> None:
    with pytest.raises(ShapeError, match=words.replace("+", r"\+")):
        bind(DECODER, shapes)


def test_a_name_of_an_input_and_a_dimension_means_what_fits() -> None:
    bound = bind(DECODER, {"past": (8,), "sequence": (16,)})
    assert bound.shapes == {"ids": ("batch", 16), "mask": ("batch", 24), "past": ("batch", 4, 8, 64)}
    with pytest.raises(ShapeError, match="expected 4, the rank of the input"):
        bind(DECODER, {"past": (8, 1)})


def test_a_size_of_0_that_follows_stays_open() -> None:
    """A cache that is empty at first."""
    assert bind(DECODER, {"sequence": (16,), "mask": (1, 16)}).shapes["past"] == (1, 4, "past", 64)


def test_axes_without_a_name_are_bound_each_by_itself() -> None:
    bound = bind(inputs(x=(None, 3, None, None), y=(None, 10)), {"x": (1, 3, 32, 48)})
    assert bound.shapes == {"x": (1, 3, 32, 48), "y": (None, 10)}


def test_unknown_names() -> None:
    with pytest.raises(UnknownName, match="did you mean sequence"):
        bind(DECODER, {"sequnce": (3,)})


def test_numpy_integers() -> None:
    given: dict[str, Any] = {
        "x": (np.int64(1), np.int32(3)),
        "n": np.int64(5),
        "y": np.zeros((2, 7)).shape,
        "z": np.array([4, 5]),
    }
    checked = checked_shapes(given)
    assert checked == {"x": (1, 3), "n": (5,), "y": (2, 7), "z": (4, 5)}
    assert all(type(size) is int for shape in checked.values() for size in shape)


@pytest.mark.parametrize("given", [0, -1, (1, 0), (1, -1, 8), [np.int64(-1)]])
def test_sizes_below_one(given) -> None:
    with pytest.raises(ShapeError, match=r"shape x: has a size of (0|-1); expected sizes of 1 and more"):
        checked_shapes({"x": given})


@pytest.mark.parametrize("given", [1.5, "1,2", b"12", (1, "2"), None, True, (True, 3), (1.0,), ({},)])
def test_what_is_no_shape(given) -> None:
    with pytest.raises(UsageError, match="shape x: is no shape"):
        checked_shapes({"x": given})


@pytest.mark.parametrize("given", [[("x", (1, 2))], "x=1,2", (1, 2), 3])
def test_what_is_no_dict(given) -> None:
    with pytest.raises(UsageError, match=r"^shapes: is no dict of shapes; found"):
        checked_shapes(given)


def test_texts() -> None:
    assert shape_text((1, 576)) == "1x576"
    assert shape_text((None, 3)) == "?x3"
    assert shape_text(("batch", None, 3)) == "[batch, ?, 3]"
    assert shape_text(()) == "scalar"
    assert shape_text(None) == "any shape"


def test_what_can_be_fed() -> None:
    assert takes(inputs(x=("n", 3)), inputs(x=(5, 3)))
    assert takes(inputs(x=None), inputs(x=(5, 3)))
    assert not takes(inputs(x=(4, 3)), inputs(x=(5, 3)))
    assert not takes(inputs(x=(4,)), inputs(x=(4, 3)))
