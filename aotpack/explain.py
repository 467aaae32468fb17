"""A selection for people: as text, and as a table for notebooks. Both show the same rows."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from aotpack._text import printable
from aotpack.verdict import Comparison

if TYPE_CHECKING:
    from aotpack.selection import Selection

__all__ = ["LAST_RESORT", "NOTHING_FITS", "Row", "as_html", "as_text", "rows", "side_by_side"]

#: What is said of a selection that has nothing but UNKNOWN.
LAST_RESORT = "Nothing is known to fit: what is left are variants that nobody can judge."

#: What is said of a selection that accepts nothing.
NOTHING_FITS = "No variant fits this machine."

_MARKS = {True: "=", False: "≠", None: "?"}


@dataclass(frozen=True, slots=True)
class Row:
    """One variant."""

    #: ``->`` the chosen one, ``ok`` accepted, ``no`` rejected.
    mark: str
    variant: str
    grade: str
    code: str
    reason: str
    compared: tuple[Comparison, ...]


def rows(selection: Selection) -> list[Row]:
    """A row for each variant, in the selection's order."""
    return [
        Row(
            "->" if candidate is selection.chosen else "ok" if candidate.accepted else "no",
            candidate.id,
            candidate.verdict.grade.value,
            candidate.verdict.code.value,
            printable(candidate.verdict.reason),
            candidate.verdict.compared,
        )
        for candidate in selection.candidates
    ]


def side_by_side(item: Comparison) -> str:
    """What was found and what is needed, in a line."""
    found = "not known" if item.found is None else item.found
    return printable(f"{_MARKS[item.fits]} {item.what}: {found} | needs {item.needed}")


def as_text(selection: Selection) -> str:
    """Two lines and more for each variant."""
    lines = []
    for row in rows(selection):
        lines.append(f"{row.mark} {row.variant}  {row.grade} [{row.code}] {row.reason}")
        lines.extend(f"     {side_by_side(item)}" for item in row.compared)
    return "\n".join([*lines, *_remarks(selection)])


def as_html(selection: Selection) -> str:
    """A table without styles or scripts of its own: a notebook has some."""
    drawn = [
        "<table><thead><tr><th></th><th>variant</th><th>verdict</th><th>reason</th>"
        "<th>compared: found | needed</th></tr></thead><tbody>"
    ]
    for row in rows(selection):
        compared = "<br>".join(escape(side_by_side(item)) for item in row.compared)
        cells = (row.mark, row.variant, f"{row.grade} [{row.code}]", row.reason)
        drawn.append(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + f"<td>{compared}</td></tr>"
        )
    drawn.append("</tbody></table>")
    return "".join(drawn) + "".join(f"<p>{escape(remark)}</p>" for remark in _remarks(selection))


def _remarks(selection: Selection) -> list[str]:
    if selection.chosen is None:
        return [NOTHING_FITS]
    return [LAST_RESORT] if selection.last_resort else []
