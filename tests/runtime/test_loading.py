"""Down the candidates: what is a miss, what is done at one, and what is said when nothing is left."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

import aotpack as api
from aotpack.cache.variants import Cache
from aotpack.container.reader import PackageReader
from aotpack.errors import NothingToLoad, UsageError
from aotpack.manifest.values import Variant
from aotpack.runtime.events import Event, EventCode
from aotpack.runtime.load_options import LoadOptions, OnMiss
from aotpack.selection.policy import Policy
from aotpack.selection.select import Candidate, Selection
from aotpack.selection.verdict import Code, Grade, Verdict
from samples.made_models import cnn
from tests.command_line import aotpack
from tests.repack import repack


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package with the portable variant and ONNX Runtime's own."""
    folder = tmp_path_factory.mktemp("small")
    onnx.save(cnn(layers=2, channels=4, size=8), folder / "small.onnx")
    done = aotpack("build", folder / "small.onnx", "-t", "ort-cpu", "-o", folder / "small.aotpack")
    assert done.status == 0, done.err
    return folder / "small.aotpack"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AOTPACK_CACHE", str(tmp_path / "cache"))


def without(target: str, package: Path, folder: Path) -> Path:
    return repack(package, folder / "fewer.aotpack", lambda each: None if each.target == target else each)


def judged(package: api.Package, grade: Grade, *targets: str, policy: Policy | None = None) -> Selection:
    """A selection of these targets alone, all of one grade, as if the machine were another."""
    verdict = Verdict(grade, Code.OLDER_DEVICE, "As if it were older.")
    chosen = [each for each in package.component().variants if each.target in targets]
    candidates = tuple(Candidate(each, verdict, grade is not Grade.UNSUPPORTED) for each in chosen)
    return Selection("main", candidates, policy=policy or Policy())


@pytest.mark.parametrize("text", ["portable", "compile", "compile-in-background", "error"])
def test_what_is_done_at_a_miss_has_four_names(text: OnMiss) -> None:
    assert LoadOptions(on_miss=text).on_miss == text


@pytest.mark.parametrize("text", ["", "Portable", "ignore"])
def test_another_name_is_a_usage_error(small: Path, text: str) -> None:
    with pytest.raises(UsageError, match="compile-in-background"):
        LoadOptions(on_miss=text)  # type: ignore[arg-type]
    assert "unknown on_miss" in aotpack("run", small, "--on-miss", text or "-").error


def test_a_variant_that_fits_is_no_miss(small: Path) -> None:
    events: list[Event] = []
    with api.open(small) as package:
        loaded = package.load_first(on_miss="error", on_event=events.append)
    assert loaded.candidate.variant.target == "ort-cpu"
    assert [event.code for event in events] == [EventCode.LOADED]


