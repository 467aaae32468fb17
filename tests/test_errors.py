"""The error tree: one root, one line each, an exit status, and the picture in the docstring."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aotpack import errors
from aotpack.builder.report import BuildReport
from aotpack.errors import AotpackError, BuildFailed, BuildStopped, NothingToLoad, UnknownName, UsageError
from aotpack.runtime.events import Refusal
from aotpack.selection.verdict import Code

CLASSES = {name: getattr(errors, name) for name in errors.__all__}


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn: dict[str, str] = {}
    above: list[str] = []
    for line in inspect.getdoc(errors).splitlines():  # type: ignore[union-attr]
        match = re.match(r"    ([│├└─ ]*)([A-Z]\w+)", line)
        if match is None:
            continue
        depth = len(match[1]) // 4
        above[depth:] = [match[2]]
        drawn[match[2]] = above[depth - 1] if depth else ""
    assert drawn.pop("AotpackError") == ""
    assert drawn == {
        name: next(base.__name__ for base in cls.__mro__[1:] if issubclass(base, AotpackError))
        for name, cls in CLASSES.items()
        if cls is not AotpackError
    }


def test_usage_errors_have_exit_status_2_and_all_others_1() -> None:
    for cls in CLASSES.values():
        assert cls.exit_status == (2 if issubclass(cls, UsageError) else 1)


def test_an_error_says_where_what_and_what_next() -> None:
    error = AotpackError("is wrong", where="here", found=1, expected=2, hint="change it")
    assert str(error) == "here: is wrong; found 1; expected 2 (change it)"


@given(st.text(), st.text(), st.text())
def test_an_error_is_one_line_whatever_a_vendor_says(what: str, where: str, found: str) -> None:
    assert len(str(AotpackError(what, where=where, found=found)).splitlines()) <= 1


def test_an_unknown_name_quotes_the_nearest_or_all_of_a_few() -> None:
    assert (
        str(UnknownName("thing", "alpah", ["alpha", "beta"])) == "unknown thing 'alpah' (did you mean alpha?)"
    )
    assert "did you mean alpha, beta?" in str(UnknownName("thing", "zzz", ["beta", "alpha"]))
    many = [f"name-{number}" for number in range(20)]
    assert str(UnknownName("thing", "zzz", many, hint="ask")) == "unknown thing 'zzz' (ask)"


def test_nothing_to_load_lists_each_refusal() -> None:
    refusals = (Refusal("a-1", "no device", Code.NO_DEVICE), Refusal("b-2", "too old", Code.EP_VERSION))
    error = NothingToLoad("p.aotpack", refusals)
    assert error.refusals == refusals
    assert "a-1: no device; b-2: too old" in str(error)
    assert "no variants at all" in str(NothingToLoad("p.aotpack", []))


@pytest.mark.parametrize("name", [name for name in CLASSES if name not in ("AotpackError",)])
def test_each_is_documented_and_caught_by_the_root(name: str) -> None:
    assert CLASSES[name].__doc__
    assert issubclass(CLASSES[name], AotpackError)


@pytest.mark.parametrize(
    "error",
    [
        UnknownName("thing", "alpah", ["alpha"]),
        NothingToLoad("here", [Refusal("a", "It does not.", Code.ISA)]),
        BuildFailed("failed", report=BuildReport(package=None)),
        BuildStopped(),
        *(
            cls("is wrong", where="here", hint="mend it").at("before")
            for cls in CLASSES.values()
            if cls not in (UnknownName, NothingToLoad, BuildFailed, BuildStopped)
        ),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_comes_out_of_another_process_as_it_was(error: AotpackError) -> None:
    came = pickle.loads(pickle.dumps(error))
    assert (type(came), str(came), vars(came)) == (type(error), str(error), vars(error))
