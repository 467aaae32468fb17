"""A build report as one HTML page: no script, no network, nothing beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import PurePath

from aotpack._text import html_text
from aotpack.builder.page_drawings import bytes_text, family, family_style, filling, sharing
from aotpack.builder.report import BuildReport, Row

__all__ = ["PAGE_BEGINS", "page"]

#: How each page begins.
PAGE_BEGINS = (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="generator" content="aotpack">\n'
)


def page(report: BuildReport) -> str:
    """The page of a report, as HTML."""
    title = PurePath(report.package).name if report.package else "Nothing was packed"
    style = resources.files("aotpack.builder").joinpath("page.css").read_text(encoding="utf-8")
    components = list(dict.fromkeys(row.component for row in report.rows))
    rows = sorted(report.rows, key=lambda row: components.index(row.component))
    parts = [f"<header>\n<h1>{html_text(title)}</h1>", *_facts(report), "</header>"]
    if report.package:
        parts += filling(rows)
    parts += [*_matrix(rows), *_variants(rows)]
    if report.package:
        parts += sharing(rows)
    parts += [*_notes(rows), *_outputs(rows), *_machines(rows), *_strings(rows), *_logs(rows)]
    body = "\n".join(parts)
    return (
        f"{PAGE_BEGINS}"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html_text(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _facts(report: BuildReport) -> Iterable[str]:
    rows = report.rows
    built = [row for row in rows if row.state == "built"]
    files = sum(row.size or 0 for row in built)
    kept = sum(row.cached for row in built)
    facts = [("variants", str(len(built)), f"{kept} kept from earlier builds" if kept else "")]
    if report.failed:
        facts.append(("failed", str(len(report.failed)), ""))
    if report.size:
        facts.insert(0, ("package", bytes_text(report.size), ""))
        facts.insert(
            1, ("files in it", bytes_text(files), f"{100 * report.size / max(files, 1):.0f} % of it stored")
        )
    if report.seconds:
        facts.append(("took", f"{report.seconds:.1f} s", ""))
    yield '<dl class="facts">'
    for name, value, more in facts:
        told = f" <small>{html_text(more)}</small>" if more else ""
        yield f"<div><dt>{name}</dt><dd>{html_text(value)}{told}</dd></div>"
    yield "</dl>"


def _matrix(rows: Sequence[Row]) -> Iterable[str]:
    """Which component has which target, where there are several components."""
    components = list(dict.fromkeys(row.component for row in rows))
    if len(components) < 2:
        return
    targets = list(dict.fromkeys(row.target for row in rows))
    by_place = {(row.component, row.target): row for row in rows}
    heads = "".join(f'<th><span class="name">{html_text(target)}</span></th>' for target in targets)
    yield f"<h2>Components and targets</h2>\n{_legend_of_states(rows)}"
    yield f'<div class="scroll matrix"><table id="matrix">\n<thead><tr><th></th>{heads}</tr></thead>\n<tbody>'
    for component in components:
        cells = [
            f"<td>{_state(row) if (row := by_place.get((component, target))) else ''}</td>"
            for target in targets
        ]
        yield f"<tr><th>{html_text(component)}</th>{''.join(cells)}</tr>"
    yield "</tbody></table></div>"


def _legend_of_states(rows: Sequence[Row]) -> str:
    states = list(dict.fromkeys(map(_state, rows)))
    return f"<p>{' &nbsp; '.join(states)}</p>"


def _variants(rows: Sequence[Row]) -> Iterable[str]:
    """A table for each component: each variant with what it adds to the package and what it shares."""
    widest = max((row.stored or 0 for row in rows), default=0) or 1
    numbers = {id(row): number for number, row in enumerate(rows, 1)}
    components = list(dict.fromkeys(row.component for row in rows))
    for component in components:
        title = "Variants" if len(components) == 1 else html_text(component)
        yield f"<h2>{title}</h2>"
        yield (
            "<p>A bar is what a variant takes in the package: in colour what it adds, "
            "in grey what is stored for others already.</p>"
        )
        yield '<div class="scroll"><table class="variants">\n<thead><tr>'
        yield '<th class="no"></th><th>target</th><th>state</th><th class="n">adds</th><th></th>'
        yield '<th class="n">files</th><th class="n" title="compiling + checking">time</th>'
        yield '<th class="n">nodes</th>'
        yield '<th class="n">error</th><th>ran on</th><th>compatibility string</th></tr></thead>\n<tbody>'
        for row in rows:
            if row.component == component:
                yield _variant(row, numbers[id(row)], widest, family_style(family(row), rows))
        yield "</tbody></table></div>"


def _variant(row: Row, number: int, widest: int, style: str) -> str:
    begin = (
        f'<tr style="{style}"><td class="no">{number}</td>'
        f'<td class="target name">{html_text(row.target)}</td>'
        f"<td>{_state(row)}</td>"
    )
    if row.state == "failed":
        return f'{begin}<td class="why" colspan="8">{html_text(row.reason or "")}</td></tr>'
    coverage, numerics = row.coverage, row.numerics
    counted = f"{coverage.compiled}/{coverage.nodes}" if coverage and coverage.partitions else ""
    adds, stored = row.adds or 0, row.stored or 0
    lengths = (100 * adds / widest, 100 * (stored - adds) / widest)
    bar = "".join(f'<i style="width:{length:.2f}%"></i>' for length in lengths)
    string = html_text(row.ep_string or "")
    cells = [
        _cell("adds", bytes_text(row.adds), "n"),
        f'<td class="share"><span class="bar">{bar}</span></td>',
        _cell("files", bytes_text(row.size), "n"),
        _cell("took", f"{row.steps_text} s" if row.steps_text else "", "n"),
        _cell("nodes", counted, "n"),
        _cell("error", numerics.error_text if numerics else "", "n"),
        _cell("on", numerics.ran_on) if numerics else _cell("", "not run"),
        f'<td><code class="string" title="{string}">{string}</code></td>',
    ]
    return f"{begin}{''.join(cells)}</tr>"


def _cell(what: str, text: str, kind: str = "") -> str:
    return f'<td class="{kind}" data-what="{what}">{html_text(text)}</td>' if text else "<td></td>"


def _notes(rows: Sequence[Row]) -> Iterable[str]:
    """What there is to know of variants, each sentence once."""
    told: dict[str, list[str]] = {}
    for row in rows:
        # Why a row failed stands in it.
        for text in (row.reason, row.why) if row.state == "built" else ():
            if text:
                told.setdefault(text, []).append(f"{row.component}/{row.target}")
    if not told:
        return
    yield '<h2>What there is to know</h2>\n<dl class="notes">'
    for text, names in told.items():
        yield f'<dt class="name">{html_text(", ".join(names))}</dt><dd>{html_text(text)}</dd>'
    yield "</dl>"


def _outputs(rows: Sequence[Row]) -> Iterable[str]:
    """What was compared of each output, on how many inputs, and how near it came to its tolerance."""
    having = [row for row in rows if row.numerics and row.numerics.outputs]
    if not having:
        return
    yield "<h2>Numbers</h2>\n<details><summary>Output by output, beside the portable model</summary>"
    yield '<div class="scroll"><table id="numbers">\n<thead><tr><th>variant</th><th>output</th>'
    yield '<th>measure</th><th class="n">error</th><th class="n">at most</th><th class="n">cosine</th>'
    yield "<th>inputs</th><th>to know</th></tr></thead>\n<tbody>"
    for row in having:
        numerics = row.numerics
        assert numerics is not None
        for each in numerics.outputs:
            numbers = [
                "" if value is None else form.format(value)
                for value, form in (
                    (each.error, "{:.1e}"),
                    (each.tolerance, "{:.1e}"),
                    (each.cosine, "{:.6f}"),
                )
            ]
            known = each.remark if each.not_compared is None else f"not compared: {each.not_compared}"
            texts = [f"{row.component}/{row.target}", each.name, each.measure or "", *numbers]
            texts += [f"{numerics.samples} {numerics.inputs}", known or ""]
            kinds = ["name", "name", "", "n", "n", "n", "", ""]
            cells = zip(texts, kinds, strict=True)
            yield (
                "<tr>"
                + "".join(f'<td class="{kind}">{html_text(text)}</td>' for text, kind in cells)
                + "</tr>"
            )
    yield "</tbody></table></div></details>"


def _machines(rows: Sequence[Row]) -> Iterable[str]:
    """What `aotpack check` found of variants on machines."""
    if not any(row.records for row in rows):
        return
    yield "<h2>Machines</h2>\n<p>Where <code>aotpack check</code> ran variants.</p>"
    yield '<div class="scroll"><table id="machines">\n<thead><tr><th>variant</th><th>machine</th>'
    yield '<th>system</th><th>driver</th><th>versions</th><th>ran on</th><th class="n">error</th>'
    yield '<th class="n">at most</th><th class="n">a run</th><th class="n">memory</th><th>to know</th>'
    yield "</tr></thead>\n<tbody>"
    for row in rows:
        for record in row.records:
            numerics, seconds = record.numerics, record.run_seconds
            tolerance = numerics.tolerance if numerics else None
            texts = [
                f"{row.component}/{row.target}",
                record.machine,
                f"{record.os} {record.arch}",
                record.driver or "",
                ", ".join(f"{name} {version}" for name, version in record.versions.items()),
                numerics.ran_on if numerics else "",
                numerics.error_text if numerics else "",
                "" if tolerance is None else f"{tolerance:.1e}",
                "" if seconds is None else f"{1e3 * seconds:.2f} ms",
                bytes_text(record.peak_memory) if record.peak_memory else "",
                record.failure or "",
            ]
            kinds = ["name", "name", "", "", "", "", "n", "n", "n", "n", ""]
            cells = (
                f'<td class="{kind}">{html_text(text)}</td>' for text, kind in zip(texts, kinds, strict=True)
            )
            yield f"<tr>{''.join(cells)}</tr>"
    yield "</tbody></table></div>"


def _strings(rows: Sequence[Row]) -> Iterable[str]:
    having = [row for row in rows if row.ep_string]
    if not having:
        return
    yield "<h2>Compatibility strings</h2>\n<details><summary>As the EPs wrote them</summary>"
    yield '<dl class="notes" id="strings">'
    for row in having:
        yield f'<dt class="name">{html_text(f"{row.component}/{row.target}")}</dt>'
        yield f'<dd><code class="whole-string">{html_text(row.ep_string or "")}</code></dd>'
    yield "</dl></details>"


def _logs(rows: Sequence[Row]) -> Iterable[str]:
    for row in rows:
        if row.log:
            name = html_text(f"{row.component}/{row.target}")
            yield f"<details><summary>Log of {name}</summary><pre>{html_text(row.log)}</pre></details>"


def _state(row: Row) -> str:
    state: str = row.state
    coverage = row.coverage
    if coverage and coverage.partitions and coverage.compiled < coverage.nodes:
        state = "partly"
    elif row.cached and state == "built":
        state = "kept"
    return f'<span class="state {state}">{state}</span>'
