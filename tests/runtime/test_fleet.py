"""What the machines of a fleet get, what nobody gets, and what would help."""

from __future__ import annotations

from pathlib import Path

import pytest

from aotpack.documents.verbs import CoverageDocument
from aotpack.errors import ProfileError, UnknownName
from aotpack.machine.profile import Machine, find_machine, known
from aotpack.manifest.values import Compatibility
from aotpack.runtime.fleet import cover, machines_of
from aotpack.selection.policy import Policy
from aotpack.selection.verdict import Code, Grade
from aotpack.toolchains import toolchains
from aotpack.toolchains.openvino.string import ISA_CLASSES
from aotpack.toolchains.openvino.string import string_for as openvino
from aotpack.toolchains.qnn.string import string_for as qnn
from aotpack.toolchains.qnn.toolchain import QnnToolchain
from tests.made_packages import NEWEST_OPENVINO, component, portable, variant

CLASSES = {known.cap: known for known in ISA_CLASSES}
AVX2 = variant("openvino-cpu-avx2", openvino(NEWEST_OPENVINO, CLASSES["AVX2"]))
V73 = variant("qnn-htp-v73", qnn(73, 60, 8, "5.51.0"))
V79 = variant("qnn-htp-v79", qnn(79, 69, 8, "5.51.0"))
FLEET = {
    name: find_machine(name)
    for name in ("snapdragon-x-elite", "snapdragon-8-gen-3", "avx2-desktop", "rtx-50")
}


def test_each_machine_gets_its_best_and_what_nobody_gets_is_named() -> None:
    covered = cover(component(V73, V79, AVX2, portable()), FLEET)
    got = {name: item.chosen.id if item.chosen else None for name, item in covered.selections.items()}
    assert got == {
        "snapdragon-x-elite": "qnn-htp-v73-0",
        # A newer NPU runs what was compiled for an older one.
        "snapdragon-8-gen-3": "qnn-htp-v73-0",
        "avx2-desktop": "openvino-cpu-avx2-0",
        "rtx-50": "portable",
    }
    assert covered.unused == ("qnn-htp-v79-0",)
    assert covered.portable_only == ("rtx-50",)
    assert covered.without == ()


def test_a_machine_that_gets_nothing_is_named() -> None:
    covered = cover(component(V73), FLEET)
    assert covered.without == ("avx2-desktop", "rtx-50")
    assert covered.portable_only == ()


def test_the_target_that_would_help_most_machines_comes_first_and_then_what_helps_beside_it() -> None:
    helpful = [(item.target.name, item.machines) for item in cover(component(portable()), FLEET).helpful]
    assert helpful[0] == ("ort-cpu", tuple(FLEET)), "every machine would get it instead of the portable one"
    # Both phones and laptops run it, each of them better than the CPU; the newer one is best with its own.
    order = [name for name, _ in helpful]
    assert dict(helpful)["qnn-htp-v73"] == ("snapdragon-x-elite", "snapdragon-8-gen-3")
    assert dict(helpful)["qnn-htp-v75"] == ("snapdragon-8-gen-3",)
    assert order.index("qnn-htp-v73") < order.index("qnn-htp-v75")
    counts = [len(machines) for _, machines in helpful]
    assert counts == sorted(counts, reverse=True)
    assert "qnn-htp-v73" not in {
        item.target.name for item in cover(component(V73, portable()), FLEET).helpful
    }


@pytest.mark.parametrize("name", known())
def test_what_helps_is_what_a_machine_gets_when_it_is_added(name: str) -> None:
    """One after the other, until nothing is better than what there is."""
    fleet, held = {name: find_machine(name)}, [portable()]
    strings = {V73.target: V73, V79.target: V79, AVX2.target: AVX2}
    for helps in cover(component(*held), fleet).helpful:
        rules = toolchains()[helps.target.toolchain]
        text = rules.foreseen(helps.target)
        held.append(strings.get(helps.target.name) or variant(helps.target.name, text))
        assert helps.machines == (name,)
        chosen = cover(component(*held), fleet).gets(name)
        assert chosen is not None
        assert chosen.id == held[-1].id
    assert not cover(component(*held), fleet).helpful


