"""A selection for people: as text, and as a table for notebooks. Both show the same rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aotpack._text import html_text, printable
from aotpack.selection.verdict import Comparison

if TYPE_CHECKING:
    from aotpack.selection.select import Selection

__all__ = [
    "LAST_RESORT",
    "NOTHING_FITS",
    "NOTHING_MEASURED",
    "Row",
    "as_html",
    "as_text",
    "remarks",
    "rows",
    "side_by_side",
]

#: What is said of a selection that has nothing but UNKNOWN.
LAST_RESORT = "Nothing is known to fit: what is left are variants that nobody can judge."

#: What is said of a selection that accepts nothing.
NOTHING_FITS = "No variant fits this machine."

#: What is said of a selection that should be in the order of what was measured.
NOTHING_MEASURED = "Nothing was measured on this machine (`aotpack tune`): this is the usual order."

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
    return "\n".join([*lines, *remarks(selection)])


#: Notebooks set cells flush right, which suits numbers. Colours are theirs, so that both light and dark suit.
_CELL = "text-align:left;vertical-align:top"
_ON_ONE_LINE = f"{_CELL};white-space:nowrap"


def as_html(selection: Selection) -> str:
    """A table for notebooks, one row a variant; the chosen one is bold."""
    head = "".join(
        f'<th style="{_CELL}">{name}</th>'
        for name in ("", "variant", "verdict", "reason", "compared: found | needed")
    )
    body = "".join(_drawn(row, bold=row.mark == "->") for row in rows(selection))
    below = "".join(f"<p>{html_text(remark)}</p>" for remark in remarks(selection))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"


def _drawn(row: Row, *, bold: bool) -> str:
    name = f"<b>{html_text(row.variant)}</b>" if bold else html_text(row.variant)
    cells = (
        (_ON_ONE_LINE, html_text(row.mark)),
        (_ON_ONE_LINE, name),
        (_ON_ONE_LINE, f"{html_text(row.grade)}<br>[{html_text(row.code)}]"),
        (_CELL, html_text(row.reason)),
        (_CELL, "<br>".join(html_text(side_by_side(item)) for item in row.compared)),
    )
    return "<tr>" + "".join(f'<td style="{style}">{cell}</td>' for style, cell in cells) + "</tr>"


def remarks(selection: Selection) -> list[str]:
    """What is to be said of it as a whole, if anything is unusual."""
    if selection.chosen is None:
        return [NOTHING_FITS]
    said = [LAST_RESORT] if selection.last_resort else []
    return [*said, NOTHING_MEASURED] if selection.policy.measured and not selection.measured else said
