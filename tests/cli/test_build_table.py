"""The table of a build: what fits 80 columns, and all of it where the terminal is wider."""

from __future__ import annotations

import io

import pytest

from aotpack.builder.report import BuildReport, Row
from aotpack.cli import output
from aotpack.cli.build import show_report
from aotpack.manifest.values import Coverage, Numerics

STRING = "v2:6:2.51.0:5.51.0:73,75,79,81:60,57,69,88:8,8,8,8:0:" + "x" * 80

REPORT = BuildReport(
    package="p.aotpack",
    size=1_000,
    seconds=1.0,
    rows=(
        Row(
            target="qnn-htp-v73+v75+v79+v81",
            component="main",
            state="built",
            seconds=1.0,
            id="x-1",
            size=999_000_000,
            adds=999_000_000,
            ep_string=STRING,
            coverage=Coverage(nodes=4321, compiled=4321, partitions=1),
        ),
        Row(
            target="openvino-cpu-avx2",
            component="main",
            state="built",
            seconds=1099.8,
            compile_seconds=999.4,
            check_seconds=9.9,
            id="x-2",
            size=999_000,
            adds=999_000,
            coverage=Coverage(nodes=61, compiled=60, partitions=1, left_on_cpu={"If": 1}),
            numerics=Numerics(max_abs=1e-3, error=1e-3, tolerance=0.1, ran_on="isa-emulation"),
        ),
        Row(target="tensorrt", component="main", state="failed", seconds=0.0, reason="It is not here."),
    ),
)


@pytest.fixture
def lines(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is printed on a terminal of so many columns."""
    stream = io.StringIO()
    monkeypatch.setattr(output, "_stdout", stream)
    monkeypatch.setenv("COLUMNS", str(request.param))
    show_report(REPORT, as_json=False)
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("lines", [80, 108], indirect=True)
def test_what_matters_most_fits_80_columns(lines: list[str]) -> None:
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["target", "state", "seconds", "size", "adds", "error", "ran", "on"]
    first, second, third = lines[2:5]
    assert first.split()[-2:] == ["not", "run"], "nobody shall take it for one that has"
    assert second.split() == [
        *("openvino-cpu-avx2", "partly", "999+9.9", "999", "kB", "999", "kB"),
        *("1.0e-03", "isa-emulation"),
    ]
    assert third.split() == ["tensorrt", "failed"]


@pytest.mark.parametrize("lines", [120, 140], indirect=True)
def test_a_wide_terminal_shows_nodes_and_strings_too(
    lines: list[str], request: pytest.FixtureRequest
) -> None:
    width = request.node.callspec.params["lines"]
    assert max(map(len, lines)) <= width
    assert lines[0].rstrip().endswith("nodes  compatibility string")
    first, second, third = (line.rstrip() for line in lines[2:5])
    assert "  4321/4321  v2:6:2.51.0:5." in first
    assert first.endswith("…")
    assert second.endswith("isa-emulation      60/61")
    assert third.split() == ["tensorrt", "failed"]
