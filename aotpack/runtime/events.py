"""What happens during a load or a build, told to a callback; what happens during a load is logged as well."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from aotpack._text import printable

if TYPE_CHECKING:
    from aotpack.builder.report import Row
    from aotpack.selection.verdict import Code

__all__ = ["Event", "EventCode", "LoadListener", "OnEvent", "Refusal"]

_log = logging.getLogger("aotpack.load")


class EventCode(StrEnum):
    """What happened, for programs. Codes are added and never change their meaning."""

    # Of a load.
    #: The selection rejected a variant; the reason is its verdict's.
    NOT_TAKEN = "not-taken"
    #: A variant fitted and gave no session; `Event.error` is the cause.
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

    # Of a build.
    #: A variant has to be compiled. There is one such event for each before the first is started.
    QUEUED = "queued"
    #: The portable model is run, for the others to be compared with.
    REFERENCE = "reference"
    REFERENCE_DONE = "reference-done"
    #: A variant is compiled.
    COMPILING = "compiling"
    #: A variant is there, compiled now or by an earlier build; `Event.row` says which.
    BUILT = "built"
    #: A variant could not be built.
    FAILED = "failed"
    #: The package is written.
    PACKING = "packing"


_LEVELS = {
    EventCode.REFUSED: logging.WARNING,
    EventCode.LAST_RESORT: logging.WARNING,
    EventCode.RECOMPILE_FAILED: logging.WARNING,
    EventCode.PORTABLE_ONLY: logging.WARNING,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened."""

    code: EventCode
    #: Where the package came from, or is written to.
    package: str
    #: None: it concerns the whole package.
    component: str | None = None
    target: str | None = None
    #: A variant's id; None where there is no variant yet.
    variant: str | None = None
    #: One sentence; empty where the code says all.
    reason: str = ""
    #: The verdict's code, where one decided.
    verdict: Code | None = None
    #: The exception that was the cause, with its traceback.
    error: BaseException | None = None
    #: The row of the build report, with `EventCode.BUILT` and `EventCode.FAILED`.
    row: Row | None = None

    def __str__(self) -> str:
        cause = f"{self.code}: {self.verdict}" if self.verdict else self.code
        subject = self.variant or self.target or self.component or "the package"
        return printable(f"{self.package}: {subject} [{cause}] {self.reason}".rstrip())


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a variant gave no session."""

    #: Its id.
    variant: str
    #: One sentence.
    reason: str
    #: The verdict's code, or ``load-failed``.
    code: Code
    #: The exception that was the cause, with its traceback. It is lost where a refusal is pickled: vendors'
    #: exceptions need not survive that.
    error: BaseException | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Refusal, (self.variant, self.reason, self.code)


#: Called for each event, from the thread that it happens in.
OnEvent = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class LoadListener:
    """Logs the events of one load and hands them on."""

    package: str
    component: str
    on_event: OnEvent | None = None

    def __call__(
        self,
        code: EventCode,
        reason: str,
        *,
        target: str | None = None,
        variant: str | None = None,
        verdict: Code | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Make an event of what happened."""
        event = Event(
            code=code,
            package=self.package,
            component=self.component,
            target=target,
            variant=variant,
            reason=reason,
            verdict=verdict,
            error=error,
        )
        _log.log(_LEVELS.get(code, logging.INFO), "%s", event, exc_info=error)
        if self.on_event is not None:
            self.on_event(event)