def test_toolchains_that_are_not_installed_are_named_where_the_fleet_has_their_eps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(QnnToolchain, "version", lambda self: None)
    covered = cover(component(portable()), FLEET)
    assert "qnn" in covered.not_considered
    assert not [item for item in covered.helpful if item.target.toolchain == "qnn"]
    assert "qnn" not in cover(component(portable()), {"rtx-50": FLEET["rtx-50"]}).not_considered
    assert not {"ort", "tensorrt"} & set(covered.not_considered)


def test_what_nobody_can_judge_is_neither_got_nor_a_help() -> None:
    covered = cover(component(V73), {"blank": Machine(), "rtx-50": FLEET["rtx-50"]})
    assert covered.selections["blank"].last_resort
    assert covered.unsure == ("blank",)
    assert covered.without == ("rtx-50",)
    assert covered.unused == (V73.id,)
    assert all(item.machines == ("rtx-50",) for item in covered.helpful)
    document = CoverageDocument.of(covered, package="p")
    assert [(row.machine, row.chosen) for row in document.machines] == [("blank", None), ("rtx-50", None)]


def test_an_npu_that_runs_an_older_ones_blob_comes_before_the_cpu_unless_the_policy_says_otherwise() -> None:
    both = component(variant("ort-cpu"), V73, portable())
    newer = {"snapdragon-8-gen-3": FLEET["snapdragon-8-gen-3"]}

    def got(policy: Policy | None = None) -> str:
        chosen = cover(both, newer, policy).gets("snapdragon-8-gen-3")
        assert chosen is not None
        return chosen.variant.target

    assert got() == got(Policy(devices=["npu", "cpu"])) == "qnn-htp-v73"
    assert got(Policy(devices=["cpu", "npu"])) == "ort-cpu"


def test_a_policy_counts_for_the_whole_fleet() -> None:
    covered = cover(component(V73, AVX2, portable()), FLEET, Policy(devices=["cpu"]))
    assert covered.unused == ("qnn-htp-v73-0",)
    assert "npu" not in {item.target.device for item in covered.helpful}


