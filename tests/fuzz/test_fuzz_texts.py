"""Any build file and any profile is read or refused by an error of one line."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aotpack.builder.spec_file import read_build_file
from aotpack.builder.toml_places import parse_toml
from aotpack.errors import ProfileError, UsageError
from aotpack.machine.profile import find_machine, parse_profile

#: What TOML is made of, and things that are nearly so.
_PARTS = st.sampled_from(
    [
        *"[]{}=,.#\"'\\ \n_\0\x1b\ufeff\u202eab",
        *("[[", "]]", '"""', "'''", "\r\n", "\\u0041", "component", "target", "shapes", "name", "1", "-1"),
        *("1e9", "inf", "nan", "true", "0x1f", "1979-05-27", "07:32:00", '"x"', "'y'"),
        *('a = "b"\n', "x = [1, 2]\n", "[t]\n", "[[u]]\n", "y = { a.b = 1 }\n"),
    ]
)
_TOML = st.lists(_PARTS, max_size=40).map("".join)

_WHOLE = (
    'name = "p"\nversion = "1"\n[limits]\nseconds = 1\n[[component]]\nname = "main"\nmodel = "m.onnx"\n'
    'shapes = { x = [1, 2], y = 3 }\n[component.buckets]\nlong = { y = 5 }\n[[target]]\ntarget = "ort-cpu"\n'
)


@settings(deadline=None, max_examples=500)
@given(text=_TOML)
def test_reading_places_agrees_with_the_parser(text: str) -> None:
    """What the parser takes is read to its end, each key with a line; what it refuses is refused."""
    try:
        parsed = tomllib.loads(text.removeprefix("\ufeff"))
    except (tomllib.TOMLDecodeError, ValueError):
        with pytest.raises(UsageError) as caught:
            parse_toml(Path("x.toml"), text.encode())
        assert "\n" not in str(caught.value)
        return
    tables, places = parse_toml(Path("x.toml"), text.encode())
    # nan is not equal to itself.
    assert repr(tables) == repr(parsed)
    assert places.stopped_at is None

    def look(value: object, place: tuple[int | str, ...]) -> None:
        if place:
            assert ", line " in places.of(place)
        if isinstance(value, dict):
            for key, item in value.items():
                look(item, (*place, key))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                look(item, (*place, index))

    look(tables, ())


@settings(deadline=None, max_examples=200)
@given(start=st.integers(0, len(_WHOLE)), length=st.integers(0, 12), instead=_TOML)
def test_any_change_of_a_build_file_is_an_error_of_one_line_or_none(
    start: int, length: int, instead: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.toml"
    path.write_bytes((_WHOLE[:start] + instead + _WHOLE[start + length :]).encode())
    try:
        read_build_file(path)
    except UsageError as error:
        assert "\n" not in str(error)
        assert str(error).isprintable()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_any_change_of_a_profile_is_an_error_of_one_line_or_none(data: st.DataObject) -> None:
    profile = json.loads(find_machine("core-ultra-2").to_json())
    node = profile
    while True:
        key = data.draw(
            st.sampled_from(sorted(node)) if isinstance(node, dict) else st.integers(0, len(node) - 1)
        )
        if not isinstance(node[key], dict | list) or not node[key] or data.draw(st.booleans()):
            break
        node = node[key]
    node[key] = data.draw(_JSON)
    try:
        parse_profile(json.dumps(profile).encode(), where="me.json")
    except ProfileError as error:
        assert "\n" not in str(error)
        assert str(error).isprintable()


@given(text=st.binary(max_size=200))
def test_any_bytes_are_a_profile_or_an_error(text: bytes) -> None:
    try:
        parse_profile(text, where="me.json")
    except ProfileError as error:
        assert "\n" not in str(error)
