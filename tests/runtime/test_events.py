"""What happens on the way to a session is told twice: to the log, and to who asked for it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import aotpack
from aotpack import Event, EventCode
from aotpack.errors import NothingToLoad
from aotpack.runtime.events import LoadListener
from aotpack.selection.verdict import Code

WARNED = {EventCode.REFUSED, EventCode.LAST_RESORT, EventCode.RECOMPILE_FAILED, EventCode.PORTABLE_ONLY}


@pytest.mark.parametrize("code", list(EventCode), ids=str)
def test_each_is_a_line_of_the_log_and_a_call(code: EventCode, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="aotpack.load")
    told: list[Event] = []
    tell = LoadListener("p.aotpack", "main", told.append)
    tell(code, "For a reason.", target="some", variant="some-1", verdict=Code.ISA)
    (event,) = told
    assert event == Event(
        code=code,
        package="p.aotpack",
        component="main",
        target="some",
        variant="some-1",
        reason="For a reason.",
        verdict=Code.ISA,
    )
    (record,) = caplog.records
    assert record.message == f"p.aotpack: some-1 [{code}: isa] For a reason."
    assert record.levelno == (logging.WARNING if code in WARNED else logging.INFO)


def test_without_a_verdict_the_code_stands_alone_and_nobody_needs_to_listen(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="aotpack.load")
    tell = LoadListener("p.aotpack", "main")
    tell(EventCode.RECOMPILED, "It was compiled.", target="some", variant="some-1")
    tell(EventCode.RECOMPILING, "It is compiled.", target="some")
    tell(EventCode.RECOMPILE_FAILED, "Nothing can be compiled.")
    assert caplog.messages == [
        "p.aotpack: some-1 [recompiled] It was compiled.",
        "p.aotpack: some [recompiling] It is compiled.",
        "p.aotpack: main [recompile-failed] Nothing can be compiled.",
    ]


def test_the_log_has_the_traceback_of_the_cause(caplog: pytest.LogCaptureFixture) -> None:
    tell = LoadListener("p.aotpack", "main")
    try:
        raise ZeroDivisionError("in a vendor's library")
    except ZeroDivisionError as error:
        tell(EventCode.REFUSED, "It failed.", variant="some-1", error=error)
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError
    assert record.exc_info[2] is not None


def test_codes_are_what_programs_were_told_they_are() -> None:
    """Codes are added; none is renamed."""
    assert {
        "not-taken",
        "refused",
        "last-resort",
        "recompiling",
        "recompiled",
        "recompile-failed",
        "portable-only",
        "loaded",
        "queued",
        "reference",
        "reference-done",
        "compiling",
        "built",
        "failed",
        "packing",
    } == {code.value for code in EventCode}


def test_a_build_tells_the_same_kind_of_event(small_model: Path, tmp_path: Path) -> None:
    told: list[Event] = []
    report = aotpack.build(
        small_model,
        targets=["ort-cpu", "vitisai-npu"],
        output=tmp_path / "m.aotpack",
        keep_going=True,
        reuse=False,
        on_event=told.append,
    )
    assert {type(event) for event in told} == {Event}
    ends = {event.target: event for event in told if event.row is not None}
    assert {target: event.code for target, event in ends.items()} == {
        "ort-cpu": EventCode.BUILT,
        "portable": EventCode.BUILT,
        "vitisai-npu": EventCode.FAILED,
    }
    rows = {row.target: row for row in report.rows}
    for target, event in ends.items():
        assert (event.component, event.variant) == ("main", rows[str(target)].id)
        assert event.reason == (rows[str(target)].reason or "")
    assert ends["vitisai-npu"].reason
    codes = [event.code for event in told if event.target in ("ort-cpu", None)]
    assert (codes[0], codes[-2], codes[-1]) == (EventCode.QUEUED, EventCode.BUILT, EventCode.PACKING)
    # These two are done side by side.
    assert sorted(codes[1:-2]) == [EventCode.COMPILING, EventCode.REFERENCE, EventCode.REFERENCE_DONE]
    assert {event.package for event in told} == {str(tmp_path / "m.aotpack")}


def test_a_refusal_keeps_its_cause(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AOTPACK_CACHE", str(tmp_path / "cache"))
    aotpack.build(small_model, targets=["ort-cpu"], output=tmp_path / "m.aotpack")
    cause = OSError(5, "a disk that fails")

    def fail(*_: object, **__: object) -> None:
        raise cause

    told: list[Event] = []
    with aotpack.open(tmp_path / "m.aotpack") as package:
        monkeypatch.setattr(type(package.cache), "hold", fail)
        with pytest.raises(NothingToLoad) as caught:
            package.load(on_event=told.append)
    refused = [event for event in told if event.code is EventCode.REFUSED]
    assert [event.error for event in refused] == [cause, cause]
    assert [refusal.error for refusal in caught.value.refusals] == [cause, cause]
    assert [event.target for event in refused] == ["ort-cpu", "portable"]
    # What nobody raised on purpose is told with its kind, and an uncaught error shows where it was.
    assert [event.reason for event in refused] == ["OSError: [Errno 5] a disk that fails"] * 2
    assert caught.value.__cause__ is cause
    assert cause.__traceback__ is not None


def test_what_fails_before_a_compiler_is_started_keeps_its_cause(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cause = KeyError("a name")

    def fail(*_: object, **__: object) -> None:
        raise cause

    caplog.set_level(logging.INFO, logger="aotpack.build")
    told: list[Event] = []
    monkeypatch.setattr("aotpack.builder.sources.Sources.task", fail)
    report = aotpack.build(
        small_model,
        targets=["ort-cpu"],
        output=tmp_path / "m.aotpack",
        keep_going=True,
        reuse=False,
        on_event=told.append,
    )
    (event,) = [event for event in told if event.code is EventCode.FAILED]
    assert event.error is cause
    assert event.reason == report.rows[0].reason == "KeyError: 'a name'"
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.exc_info is not None
    assert record.exc_info[1] is cause


def test_what_cannot_be_compiled_at_load_leaves_what_can_be_loaded(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AOTPACK_CACHE", str(tmp_path / "cache"))
    aotpack.build(small_model, targets=["portable"], output=tmp_path / "m.aotpack")
    cause = TypeError("nobody foresaw it")

    def fail(*_: object, **__: object) -> None:
        raise cause

    told: list[Event] = []
    monkeypatch.setattr("aotpack.builder.repair.build", fail)
    with aotpack.open(tmp_path / "m.aotpack") as package:
        loaded = package.load_first(on_miss="compile", on_event=told.append)
    assert loaded.candidate.portable
    failed = [event for event in told if event.code is EventCode.RECOMPILE_FAILED]
    assert failed
    assert {event.error for event in failed} == {cause}
    assert failed[0].reason == "TypeError: nobody foresaw it"
