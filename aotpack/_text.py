"""Text that others wrote, for a terminal."""

from __future__ import annotations

__all__ = ["printable", "shortened"]


def printable(text: str) -> str:
    r"""`text` with all that a terminal would obey, or that hides, written as ``\x1b``; lines stay lines."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode()
        for each in text
    )


def shortened(name: str) -> str:
    """`name` in quotes, as much of it as an error has room for."""
    return repr(name) if len(name) <= 80 else f"{name[:80]!r}..."
