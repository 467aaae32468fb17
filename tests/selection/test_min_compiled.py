"""A variant that leaves most of a model on the CPU is not the best one for a device for that alone."""

from __future__ import annotations

from pathlib import Path

import pytest

import aotpack
from aotpack.errors import BuildFailed, UsageError
from aotpack.machine.profile import find_machine
from aotpack.manifest.values import Component, Coverage, Variant
from aotpack.runtime.events import Event, EventCode
from aotpack.selection.policy import Policy, share_compiled
from aotpack.selection.select import Selection, select
from aotpack.selection.verdict import Code, Grade
from aotpack.toolchains import toolchains
from aotpack.toolchains.qnn.string import string_for
from tests.command_line import aotpack as command
from tests.made_packages import component, portable, variant
from tests.repack import repack

#: As it was seen: 958 of 2,755 nodes of a detection model, in 32 partitions.
SEEN = Coverage(nodes=2755, compiled=958, partitions=32, left_on_cpu={"GridSample": 1797})


def covered(name: str, coverage: Coverage | None, text: str | None = None) -> Variant:
    return variant(name, text).replace(coverage=coverage)


NPU = covered("qnn-htp-v73", SEEN, string_for(73, 60, 8, "5.51.0"))


def chosen(made: Component, **policy: object) -> Selection:
    machine = find_machine("snapdragon-x-elite")
    return select(made, machine, toolchains(), here=False, policy=Policy(**policy))  # type: ignore[arg-type]


def test_it_comes_after_the_cpu_and_before_the_portable_variant() -> None:
    cpu = covered("ort-cpu", Coverage(nodes=2755, compiled=2755, partitions=1))
    selection = chosen(component(NPU, cpu, portable()))
    assert [each.variant.target for each in selection.accepted] == ["ort-cpu", "qnn-htp-v73", "portable"]
    npu = selection.accepted[1]
    assert (npu.verdict.grade, npu.verdict.code) == (Grade.PREFER_RECOMPILATION, Code.PARTLY_COMPILED)
    assert "only 958 of 2,755 nodes were compiled, in 32 partitions" in npu.verdict.reason


def test_the_share_is_the_policys() -> None:
    cpu = covered("ort-cpu", None)
    made = component(NPU, cpu, portable())
    for share, first in ((0, "qnn-htp-v73"), (958 / 2755, "qnn-htp-v73"), (0.35, "ort-cpu"), (1, "ort-cpu")):
        best = chosen(made, min_compiled=share).chosen
        assert best is not None
        assert best.variant.target == first, share
    whole = covered(
        "qnn-htp-v73", Coverage(nodes=9, compiled=8, partitions=1), string_for(73, 60, 8, "5.51.0")
    )
    best = chosen(component(whole, cpu)).chosen
    assert best is not None
    assert (best.variant.target, best.verdict.grade) == ("qnn-htp-v73", Grade.OPTIMAL)


def test_who_wants_the_npu_alone_has_it() -> None:
    best = chosen(component(NPU, portable()), devices=["npu"]).chosen
    assert best is not None
    assert best.verdict.code is Code.PARTLY_COMPILED


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), 50])
def test_a_share_is_between_0_and_1(share: float) -> None:
    with pytest.raises(UsageError, match="min_compiled: is no share"):
        Policy(min_compiled=share)


@pytest.mark.parametrize("share", [1.5, "0.5", True])
def test_a_build_takes_the_same_shares(small_model: Path, tmp_path: Path, share: float) -> None:
    with pytest.raises(UsageError, match=r"^min_compiled: .*expected 0 to 1"):
        aotpack.build(small_model, targets=["ort-cpu"], output=tmp_path / "m.aotpack", min_compiled=share)


def test_what_nobody_counted_or_compiled_is_not_held_against_a_variant() -> None:
    assert share_compiled(None) == 1
    assert share_compiled(Coverage(nodes=9, compiled=0, partitions=0)) == 1, "the portable variant"
    assert share_compiled(Coverage(nodes=0, compiled=0, partitions=1)) == 1
    assert share_compiled(Coverage(nodes=4, compiled=1, partitions=1)) == 0.25


@pytest.fixture(scope="module")
def partly(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package with ONNX Runtime's variant as if little of it had been compiled, and the portable one."""
    folder = tmp_path_factory.mktemp("partly")
    aotpack.build(small_model, targets=["ort-cpu"], output=folder / "m.aotpack")

    def little(each: Variant) -> Variant:
        return each if each.target == "portable" else each.replace(coverage=SEEN)

    return repack(folder / "m.aotpack", folder / "partly.aotpack", little)


def test_to_compile_it_anew_would_not_help(
    partly: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AOTPACK_CACHE", str(tmp_path))
    told: list[Event] = []
    with aotpack.open(partly) as package:
        loaded = package.load_first(on_miss="compile", on_event=told.append)
    assert loaded.candidate.verdict.code is Code.PARTLY_COMPILED
    assert [event.code for event in told] == [EventCode.LOADED]


def test_the_command_line_takes_a_share(partly: Path) -> None:
    for share, code in (("0.5", "partly-compiled"), ("0.3", "fits")):
        document = command("select", partly, "--min-compiled", share, "--json").document("selection")
        assert document["candidates"][0]["code"] == code
    assert command("run", partly, "--min-compiled", "0.3", "--runs", 1).status == 0
    assert "0 to 1" in command("select", partly, "--min-compiled", "50").error


@pytest.fixture(scope="module")
def mostly_left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of which QNN takes the first and the last node and leaves those between to the CPU."""
    import onnx

    path = tmp_path_factory.mktemp("left") / "left.onnx"
    nodes = "n0 = Relu(x) " + "".join(f"n{i} = Mod<fmod=1>(n{i - 1}, two) " for i in range(1, 7))
    text = (
        '<ir_version: 10, opset_import: ["": 21]> g (float[1, 4] x) => (float[1, 4] y) '
        f"<float two = {{2.0}}> {{ {nodes} y = Relu(n6) }}"
    )
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def test_a_build_warns_and_refuses_on_demand(mostly_left: Path, tmp_path: Path) -> None:
    report = aotpack.build(mostly_left, targets=["qnn-htp-v73"], output=tmp_path / "m.aotpack")
    (row,) = [row for row in report.rows if row.target == "qnn-htp-v73"]
    assert row.coverage is not None
    assert share_compiled(row.coverage) < 0.5, row.coverage
    assert row.reason is not None
    assert row.reason.startswith(f"Only {row.coverage.compiled} of {row.coverage.nodes} nodes were compiled")
    with pytest.raises(BuildFailed) as caught:
        aotpack.build(mostly_left, targets=["qnn-htp-v73"], output=tmp_path / "n.aotpack", min_compiled=0.9)
    failed, kept = caught.value.report.rows
    assert (failed.state, kept.state) == ("failed", "built")
    assert failed.reason is not None
    assert failed.reason.startswith("too little was compiled: ")
    assert "90% were asked for" in failed.reason
    done = command(
        "build", mostly_left, "-t", "qnn-htp-v73", "-o", tmp_path / "o.aotpack", "--min-compiled", "0.9"
    )
    assert "too little was compiled" in done.error
    (tmp_path / "b.toml").write_text(
        f'name = "b"\nmin_compiled = 0.9\n[[component]]\nname = "main"\nmodel = "{mostly_left}"\n'
        '[[target]]\ntarget = "qnn-htp-v73"\n'
    )
    assert "too little was compiled" in command("build", tmp_path / "b.toml").error
