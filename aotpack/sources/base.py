"""Where the bytes of a package come from.

A package may lie on a disk, behind HTTP or in a registry. Its reader needs so little of that place that any
of them can be read alike: how long it is, and any range of its bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

__all__ = ["ByteSource"]


@runtime_checkable
class ByteSource(Protocol):
    """The bytes of one package, at any place. Every method may be called from several threads at once."""

    @property
    def name(self) -> str:
        """What errors call it: a path or an address."""
        ...

    @property
    def path(self) -> Path | None:
        """The local file with the same bytes, or None if there is none."""
        ...

    def size(self) -> int:
        """Length of the whole, in bytes."""
        ...

    def read_at(self, offset: int, length: int) -> bytes:
        """Bytes ``offset`` to ``offset + length``; fewer only where the source ends before that."""
        ...

    def close(self) -> None:
        """Let go of what reading needs. Reading after that is an error; closing again is not."""
        ...
