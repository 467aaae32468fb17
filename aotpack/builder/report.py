"""How a build went: one row for each component and target."""

from __future__ import annotations

from typing import Literal

from aotpack.common.values import Value
from aotpack.manifest.values import Coverage, Numerics, Record

__all__ = ["BuildReport", "Row"]


class Row(Value, kw_only=True):
    """One component compiled for one target, or not."""

    target: str
    component: str
    state: Literal["built", "failed"]
    #: An earlier build did it; the times are that one's.
    cached: bool = False
    #: Why it was not taken from an earlier build; one sentence.
    why: str | None = None
    #: Wall time of all its workers.
    seconds: float
    #: Of it, loading the vendor's library.
    load_seconds: float = 0.0
    #: Of it, the vendor's compiler.
    compile_seconds: float | None = None
    #: Of it, creating sessions and running them.
    check_seconds: float = 0.0
    #: Why it failed, or what there is to know though it did not; one sentence.
    reason: str | None = None
    #: The whole of the vendor's message, where `reason` is a part of it.
    details: str | None = None
    #: The variant's id.
    id: str | None = None
    #: Bytes of its files, before sharing.
    size: int | None = None
    #: Bytes that its files take in the package, shared ones included.
    stored: int | None = None
    #: Bytes that it added to the package: those that no variant before it has.
    adds: int | None = None
    #: ``component/id`` of other variants to the bytes of the package that they share with it.
    shares: dict[str, int] = {}
    ep_string: str | None = None
    coverage: Coverage | None = None
    numerics: Numerics | None = None
    #: Highest memory of a worker, in bytes.
    peak_memory: int | None = None
    #: The machine that did it, if it was another one.
    machine: str | None = None
    #: What `aotpack check` found on machines, of a variant of a package that is there.
    records: tuple[Record, ...] = ()
    #: The end of what the vendor's library printed, if the row failed or nodes were left out.
    log: str | None = None

    @property
    def steps_text(self) -> str:
        """Seconds of compiling, and after a plus of checking, in three letters each.

        Empty where an earlier build did it, which took this one no time.
        """
        steps = [each for each in (self.compile_seconds, self.check_seconds) if each and not self.cached]
        return "+".join(f"{each:.1f}" if each < 9.95 else f"{each:.0f}" for each in steps)


class BuildReport(Value, kw_only=True):
    """A whole build."""

    #: Path of the package; None if nothing could be put into one.
    package: str | None
    #: Bytes of the package.
    size: int | None = None
    seconds: float = 0.0
    rows: tuple[Row, ...] = ()

    @property
    def failed(self) -> tuple[Row, ...]:
        """The rows that gave no variant."""
        return tuple(row for row in self.rows if row.state == "failed")
