"""How a build went: one row for each component and target."""

from __future__ import annotations

from typing import Literal

from aotpack._values import Value
from aotpack.manifest import Coverage, Numerics

__all__ = ["BuildReport", "Row"]


class Row(Value):
    """One component compiled for one target, or not."""

    target: str
    component: str
    state: Literal["built", "failed"]
    #: Wall time of all its workers.
    seconds: float
    #: Of the vendor's compiler alone.
    compile_seconds: float | None = None
    #: Why it failed, or what there is to know though it did not; one sentence.
    reason: str | None = None
    #: The variant's id.
    id: str | None = None
    #: Bytes of its files, before sharing.
    size: int | None = None
    ep_string: str | None = None
    coverage: Coverage | None = None
    numerics: Numerics | None = None
    #: Highest memory of a worker, in bytes.
    peak_memory: int | None = None
    #: The end of what the vendor's library printed, if the row failed or nodes were left out.
    log: str | None = None


class BuildReport(Value):
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
