"""What happens on the way to a session, told to a callback and to the log: nothing is refused in silence."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from aotpack._text import printable

__all__ = ["Event", "EventCode", "OnEvent", "announcer"]

_log = logging.getLogger("aotpack.load")


class EventCode(StrEnum):
    """What happened, for programs. Codes are added and never change their meaning."""

    #: The selection rejected a variant; the reason is its verdict's.
    NOT_TAKEN = "not-taken"
    #: A variant fitted and gave no session.
    REFUSED = "refused"
    #: Nobody can say whether the variant fits, and nothing else is left.
    LAST_RESORT = "last-resort"
    #: A variant is compiled on this machine.
    RECOMPILING = "recompiling"
    RECOMPILED = "recompiled"
    RECOMPILE_FAILED = "recompile-failed"
    #: Nothing but the portable variant is left.
    PORTABLE_ONLY = "portable-only"
    LOADED = "loaded"


_LEVELS = {
    EventCode.REFUSED: logging.WARNING,
    EventCode.LAST_RESORT: logging.WARNING,
    EventCode.RECOMPILE_FAILED: logging.WARNING,
    EventCode.PORTABLE_ONLY: logging.WARNING,
}


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened."""

    code: EventCode
    package: str
    component: str
    #: A variant's id; of what is compiled here, the target.
    subject: str
    #: One sentence.
    reason: str
    #: The verdict's code, where one decided.
    verdict: str | None = None

    def __str__(self) -> str:
        cause = f"{self.code}: {self.verdict}" if self.verdict else self.code
        return printable(f"{self.package}: {self.subject} [{cause}] {self.reason}")


#: What `aotpack.load` and its kin call for each event, from the thread that it happens in.
OnEvent = Callable[[Event], None]


def announcer(package: str, component: str, on_event: OnEvent | None) -> Callable[..., None]:
    """A function of (code, subject, reason, verdict) that logs an event and calls `on_event`."""

    def announce(code: EventCode, subject: str, reason: str, verdict: str | None = None) -> None:
        event = Event(code, package, component, subject, reason, verdict)
        _log.log(_LEVELS.get(code, logging.INFO), "%s", event)
        if on_event is not None:
            on_event(event)

    return announce