def test_no_machine_gets_what_does_not_fit_it() -> None:
    """Every variant of every vendor against every known machine."""
    everything = component(
        *(
            variant(
                f"openvino-cpu-{cap.lower().replace('_core', '').replace('_', '-')}",
                openvino(NEWEST_OPENVINO, CLASSES[cap]),
            )
            for cap in ("SSE41", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_AMX")
            if cap != "AVX512_CORE_AMX"
        ),
        variant("openvino-cpu-amx", openvino(NEWEST_OPENVINO, CLASSES["AVX512_CORE_AMX"])),
        V73,
        V79,
        portable(),
    )
    covered = cover(everything, machines_of([]))
    assert set(covered.selections) == set(known())
    for name, selection in covered.selections.items():
        assert selection.chosen is not None, name
        assert len(selection.candidates) == len(everything.variants)
        for candidate in selection.candidates:
            if candidate.accepted:
                assert candidate.verdict.grade in (Grade.OPTIMAL, Grade.PREFER_RECOMPILATION)
            assert candidate.verdict.reason


def test_machines_are_names_files_and_folders(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.json").write_text(Machine(os="linux").to_json(), encoding="utf-8")
    (tmp_path / "notes.txt").write_text("no profile")
    found = machines_of(["rtx-50", str(tmp_path), str(tmp_path / "one.json")])
    assert list(found) == ["rtx-50", "one", "two"]
    assert found["two"].os == "linux"
    assert list(machines_of([])) == list(known())


def test_two_machines_of_one_name_are_not_taken_for_one(tmp_path: Path) -> None:
    path = tmp_path / "rtx-50.json"
    path.write_text(FLEET["rtx-50"].to_json(), encoding="utf-8")
    assert list(machines_of(["rtx-50", str(path)])) == ["rtx-50"], "the same one twice"
    path.write_text(Machine(os="linux").to_json(), encoding="utf-8")
    with pytest.raises(ProfileError, match="rtx-50: two machines have this name"):
        machines_of(["rtx-50", str(tmp_path)])


def test_a_folder_without_profiles_and_a_name_that_is_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="holds no machine profile"):
        machines_of([str(tmp_path)])
    with pytest.raises(UnknownName, match="rtx-50"):
        machines_of(["rtx-5"])
    (tmp_path / "bad.json").write_text('{"gpus": 1}')
    with pytest.raises(ProfileError, match="gpus"):
        machines_of([str(tmp_path)])


#: Strings of forms that are not known here: of a newer release, of another kind, of none.
STRANGE = (
    ("openvino-cpu-avx2", '{"ovep_compat_ver":"2.0","ovep_bin_ver":"1.1","ov_compat_string":"x"}'),
    ("openvino-cpu-avx2", '{"ovep_compat_ver":"1.0","ovep_bin_ver":"9.0","ov_compat_string":"x"}'),
    ("openvino-cpu-avx2", '{"ovep_compat_ver":"1.0","ovep_bin_ver":"1.1","ov_compat_string":"meta=2.0;x"}'),
    ("openvino-cpu-avx2", "v2:6:2.51.0:5.51.0:73:60:8:0"),
    ("qnn-htp-v73", "v3:6:2.51.0:5.51.0:73:60:8:0"),
    ("qnn-htp-v73", "{}"),
    ("tensorrt-rtx-sm89", "00" * 64),
    ("tensorrt-rtx-sm89", "76747274" + "00" * 4 + "09000000" + "00" * 52),
    ("openvino-cpu-avx2", None),
    ("qnn-htp-v73", None),
    ("tensorrt-rtx-sm89", None),
)


@pytest.mark.parametrize(("target", "text"), STRANGE)
def test_a_string_of_an_unknown_form_fits_no_machine(target: str, text: str | None) -> None:
    strange = variant(target).replace(compatibility=Compatibility(ep_string=text))
    for name, selection in cover(component(strange, portable()), machines_of([])).selections.items():
        assert selection.chosen is not None
        assert selection.chosen.portable, name
        (verdict,) = [item.verdict for item in selection.candidates if not item.portable]
        assert verdict.grade in (Grade.UNKNOWN, Grade.UNSUPPORTED)


@pytest.mark.parametrize(
    "lie",
    [
        {"arch": "aarch64"},
        {"arch": None, "cpu": {"vendor": "GenuineIntel", "features": ("avx2",)}},
        {"cpu": {"vendor": "GenuineIntel", "features": ("avx", "avx2", "avx512bw", "sse4_1")}},
    ],
    ids=["an ARM with AVX2", "AVX2 without AVX", "AVX-512 without its foundation"],
)
def test_a_profile_that_lies_of_its_cpu_gets_nothing_compiled_for_it(lie: dict[str, object]) -> None:
    desktop = FLEET["avx2-desktop"].to_builtins() | lie
    machine = Machine.from_builtins(desktop)
    (selection,) = cover(component(AVX2, portable()), {"liar": machine}).selections.values()
    assert selection.chosen is not None
    assert selection.chosen.portable
    (verdict,) = [item.verdict for item in selection.candidates if not item.portable]
    assert (verdict.grade, verdict.code) in {
        (Grade.UNKNOWN, Code.PROFILE_CONTRADICTS),
        (Grade.UNSUPPORTED, Code.ARCH),
    }


def test_a_package_with_nothing_for_anybody_says_why_of_each() -> None:
    covered = cover(component(V79), {"avx2-desktop": FLEET["avx2-desktop"]})
    (selection,) = covered.selections.values()
    assert selection.chosen is None
    assert [item.verdict.code for item in selection.rejected] == [Code.EP_MISSING]
    assert "No variant fits this machine." in selection.explain()
    assert not cover(component(), FLEET).selections["rtx-50"].candidates
