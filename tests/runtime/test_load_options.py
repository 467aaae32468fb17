"""The options of loading are said once, and seen by editors, type checkers and `help` all the same."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable

import pytest

import aotpack
from aotpack import Package
from aotpack.errors import UsageError
from aotpack.runtime.load_options import LoadKeywords, LoadOptions, SelectKeywords, SelectOptions


@pytest.mark.parametrize(
    ("options", "keywords"), [(SelectOptions, SelectKeywords), (LoadOptions, LoadKeywords)]
)
def test_what_type_checkers_see_is_what_is_taken(options: type[SelectOptions], keywords: type) -> None:
    taken = {field.name: field.type for field in dataclasses.fields(options)}
    seen = {name: each.__forward_arg__ for name, each in keywords.__annotations__.items()}
    assert list(seen) == list(taken)
    assert seen == taken


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (aotpack.select, SelectOptions),
        (aotpack.load, LoadOptions),
        (Package.select, SelectOptions),
        (Package.load, LoadOptions),
        (Package.load_first, LoadOptions),
    ],
)
def test_a_signature_names_each_option(function: Callable[..., object], options: type[SelectOptions]) -> None:
    parameters = inspect.signature(function).parameters
    for field in dataclasses.fields(options):
        assert parameters[field.name].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[field.name].default == field.default
    assert not [each for each in parameters.values() if each.kind is inspect.Parameter.VAR_KEYWORD]


def test_an_option_that_there_is_not_is_an_error_before_anything_is_done() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'on_mis'"):
        aotpack.load("no-such-file", on_mis="error")  # type: ignore[call-arg]


@pytest.mark.parametrize("wrong", [{"policy": {"variant": "ort-cpu"}}, {"policy": "cpu"}, {"on_event": 3}])
def test_an_option_of_another_type_is_an_error_before_anything_is_done(wrong: dict[str, object]) -> None:
    (name,) = wrong
    with pytest.raises(UsageError, match=f"^{name}: has the wrong type"):
        aotpack.load("no-such-file", **wrong)  # type: ignore[arg-type]
