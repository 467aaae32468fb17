"""The page of a build, as a browser without a network shows it, at the widths of a desk and of a phone."""

from __future__ import annotations

import json
import re
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

from aotpack.builder.page import page
from aotpack.builder.report import BuildReport, Row
from tests.conftest import BuiltPackage
from tests.hardware import browser

#: Shows the page in frames of two widths and writes what it measures in them.
HARNESS = """<!doctype html><body>
<iframe width="1280" height="900" srcdoc="{page}"></iframe>
<iframe width="390" height="800" srcdoc="{page}"></iframe>
<pre id="measured"></pre>
<script>
window.onload = () => {{
  const seen = (all) => [...all].filter((each) => each.getBoundingClientRect().width > 0);
  const width = (each) => each.getBoundingClientRect().width;
  const measured = [...document.querySelectorAll("iframe")].map((frame) => {{
    const inside = frame.contentDocument, root = inside.documentElement;
    return {{
      title: inside.title,
      overflows: root.scrollWidth > root.clientWidth,
      loaded: frame.contentWindow.performance.getEntriesByType("resource").map((each) => each.name),
      rows: [...inside.querySelectorAll(".variants tbody tr")].map((row) => row.innerText),
      added: [...inside.querySelectorAll("#filling i")].map(width),
      squares: seen(inside.querySelectorAll("#sharing rect")).length,
      dark: seen(inside.querySelectorAll("#sharing rect.with"))
        .filter((each) => getComputedStyle(each).fillOpacity > 0.9).length,
      matrix: seen(inside.querySelectorAll("#matrix .state")).length,
    }};
  }});
  document.getElementById("measured").textContent = JSON.stringify(measured);
}};
</script></body>
"""


@pytest.fixture(scope="module")
def report(vad: BuiltPackage) -> BuildReport:
    return BuildReport.from_json(vad.build.out)


def shown(text: str, folder: Path) -> list[dict[str, Any]]:
    """What was measured at each width."""
    harness = folder / "harness.html"
    harness.write_text(HARNESS.format(page=escape(text)), encoding="utf-8")
    command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run(
        [*command, harness.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    found = re.search(r'<pre id="measured">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stderr[-2000:]
    measured: list[dict[str, Any]] = json.loads(unescape(found[1]))
    return measured


def test_it_refers_to_nothing_outside_and_runs_nothing(report: BuildReport) -> None:
    text = page(report)
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<script|<link|<img|\son[a-z]+=", text)


def test_a_browser_shows_the_table_and_the_drawings(report: BuildReport, tmp_path: Path) -> None:
    count = len(report.rows)
    adds = [row.adds or 0 for row in report.rows]
    for measured in shown(page(report), tmp_path):
        assert measured["title"] == Path(report.package or "").name
        assert not measured["overflows"]
        assert measured["loaded"] == []
        assert len(measured["rows"]) == count
        for row, text in zip(report.rows, measured["rows"], strict=True):
            assert row.target in text
            assert row.numerics is not None
            assert f"{row.numerics.error:.1e}" in text
        # Each has a square, and so have every two that share; its part of the bar is as long as what it adds.
        assert measured["squares"] == count + sum(len(row.shares) for row in report.rows)
        whole = sum(measured["added"])
        for width, added in zip(measured["added"], adds, strict=True):
            assert width / whole == pytest.approx(added / sum(adds), abs=0.02)
        # Variants of one vendor are nearly the same bytes.
        qnn = sum(row.target.startswith("qnn") for row in report.rows)
        assert measured["dark"] >= qnn * (qnn - 1)


def test_several_components_make_a_matrix_and_a_failure_says_why(report: BuildReport, tmp_path: Path) -> None:
    failed = Row(
        target="qnn-htp-v68", component="other", state="failed", seconds=0.1, reason="It is <off>.", log="x"
    )
    again = tuple(row.replace(component="other") for row in report.rows[:2])
    several = report.replace(rows=(*report.rows, *again, failed))
    for measured in shown(page(several), tmp_path):
        assert measured["matrix"] == len(several.rows)
        assert len(measured["rows"]) == len(several.rows)
        assert "It is <off>." in measured["rows"][-1]
        assert not measured["overflows"]


def test_the_page_tells_compiling_from_checking() -> None:
    row = Row(
        target="t", component="main", state="built", seconds=40.0, compile_seconds=1.94, check_seconds=30.2
    )
    assert ">1.9+30 s<" in page(BuildReport(package="m.aotpack", size=1, rows=(row,)))
    cached = row.replace(cached=True)
    assert "1.9+30" not in page(BuildReport(package="m.aotpack", size=1, rows=(cached,)))


def test_a_build_without_a_package_has_a_page_too(tmp_path: Path) -> None:
    failed = Row(target="qnn-htp-v68", component="main", state="failed", seconds=0.1, reason="It crashed.")
    for measured in shown(page(BuildReport(package=None, rows=(failed,))), tmp_path):
        assert measured["title"] == "Nothing was packed"
        assert "It crashed." in measured["rows"][0]
        assert measured["squares"] == 0
