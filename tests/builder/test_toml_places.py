"""Where a key of a build file stands."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aotpack.builder.toml_places import TomlPlaces

TEXT = """\
# name = "not this one"
name = "x"
limits.seconds = 3

[[component]]
name = "a"

[[ component ]]
"name" = "b" # name
shapes = { input = [1, 2], "name" = 3 }

[component.buckets]
short = { length = 1 }

[[target]]
target = "t"

[[target]]
target = "u"
[target.options]
one = "1"
"""


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("name",), 2),
        (("limits",), 3),
        (("component",), 5),
        (("component", 0, "name"), 6),
        (("component", 1, "name"), 9),
        (("component", 1, "shapes", "input"), 10),
        (("component", 1, "buckets", "short"), 13),
        (("target", 0, "target"), 16),
        (("target", 1, "target"), 19),
        (("target", 1, "options", "one"), 21),
        # What is not there is missed where its table begins.
        (("target", 0, "components"), 15),
        (("target", 7, "target"), None),
        (("licence",), None),
    ],
)
def test_the_line_of_a_key(place: tuple[str | int, ...], line: int | None) -> None:
    told = TomlPlaces(Path("a.toml"), TEXT).of(place)
    dotted = ".".join(map(str, place)).replace(".0", "[0]").replace(".1", "[1]").replace(".7", "[7]")
    assert told == (f"a.toml, line {line}, {dotted}" if line else f"a.toml, {dotted}")


@given(st.text(), st.lists(st.text() | st.integers(0, 3), max_size=4))
def test_any_text_has_places(text: str, place: list[str | int]) -> None:
    assert TomlPlaces(Path("a.toml"), text).of(place).startswith("a.toml")
