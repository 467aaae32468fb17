"""A build report as one HTML page: no script, no network, nothing beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from aotpack.builder.report import BuildReport, Row

__all__ = ["page"]

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --built: #2a7d4f; --kept: #4a6fa5; --failed: #b3372f; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; white-space: nowrap; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font: .86em ui-monospace, monospace; overflow-wrap: anywhere; }
.state { color: #fff; border-radius: .25rem; padding: 0 .4rem; white-space: nowrap; }
.built { background: var(--built); } .kept { background: var(--kept); } .failed { background: var(--failed); }
.scroll { overflow-x: auto; } .matrix td { text-align: center; white-space: nowrap; }
.share td { text-align: right; border: 1px solid var(--line); font-variant-numeric: tabular-nums; }
.share th.up { writing-mode: vertical-rl; transform: rotate(180deg); }
svg text { font: 12px system-ui, sans-serif; fill: currentColor; }
summary { cursor: pointer; } pre { overflow-x: auto; border: 1px solid var(--line); padding: .6rem; }
"""

#: Widths of the drawing, in pixels.
_NAMES, _BARS, _LINE = 330, 620, 24


def page(report: BuildReport) -> str:
    """The page of a report, as HTML."""
    title = report.package or "Nothing was packed"
    built = [row for row in report.rows if row.state == "built"]
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{_summary(report)}</p>",
        *_matrix(report.rows),
        *_rows(report.rows),
    ]
    if built and report.package:
        parts += [*_additions(built), *_sharing(built)]
    parts += _notes(report.rows)
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _summary(report: BuildReport) -> str:
    kept = sum(row.cached for row in report.rows)
    size = f"{_size(report.size)}, " if report.size is not None else ""
    logical = sum(row.size or 0 for row in report.rows)
    shared = f" of {_size(logical)} before sharing" if report.size and logical > report.size else ""
    return (
        f"{len(report.rows)} variants, {len(report.failed)} failed, {kept} kept from earlier builds. "
        f"{size.rstrip(', ')}{shared}{'. ' if size else ''}{report.seconds:.1f} s."
    )


def _matrix(rows: Sequence[Row]) -> Iterable[str]:
    components = list(dict.fromkeys(row.component for row in rows))
    if len(components) < 2:
        return
    targets = list(dict.fromkeys(row.target for row in rows))
    by_place = {(row.component, row.target): row for row in rows}
    yield '<h2>Components and targets</h2>\n<div class="scroll"><table class="matrix">'
    yield f"<tr><th></th>{''.join(f'<th>{escape(name)}</th>' for name in components)}</tr>"
    for target in targets:
        cells = [
            f"<td>{_state(by_place[name, target]) if (name, target) in by_place else ''}</td>"
            for name in components
        ]
        yield f"<tr><th>{escape(target)}</th>{''.join(cells)}</tr>"
    yield "</table></div>"


def _rows(rows: Sequence[Row]) -> Iterable[str]:
    yield '<h2>Variants</h2>\n<div class="scroll"><table id="variants">'
    yield (
        "<tr><th>component</th><th>target</th><th>state</th><th class=n>time</th><th class=n>compile</th>"
        "<th class=n>size</th><th class=n>adds</th><th class=n>nodes</th><th class=n>error</th>"
        "<th>ran on</th><th>compatibility string</th></tr>"
    )
    for row in rows:
        coverage, numerics = row.coverage, row.numerics
        cells = [
            f"<td>{escape(row.component)}</td><td>{escape(row.target)}</td><td>{_state(row)}</td>",
            _number(f"{row.seconds:.2f} s"),
            _number("" if row.compile_seconds is None else f"{row.compile_seconds:.2f} s"),
            _number(_size(row.size)),
            _number(_size(row.adds)),
            _number(f"{coverage.compiled}/{coverage.nodes}" if coverage and coverage.partitions else ""),
            _number(f"{numerics.error:.1e}" if numerics else ""),
            f"<td>{escape(numerics.ran_on) if numerics else ''}</td>",
            f"<td><code>{escape(row.ep_string or '')}</code></td>",
        ]
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</table></div>"


def _additions(rows: Sequence[Row]) -> Iterable[str]:
    """Each variant as a bar: what it added to the package, and what was there before it."""
    widest = max((row.adds or 0) + _before(row) for row in rows) or 1
    height = _LINE * len(rows) + 8
    yield "<h2>What each variant adds</h2>"
    yield "<p>Dark: bytes that it added to the package. Light: bytes that variants above it have already.</p>"
    yield (
        f'<svg id="additions" role="img" width="{_NAMES + _BARS + 110}" height="{height}" '
        'aria-label="Bytes that each variant adds and shares">'
    )
    for index, row in enumerate(rows):
        top = index * _LINE + 4
        own = _BARS * (row.adds or 0) / widest
        shared = _BARS * _before(row) / widest
        label = escape(f"{row.component}/{row.target}")
        yield f'<text x="{_NAMES - 8}" y="{top + 14}" text-anchor="end">{label}</text>'
        yield f'<rect x="{_NAMES}" y="{top}" width="{own:.1f}" height="18" fill="#2a7d4f"/>'
        yield f'<rect x="{_NAMES + own:.1f}" y="{top}" width="{shared:.1f}" height="18" fill="#2a7d4f55"/>'
        yield f'<text x="{_NAMES + own + shared + 6:.1f}" y="{top + 14}">{_size(row.adds)}</text>'
    yield "</svg>"


def _before(row: Row) -> int:
    """Bytes of the package that the variant has and did not add."""
    return (row.stored or 0) - (row.adds or 0)


def _sharing(rows: Sequence[Row]) -> Iterable[str]:
    """Who shares how much with whom, as a table that is darker where it is more."""
    ids = [f"{row.component}/{row.id}" for row in rows]
    yield "<h2>What variants share</h2>"
    yield '<div class="scroll"><table class="share" id="sharing">'
    heads = "".join(f'<th class="up">{escape(f"{row.component}/{row.target}")}</th>' for row in rows)
    yield f"<tr><th></th>{heads}</tr>"
    for row, own in zip(rows, ids, strict=True):
        cells = []
        for other in ids:
            shared = (row.stored or 0) if other == own else row.shares.get(other, 0)
            share = shared / row.stored if row.stored else 0.0
            cells.append(
                f'<td style="background: rgb(42 125 79 / {share:.2f})">{_size(shared) if shared else ""}</td>'
            )
        yield f"<tr><th>{escape(f'{row.component}/{row.target}')}</th>{''.join(cells)}</tr>"
    yield "</table></div>"


def _notes(rows: Sequence[Row]) -> Iterable[str]:
    told = [row for row in rows if row.reason or row.why or row.log]
    if not told:
        return
    yield "<h2>What there is to know</h2>"
    for row in told:
        name = escape(f"{row.component}/{row.target}")
        yield f"<p><b>{name}</b> {escape(row.reason or '')} {escape(row.why or '')}</p>"
        if row.log:
            yield f"<details><summary>Log of {name}</summary><pre>{escape(row.log)}</pre></details>"


def _state(row: Row) -> str:
    state = "kept" if row.cached and row.state == "built" else row.state
    return f'<span class="state {state}">{state}</span>'


def _number(text: str) -> str:
    return f'<td class="n">{escape(text)}</td>'


def _size(count: int | None) -> str:
    if count is None:
        return ""
    amount = float(count)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"
