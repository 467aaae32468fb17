"""The drawings of a build's page: what fills the package, and which variants have the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from aotpack._text import html_text
from aotpack.builder.report import Row

__all__ = ["bytes_text", "family", "family_style", "filling", "sharing"]

#: Colours of the page.
_FAMILIES = 8

#: Of the matrix of sharing, in pixels: all cells together, one cell, and for a number inside it.
_SIDE, _SMALLEST, _LARGEST, _READABLE = 560, 15, 46, 34

#: Share from which a square is too dark for dark letters.
_DARK = 0.7

#: Pixels of a letter of a name.
_LETTER = 6.7


def bytes_text(count: int | None) -> str:
    """Bytes for people, in powers of 1,000; nothing for None."""
    if count is None:
        return ""
    amount = float(count)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def family(row: Row) -> str:
    """What the names of a vendor's targets begin with."""
    return row.target.split("-")[0]


def family_style(name: str, rows: Sequence[Row]) -> str:
    """The colour of a family, in the order in which the rows have them."""
    families = list(dict.fromkeys(map(family, rows)))
    return f"--family:var(--f{families.index(name) % _FAMILIES})"


def filling(rows: Sequence[Row]) -> Iterable[str]:
    """The package as a bar, each variant as long as what it adds to it."""
    adding = [row for row in rows if row.adds]
    whole = sum(row.adds or 0 for row in adding)
    yield "<h2>What fills the package</h2>"
    yield '<div class="whole" id="filling" role="img" aria-label="Bytes that each variant adds">'
    for row in adding:
        told = html_text(f"{row.component}/{row.target} adds {bytes_text(row.adds)}")
        width = 100 * (row.adds or 0) / whole
        yield f'<i style="{family_style(family(row), rows)};width:{width:.3f}%" title="{told}"></i>'
    yield '</div>\n<ul class="legend">'
    for name in dict.fromkeys(map(family, adding)):
        own = [row for row in adding if family(row) == name]
        total = bytes_text(sum(row.adds or 0 for row in own))
        count = f"{len(own)} variants" if len(own) > 1 else "1 variant"
        yield f'<li style="{family_style(name, rows)}"><b>{html_text(name)}</b> {total} in {count}</li>'
    yield "</ul>"


def sharing(rows: Sequence[Row]) -> Iterable[str]:
    """A square for each two variants that share, darker the more of the one's bytes the other one has."""
    numbered = [(number, row) for number, row in enumerate(rows, 1) if row.stored]
    if len(numbered) < 2:
        return
    cell = min(_LARGEST, max(_SMALLEST, _SIDE // len(numbered)))
    several = len({row.component for row in rows}) > 1
    names = [
        f"{number} {row.component}/{row.target}" if several else f"{number} {row.target}"
        for number, row in numbered
    ]
    left = int(max(map(len, names)) * _LETTER) + 12
    top = 20
    width, height = left + cell * len(numbered) + 4, top + cell * len(numbered) + 4
    yield "<h2>Who shares with whom</h2>"
    yield (
        "<p>How much of the variant on the left is the same bytes as in the one above, stored once for both. "
        "Point at a square for the number.</p>"
    )
    yield (
        f'<div class="scroll"><svg id="sharing" role="img" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" aria-label="Bytes that each two variants share">'
    )
    for column, (number, _) in enumerate(numbered):
        x = left + column * cell + cell / 2
        yield f'<text class="soft" x="{x:.1f}" y="{top - 6}" text-anchor="middle">{number}</text>'
    side = cell * len(numbered)
    lines = range(0, side + 1, cell)
    across = "".join(f"M{left} {top + at}h{side}" for at in lines)
    down = "".join(f"M{left + at} {top}v{side}" for at in lines)
    yield f'<path class="grid" d="{across}{down}"/>'
    for line, ((_, row), name) in enumerate(zip(numbered, names, strict=True)):
        y = top + line * cell
        yield f'<g style="{family_style(family(row), rows)}">'
        yield f'<text x="{left - 8}" y="{y + cell / 2 + 4:.1f}" text-anchor="end">{html_text(name)}</text>'
        for column, (_, other) in enumerate(numbered):
            shared = row.shares.get(f"{other.component}/{other.id}", 0)
            if shared or other is row:
                yield from _square(row, other, shared, left + column * cell, y, cell)
        yield "</g>"
    yield "</svg></div>"


def _square(row: Row, other: Row, shared: int, x: int, y: int, cell: int) -> Iterable[str]:
    own = row is other
    part = 1.0 if own else shared / (row.stored or 1)
    told = f"{row.component}/{row.target} " + (
        f"takes {bytes_text(row.stored)}"
        if own
        else f"has {bytes_text(shared)} ({part:.1%}) of {other.component}/{other.target}"
    )
    kind = "own" if own else "with"
    yield (
        f'<rect class="{kind}" x="{x + 1}" y="{y + 1}" width="{cell - 2}" height="{cell - 2}" rx="2" '
        f'fill-opacity="{part:.3f}"><title>{html_text(told)}</title></rect>'
    )
    if cell >= _READABLE and shared and not own:
        place = f'x="{x + cell / 2:.1f}" y="{y + cell / 2 + 4:.1f}"'
        kind = "in on" if part > _DARK else "in"
        yield f'<text class="{kind}" {place} text-anchor="middle">{part:.0%}</text>'
