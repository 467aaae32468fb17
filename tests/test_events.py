"""What happens on the way to a session is told twice: to the log, and to who asked for it."""

from __future__ import annotations

import logging

import pytest

from aotpack.events import Event, EventCode, announcer

WARNED = {EventCode.REFUSED, EventCode.LAST_RESORT, EventCode.RECOMPILE_FAILED, EventCode.PORTABLE_ONLY}


@pytest.mark.parametrize("code", list(EventCode), ids=str)
def test_each_is_a_line_of_the_log_and_a_call(code: EventCode, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="aotpack.load")
    told: list[Event] = []
    announcer("p.aotpack", "main", told.append)(code, "some-1", "For a reason.", "isa")
    assert told == [Event(code, "p.aotpack", "main", "some-1", "For a reason.", "isa")]
    (record,) = caplog.records
    assert record.message == f"p.aotpack: some-1 [{code}: isa] For a reason."
    assert record.levelno == (logging.WARNING if code in WARNED else logging.INFO)


def test_without_a_verdict_the_code_stands_alone_and_nobody_needs_to_listen(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="aotpack.load")
    announcer("p.aotpack", "main", None)(EventCode.RECOMPILED, "some-1", "It was compiled.")
    assert caplog.messages == ["p.aotpack: some-1 [recompiled] It was compiled."]


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
    } <= {code.value for code in EventCode}
