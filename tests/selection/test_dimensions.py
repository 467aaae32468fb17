"""Sizes that are expressions of others, as exporters write them into the names of dimensions."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aotpack.selection.dimensions import expression, is_anonymous, solve

SIZES = {"past": 4, "sequence": 16, "s0": 5, "s1": 224, "past_key.0": 7}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("past + sequence", 20),
        ("past+1", 5),
        ("2*s0", 10),
        ("s0 - 1", 4),
        ("floor(s1/2)", 112),
        ("((s1 - 1)//2) + 1", 112),
        ("ceiling(s0/2)", 3),
        ("Max(past, sequence)", 16),
        ("min(past, sequence, 3)", 3),
        ("Mod(s1, 3)", 2),
        ("s0**2", 25),
        ("-(-s0//2)", 3),
        ("FloorDiv(s1, 32)*32", 224),
        ("past_key.0 + 1", 8),
        ("sequence / 2", 8),
    ],
)
def test_values(text: str, value: int) -> None:
    found = expression(text)
    assert found is not None
    assert found.value(SIZES) == value


@pytest.mark.parametrize(
    "text",
    [
        "batch",
        "12",
        "?",
        "",
        "a b",
        "sequence length",
        "f(x",
        "cos(x)",
        "Max()",
        "x)",
        "a+",
        "+",
        "x;y",
        "é#",
    ],
)
def test_names_that_are_no_expressions(text: str) -> None:
    assert expression(text) is None


def test_no_whole_number() -> None:
    """An exporter's exact division that is not exact says nothing."""
    found = expression("s0 / 2")
    assert found is not None
    assert found.value(SIZES) is None


@pytest.mark.parametrize(
    "text",
    ["9**9**9*s0", "s0**s0**s0**s0", "s0 % 0", "1/(s0-5)", f"s0*{'9' * 19}*{'9' * 19}"],
)
def test_values_without_a_bound_are_not_computed(text: str) -> None:
    found = expression(text)
    assert found is not None
    assert found.value(SIZES) is None


@pytest.mark.parametrize("text", ["(" * 500 + "a" + ")" * 500, "-" * 900 + "a", "a+" * 2000 + "a", "f(" * 99])
def test_texts_that_are_deep_or_long_are_names(text: str) -> None:
    assert expression(text) is None


@given(st.text(alphabet="ab12+-*/%(), .:_", max_size=60))
def test_any_text_is_an_expression_or_a_name(text: str) -> None:
    found = expression(text)
    if found is not None:
        found.value({"a": 3, "b": 5})


@pytest.mark.parametrize(
    ("text", "value", "known", "solved"),
    [
        ("past + sequence", 20, {"sequence": 16}, ("past", 4)),
        ("2*s0 + 1", 9, {}, ("s0", 4)),
        ("10 - s0", 7, {}, ("s0", 3)),
        ("2*s0", 9, {}, ("s0", Fraction(9, 2))),
        ("past + sequence", 16, {"sequence": 16}, ("past", 0)),
        ("past + sequence", 15, {"sequence": 16}, ("past", -1)),
        ("s0//2", 9, {}, None),
        ("past + sequence", 20, {}, None),
        ("s0**2", 25, {}, None),
        ("s0 - s0", 3, {}, None),
    ],
)
def test_the_one_that_is_missing(text, value, known, solved) -> None:
    found = expression(text)
    assert found is not None
    assert solve(found, value, known) == solved


@pytest.mark.parametrize("name", ["?", "", "*", "-1", "None", "unknown", "UNK", "??"])
def test_anonymous(name: str) -> None:
    assert is_anonymous(name)


@pytest.mark.parametrize("name", ["N", "batch", "unk__12", "_", "dynamic_axis", "größe"])
def test_named(name: str) -> None:
    assert not is_anonymous(name)
