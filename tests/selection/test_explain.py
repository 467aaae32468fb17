"""One selection, shown as text, as a table for notebooks and as JSON: the same rows, whatever is in them."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aotpack._text import printable
from aotpack.documents.verbs import SelectionDocument
from aotpack.selection.explain import (
    LAST_RESORT,
    NOTHING_FITS,
    NOTHING_MEASURED,
    as_html,
    as_text,
    rows,
    side_by_side,
)
from aotpack.selection.policy import Policy
from aotpack.selection.select import Candidate, Selection
from aotpack.selection.verdict import Code, Comparison, Grade, Verdict
from tests.made_packages import variant

ROW = variant("ort-cpu")

#: What a hostile package can say; ids and names are checked when a manifest is read, reasons quote the rest.
texts = st.text(max_size=30)

candidates = st.lists(
    st.builds(
        lambda reason, what, found, fits, grade, accepted: Candidate(
            ROW,
            Verdict(grade, Code.FITS, reason, (Comparison(what, found, "needed", fits),)),
            accepted and grade is not Grade.UNSUPPORTED,
        ),
        texts,
        texts,
        st.none() | texts,
        st.none() | st.booleans(),
        st.sampled_from(Grade),
        st.booleans(),
    ),
    max_size=5,
)


class Table(HTMLParser):
    """The cells of a table's rows; fails on a tag that is not closed, and on any that should not be there."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.rows: list[list[str]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in {"table", "thead", "tbody", "tr", "th", "td", "b", "br", "p"}, tag
        # Where a cell's text stands is all that is styled, and nothing of it comes from a package.
        aligned = "text-align:left;vertical-align:top"
        styles = [aligned, f"{aligned};white-space:nowrap"] if tag in ("th", "td") else []
        assert attrs in [[("style", style)] for style in styles] or (not attrs and not styles)
        if tag == "br":
            self.rows[-1][-1] += "\n"
            return
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] in ("td", "th", "b"):
            self.rows[-1][-1] += data


def read(html: str) -> list[list[str]]:
    table = Table()
    table.feed(html)
    table.close()
    assert not table.open
    return table.rows[1:]


@given(candidates)
def test_all_three_show_the_same_rows(given_candidates: list[Candidate]) -> None:
    ordered = sorted(given_candidates, key=lambda each: not each.accepted)
    selection = Selection("main", tuple(ordered))
    shown, table = rows(selection), read(as_html(selection))
    document = SelectionDocument.of(selection, package="p")
    text = as_text(selection)
    assert len(shown) == len(table) == len(document.candidates) == len(ordered)
    for row, cells, candidate in zip(shown, table, document.candidates, strict=True):
        assert cells == [
            row.mark,
            row.variant,
            f"{row.grade}\n[{row.code}]",
            row.reason,
            "\n".join(map(side_by_side, row.compared)),
        ]
        assert (candidate.id, candidate.verdict) == (row.variant, row.grade)
        assert printable(candidate.reason) == row.reason
        assert f"{row.mark} {row.variant}  {row.grade} [{row.code}] {row.reason}" in text
        assert text.replace("\n", "").isprintable()
        assert all(side_by_side(item) in text for item in row.compared)


@pytest.mark.parametrize(
    ("selection", "remark"),
    [
        (Selection("main", ()), NOTHING_FITS),
        (
            Selection("main", (Candidate(ROW, Verdict(Grade.UNKNOWN, Code.DRIVER, "?"), True),), True),
            LAST_RESORT,
        ),
        (
            Selection(
                "main",
                (Candidate(ROW, Verdict(Grade.OPTIMAL, Code.FITS, "It fits."), True),),
                policy=Policy(measured=True),
            ),
            NOTHING_MEASURED,
        ),
    ],
)
def test_what_is_unusual_is_said_at_the_end(selection: Selection, remark: str) -> None:
    assert as_text(selection).endswith(remark)
    assert as_html(selection).endswith(f"<p>{remark}</p>")


def test_found_and_needed_stand_side_by_side() -> None:
    assert side_by_side(Comparison("os", "linux", "windows", False)) == "≠ os: linux | needs windows"
    assert side_by_side(Comparison("os", None, "windows", None)) == "? os: not known | needs windows"
    assert side_by_side(Comparison("os", "linux", "linux", True)) == "= os: linux | needs linux"


def test_a_selection_is_an_object_that_notebooks_draw() -> None:
    selection = Selection("main", (), policy=Policy())
    assert selection._repr_html_() == as_html(selection)
    assert selection.explain() == as_text(selection)
