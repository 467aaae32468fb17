"""Libraries of custom operators as a caller gives them, and what is said where one is missing or is none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from aotpack.errors import UsageError
from aotpack.manifest.values import Compatibility, Requirements
from aotpack.runtime.load_options import LoadOptions, SelectOptions
from aotpack.runtime.probing import probe
from aotpack.selection.custom_ops import checked_libraries, missing_library, read_libraries, register
from aotpack.selection.verdict import Code, Grade, judge
from aotpack.toolchains import toolchains
from tests.custom_op_library import library
from tests.made_packages import portable


@pytest.fixture
def some(tmp_path: Path) -> Path:
    path = tmp_path / "some lib é.so"
    path.write_bytes(b"anything")
    return path


def test_paths_become_absolute_each_once(some: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(some.parent)
    assert checked_libraries(()) == ()
    assert checked_libraries(some) == (some,)
    assert checked_libraries(some.name) == (some,)
    assert checked_libraries([some, str(some), Path(some.name)]) == (some,)
    assert checked_libraries(each for each in [some]) == (some,)


def test_a_link_stays_a_link(some: Path) -> None:
    """A library finds others beside the path that it was loaded from."""
    link = some.with_name("link.so")
    link.symlink_to(some)
    assert checked_libraries(link) == (link,)
    assert checked_libraries([link, some]) == (link,)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("none.so", "No such file"),
        (["."], "is a folder"),
        ("", "is empty"),
        ("a\0b", "no path of a file"),
        ("\udcff.so", "no path of a file"),
        ("x" * 5000, "name too long"),
        ("file/below", "Not a directory"),
        ("pipe", "is not a file"),
        ([b"bytes"], "is no path"),
        ([3], "is no path"),
        (3, "is no list of paths"),
        (None, "is no list of paths"),
    ],
)
def test_what_is_no_library_is_one_line(
    given: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("file").touch()
    calls: tuple[Callable[[Any], object], ...] = (
        checked_libraries,
        lambda each: LoadOptions(custom_ops=each),
    )
    for call in calls:
        with pytest.raises(UsageError, match=said) as raised:
            call(given)
        assert str(raised.value).startswith("custom_ops")
        assert "\n" not in str(raised.value)


def test_no_system_folder_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"custom_ops: libc\.so\.6: No such file"):
        checked_libraries("libc.so.6")


def test_a_digest_is_of_the_content(some: Path) -> None:
    copy = some.with_name("copy.so")
    copy.write_bytes(some.read_bytes())
    before = read_libraries((some,)).digests
    assert read_libraries((copy,)).digests == before
    some.write_bytes(b"another")
    assert read_libraries((some,)).digests != before


def empty(folder: Path) -> Path:
    (folder / "empty.so").touch()
    return folder / "empty.so"


def text(folder: Path) -> Path:
    (folder / "text.so").write_text("no library, but longer than the header of one. " * 10)
    return folder / "text.so"


def refusing(folder: Path) -> Path:
    return library(folder, before='return api[CREATE_STATUS](1, "its licence has ended");')


def without_function(folder: Path) -> Path:
    path = library(folder)
    path.write_bytes(path.read_bytes().replace(b"RegisterCustomOps", b"RegisterSomething"))
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (empty, "cannot be loaded; found file too short"),
        (text, "cannot be loaded; found invalid ELF header"),
        (refusing, "cannot be loaded; found its licence has ended"),
        (without_function, "has no function RegisterCustomOps"),
    ],
)
def test_a_library_that_registers_nothing_is_one_line(
    make: Callable[[Path], Path], said: str, tmp_path: Path
) -> None:
    path = make(tmp_path)
    with pytest.raises(UsageError) as raised:
        register(ort.SessionOptions(), [path])
    assert str(raised.value).startswith(f"custom_ops: {path}: {said}")


def test_the_sentence_names_the_domains_and_nothing_that_a_terminal_obeys() -> None:
    assert "of the domain ai.onnx.contrib, which" in missing_library(["ai.onnx.contrib"])
    assert "of the domains a, b, which" in missing_library(["a", "b"])
    many = missing_library([f"d{number}" for number in range(1024)])
    assert "d0, d1, d2, d3, d4 and 1019 more, which" in many
    hostile = missing_library(["\x1b[2J" + "x" * 60_000])
    assert hostile.isprintable()
    assert len(hostile) < 400


def test_a_variant_that_needs_a_library_is_unsupported_without_one() -> None:
    requires = Requirements(custom_ops=("test.ops",))
    needing = portable().replace(compatibility=Compatibility(requires=requires))
    rules = toolchains()[needing.toolchain]
    verdict = judge(needing, probe(), rules, here=True)
    assert (verdict.grade, verdict.code) == (Grade.UNSUPPORTED, Code.CUSTOM_OPS_MISSING)
    assert "test.ops" in verdict.reason
    assert [(each.what, each.needed, each.fits) for each in verdict.compared] == [
        ("custom operators", "test.ops", False)
    ]
    assert judge(needing, probe(), rules, here=True, custom_ops=True).code is Code.PORTABLE


def test_options_keep_what_was_checked(some: Path) -> None:
    assert SelectOptions(custom_ops=str(some)).libraries == (some,)
    assert LoadOptions(custom_ops=[some]).libraries == (some,)
    assert LoadOptions().libraries == ()
