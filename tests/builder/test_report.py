"""Reports of builds, as JSON and back."""

from __future__ import annotations

import pytest
from msgspec import ValidationError

from aotpack.builder.report import BuildReport, Row
from aotpack.manifest.values import Coverage, Numerics

BUILT = Row(
    target="qnn-htp-v73",
    component="main",
    state="built",
    seconds=1.5,
    id="qnn-htp-v73-0123abcd",
    coverage=Coverage(nodes=3, compiled=2, partitions=1, left_on_cpu={"Det": 1}),
    numerics=Numerics(max_abs=0.1, error=0.01, tolerance=0.03, ran_on="emulator"),
    shares={"main/other": 3},
)
FAILED = Row(target="ort-cpu", component="main", state="failed", seconds=0, reason="no")


def test_what_failed_are_the_rows_without_a_variant() -> None:
    assert BuildReport(package=None, rows=(BUILT, FAILED)).failed == (FAILED,)
    assert BuildReport(package="p", rows=(BUILT,)).failed == ()


def test_it_is_the_same_after_a_way_through_json() -> None:
    report = BuildReport(package="p.aotpack", size=10, seconds=2.5, rows=(BUILT, FAILED))
    assert BuildReport.from_json(report.to_json()) == report


@pytest.mark.parametrize("change", [{"state": "kept"}, {"seconds": "1"}, {"size": 1.5}, {"more": 1}])
def test_what_no_build_says_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Row.from_builtins({**FAILED.to_builtins(), **change})