def test_with_nothing_but_portable_one_may_take_it_or_refuse_it(small: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    with api.open(without("ort-cpu", small, tmp_path)) as package:
        assert package.load_first(on_event=events.append).candidate.portable
        assert [event.code for event in events] == [EventCode.PORTABLE_ONLY, EventCode.LOADED]
        with pytest.raises(NothingToLoad) as caught:
            package.load(on_miss="error")
    (refusal,) = caught.value.refusals
    assert refusal.variant.startswith("portable")
    assert refusal.reason


def test_one_that_would_be_better_compiled_anew_is_a_miss_and_is_not_lost(small: Path) -> None:
    events: list[Event] = []
    with api.open(small) as package:
        older = judged(package, Grade.PREFER_RECOMPILATION, "ort-cpu")
        taken = package.load_first(older, on_miss="portable", on_event=events.append)
        assert taken.candidate.variant.target == "ort-cpu"
        assert EventCode.RECOMPILING not in {event.code for event in events}
        events.clear()
        mended = package.load_first(
            judged(package, Grade.PREFER_RECOMPILATION, "ort-cpu"), on_miss="compile", on_event=events.append
        )
    # Without the portable variant in the selection the package still has it to compile from.
    assert [event.code for event in events][-1] is EventCode.LOADED
    assert EventCode.RECOMPILED in {event.code for event in events}
    assert mended.candidate.verdict.grade is Grade.OPTIMAL


def test_a_variant_that_was_asked_for_by_its_id_is_no_miss(small: Path) -> None:
    events: list[Event] = []
    with api.open(small) as package:
        (portable,) = [each.id for each in package.component().variants if each.target == "portable"]
        loaded = package.load_first(
            policy=Policy(variant=portable), on_miss="compile", on_event=events.append
        )
    assert loaded.candidate.portable
    assert EventCode.RECOMPILING not in {event.code for event in events}


@pytest.mark.parametrize("on_miss", ["compile", "compile-in-background"])
def test_without_a_portable_onnx_nothing_can_be_compiled_and_that_is_said(
    small: Path, tmp_path: Path, on_miss: OnMiss
) -> None:
    events: list[Event] = []
    with api.open(without("portable", small, tmp_path)) as package:
        loaded = package.load_first(
            judged(package, Grade.PREFER_RECOMPILATION, "ort-cpu"), on_miss=on_miss, on_event=events.append
        )
        if loaded.compiling is not None:
            loaded.compiling.join(60)
    assert loaded.candidate.variant.target == "ort-cpu"
    (failed,) = [event for event in events if event.code is EventCode.RECOMPILE_FAILED]
    assert "no portable ONNX" in failed.reason


def test_a_portable_onnx_that_is_rotten_costs_the_recompilation_alone(small: Path, tmp_path: Path) -> None:
    rotten = tmp_path / "rotten.aotpack"
    content = bytearray(small.read_bytes())
    with PackageReader.open(small) as reader:
        ort, portable = reader.manifest.variants()
        used = {index for file in ort.files for index in file.segments}
        (mine, *_) = [index for file in portable.files for index in file.segments if index not in used]
        content[reader.manifest.segments[mine].offset] ^= 1
    rotten.write_bytes(content)
    events: list[Event] = []
    with api.open(rotten) as package:
        older = judged(package, Grade.PREFER_RECOMPILATION, "ort-cpu")
        loaded = package.load_first(older, on_miss="compile", on_event=events.append)
    assert loaded.candidate.variant.target == "ort-cpu"
    assert [event.code for event in events] == [EventCode.RECOMPILE_FAILED, EventCode.LOADED]
    assert f"segments[{mine}]" in events[0].reason


def test_a_policy_that_leaves_no_device_compiles_nothing(small: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    with api.open(without("ort-cpu", small, tmp_path)) as package, pytest.raises(NothingToLoad):
        package.load_first(policy=Policy(devices=["npu"]), on_miss="compile", on_event=events.append)
    assert EventCode.RECOMPILED not in {event.code for event in events}
    (failed,) = [event for event in events if event.code is EventCode.RECOMPILE_FAILED]
    assert "compiles for none of the devices" in failed.reason
    assert [event.code for event in events if event.verdict == Code.POLICY] == [EventCode.NOT_TAKEN]


def test_what_is_compiled_here_outlasts_a_cache_that_is_emptied(small: Path, tmp_path: Path) -> None:
    """Another process may run `aotpack cache prune --limit 0` while it is compiled, and when it is done."""
    events: list[EventCode] = []

    def empty_the_cache(event: Event) -> None:
        events.append(event.code)
        Cache().prune(0)

    with api.open(without("ort-cpu", small, tmp_path)) as package:
        loaded = package.load_first(on_miss="compile", on_event=empty_the_cache)
    assert not loaded.candidate.portable
    assert loaded.refused == ()
    assert events == [EventCode.RECOMPILING, EventCode.RECOMPILED, EventCode.LOADED]
    # Nothing is held any longer.
    Cache().prune(0)
    assert Cache().size() == 0


def test_what_was_compiled_for_one_policy_is_not_taken_by_another(small: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    only_qnn = Policy(eps=frozenset({"QNNExecutionProvider"}))
    with api.open(without("ort-cpu", small, tmp_path)) as package:
        compiled = package.load_first(on_miss="compile")
        assert compiled.candidate.variant.ep not in (only_qnn.eps or ())
        assert not compiled.candidate.portable
        with pytest.raises(NothingToLoad):
            package.load_first(policy=only_qnn, on_miss="compile", on_event=events.append)
        assert EventCode.LOADED not in {event.code for event in events}
        events.clear()
        too_large = Policy(memory_limit=compiled.candidate.variant.size - 1)
        other = package.load_first(policy=too_large, on_miss="compile", on_event=events.append)
        assert other.candidate.portable, "it is smaller"
    assert ("not-taken", "memory") in {(event.code.value, event.verdict) for event in events}


def test_what_was_compiled_for_a_lesser_device_does_not_take_the_place_of_a_better_one(small: Path) -> None:
    """An NPU that runs a blob for an older one, on a machine that compiles for nothing but its CPU."""
    events: list[Event] = []
    with api.open(small) as package:
        ort, portable = package.component().variants
        npu = ort.replace(id="npu", device="npu")
        assert portable.target == "portable"
        older = Verdict(Grade.PREFER_RECOMPILATION, Code.OLDER_DEVICE, "As if it were older.")
        fits = Verdict(Grade.OPTIMAL, Code.PORTABLE, "As ever.")
        selection = Selection("main", (Candidate(npu, older, True), Candidate(portable, fits, True)))
        for _ in range(2):
            loaded = package.load_first(selection, on_miss="compile", on_event=events.append)
            assert loaded.candidate.id == "npu"
        assert EventCode.RECOMPILED not in {event.code for event in events}
        # Once nothing but the portable variant is left, the CPU is worth compiling for.
        refused = npu.replace(toolchain="nobody")
        left = Selection("main", (Candidate(refused, older, True), Candidate(portable, fits, True)))
        loaded = package.load_first(left, on_miss="compile", on_event=events.append)
    assert not loaded.candidate.portable
    assert [refusal.variant for refusal in loaded.refused] == ["npu"]


def test_the_command_line_waits_for_what_it_compiles_in_the_background(small: Path, tmp_path: Path) -> None:
    package = without("ort-cpu", small, tmp_path)
    first = aotpack("run", package, "--runs", 1, "--on-miss", "compile-in-background", "--json")
    assert first.document("run")["target"] == "portable"
    assert "compiling for this machine" in first.err
    second = aotpack("run", package, "--runs", 1, "--on-miss", "compile-in-background", "--json")
    assert second.document("run")["target"] != "portable"


def test_what_a_listener_raises_is_the_callers(small: Path) -> None:
    def upset(event: Event) -> None:
        raise KeyError(event.variant)

    with api.open(small) as package, pytest.raises(KeyError):
        package.load(on_event=upset)


def test_the_last_resort_is_reported_before_it_is_tried(small: Path, tmp_path: Path) -> None:
    def of_nobody(variant: Variant) -> Variant:
        return variant.replace(toolchain="nobody")

    events: list[Event] = []
    with api.open(repack(small, tmp_path / "n.aotpack", of_nobody)) as package:
        selection = package.select()
        assert selection.last_resort
        with pytest.raises(NothingToLoad, match="toolchain nobody: is not known here"):
            package.load(selection, on_event=events.append)
    codes = [event.code for event in events]
    assert codes.count(EventCode.LAST_RESORT) == codes.count(EventCode.REFUSED) == 2
    assert codes.index(EventCode.LAST_RESORT) < codes.index(EventCode.REFUSED)
