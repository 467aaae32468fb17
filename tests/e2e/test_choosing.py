"""Choosing for other machines, by measurement and by policy; what is done where nothing fits well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import aotpack as api
from aotpack.errors import NothingToLoad
from aotpack.machine.profile import find_machine, known
from aotpack.manifest.values import Variant
from aotpack.runtime.events import Event, EventCode
from aotpack.targets.catalogue import find
from aotpack.toolchains import toolchains
from tests.command_line import aotpack
from tests.conftest import BuiltPackage
from tests.repack import repack, with_string

NPU_MACHINE = "snapdragon-x-elite"


@pytest.fixture
def portable_only(vad: BuiltPackage, tmp_path: Path) -> Path:
    """A package with nothing but the portable variant."""
    out = tmp_path / "portable.aotpack"
    assert aotpack("prune", vad.path, "--keep", "portable", "-o", out).status == 0
    return out


def test_an_npu_takes_the_blob_that_was_compiled_for_it(vad: BuiltPackage) -> None:
    selection = aotpack("select", vad.path, "--machine", NPU_MACHINE, "--json").document("selection")
    best, *others = selection["candidates"]
    assert (best["target"], best["verdict"], best["by"]) == ("qnn-htp-v73", "OPTIMAL", "rules")
    verdicts = {each["target"]: each["code"] for each in others}
    assert verdicts["qnn-htp-v79"] == "other-device"
    assert {item["what"]: item["found"] for item in best["compared"]}["VTCM"] == "8 MB"


def test_a_profile_written_by_one_machine_is_judged_alike_on_another(
    vad: BuiltPackage, tmp_path: Path
) -> None:
    profile = tmp_path / "me.json"
    profile.write_text(aotpack("machine").out, encoding="utf-8")
    here = aotpack("select", vad.path, "--json").document("selection")
    there = aotpack("select", vad.path, "--machine", profile, "--json").document("selection")
    assert [each["id"] for each in here["candidates"]] == [each["id"] for each in there["candidates"]]
    assert [each["verdict"] for each in here["candidates"]] == [
        each["verdict"] for each in there["candidates"]
    ]


def test_what_a_profile_leaves_out_never_fits(vad: BuiltPackage, tmp_path: Path) -> None:
    profile = tmp_path / "empty.json"
    profile.write_text("{}", encoding="utf-8")
    selection = aotpack("select", vad.path, "--machine", profile, "--json").document("selection")
    for candidate in selection["candidates"]:
        if candidate["target"] != "portable":
            assert candidate["verdict"] in {"UNKNOWN", "UNSUPPORTED"}, candidate


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "not a machine profile"),
        ('{"os": "linux", "os": "windows"}', "duplicate key"),
        ('{"cpu": {"flags": []}}', "flags"),
        ('{"memory": -1}', "memory"),
        ('{"profile": "2"}', "profile"),
    ],
)
def test_a_profile_that_is_none_is_refused(
    vad: BuiltPackage, tmp_path: Path, text: str, expected: str
) -> None:
    profile = tmp_path / "bad.json"
    profile.write_text(text, encoding="utf-8")
    assert expected in aotpack("select", vad.path, "--machine", profile).error


def test_an_unknown_machine_is_told_the_nearest(vad: BuiltPackage) -> None:
    error = aotpack("select", vad.path, "--machine", "snapdragon-x-elit").error
    assert "did you mean snapdragon-x-elite" in error


def test_a_fleet_is_shown_as_a_matrix(vad: BuiltPackage) -> None:
    done = aotpack("coverage", vad.path, "--machines", f"{NPU_MACHINE},avx2-desktop,rtx-50", "--json")
    document = done.document("coverage")
    got = {row["machine"]: row["chosen"] or "" for row in document["machines"]}
    assert got[NPU_MACHINE].startswith("qnn-htp-v73")
    built = {row["target"] for row in vad.build.document("build-report")["rows"]}
    assert got["avx2-desktop"].startswith("openvino-cpu-avx2" if "openvino-cpu-avx2" in built else "ort-cpu")
    text = aotpack("coverage", vad.path).out
    assert "would help most: " in text
    assert "nobody gets: " in text
    assert max(map(len, text.splitlines())) <= 80


def test_policies_narrow_and_reorder_and_never_force(vad: BuiltPackage) -> None:
    def targets(*arguments: str) -> list[str]:
        selection = aotpack("select", vad.path, *arguments, "--json").document("selection")
        return [each["target"] for each in selection["candidates"] if each["accepted"]]

    assert targets("--ep", "CPUExecutionProvider") == ["ort-cpu", "portable"]
    assert targets("--devices", "npu") == []
    assert "qnn-htp-v73" not in targets("--devices", "npu,cpu")
    manifest = json.loads(aotpack("inspect", vad.path, "--json").out)
    ids = {variant["target"]: variant["id"] for variant in manifest["components"][0]["variants"]}
    chosen = aotpack("run", vad.path, "--json", env={"AOTPACK_VARIANT": ids["ort-cpu"]}).document("run")
    assert chosen["variant"] == ids["ort-cpu"]
    refused = aotpack("run", vad.path, env={"AOTPACK_VARIANT": ids["qnn-htp-v73"]})
    assert "only when asked for" in refused.error
    unknown = aotpack("run", vad.path, env={"AOTPACK_VARIANT": "ort-cup"})
    assert "did you mean" in unknown.error or "unknown variant" in unknown.error


@pytest.mark.parametrize(
    ("options", "policy"),
    [
        ((), {}),
        (("--devices", "npu,cpu"), {"devices": ["npu", "cpu"]}),
        (("--devices", "cpu"), {"devices": ["cpu"]}),
        (("--prefer", "latency"), {"prefer": "latency"}),
        (("--ep", "CPUExecutionProvider"), {"eps": frozenset({"CPUExecutionProvider"})}),
        (("--memory-limit", "1M"), {"memory_limit": 1_000_000}),
        (("--measured",), {"measured": True}),
        (("--emulate", "--devices", "cpu,npu"), {"emulate": True, "devices": ["cpu", "npu"]}),
    ],
)
@pytest.mark.parametrize("machine", [None, NPU_MACHINE, "core-ultra-2"])
def test_the_command_line_and_the_api_give_the_same_order(
    vad: BuiltPackage, machine: str | None, options: tuple[str, ...], policy: dict[str, Any]
) -> None:
    at = ("--machine", machine) if machine else ()
    document = aotpack("select", vad.path, *at, *options, "--json").document("selection")
    with api.open(vad.path) as package:
        selection = package.select(
            machine=find_machine(machine) if machine else None, policy=api.Policy(**policy)
        )
    assert [
        (each["id"], each["accepted"], each["verdict"], each["code"]) for each in document["candidates"]
    ] == [
        (each.id, each.accepted, each.verdict.grade.value, each.verdict.code.value)
        for each in selection.candidates
    ]
    assert document["chosen"] == (selection.chosen.id if selection.chosen else None)


@pytest.mark.parametrize("emulate", [False, True])
def test_the_variable_that_names_a_variant_never_makes_it_fit(
    vad: BuiltPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, emulate: bool
) -> None:
    """Emulated or not: a blob of a newer runtime than the one that is here."""

    def newer(variant: Variant) -> Variant:
        text = variant.compatibility.ep_string or ""
        return (
            with_string(variant, text.replace(":5.51.0:", ":9.99.0:")) if variant.device == "npu" else variant
        )

    package = repack(vad.path, tmp_path / "newer.aotpack", newer)
    with api.open(package) as opened:
        (wanted,) = [each.id for each in opened.component().variants if each.target == "qnn-htp-v73"]
        monkeypatch.setenv("AOTPACK_VARIANT", wanted)
        selection = opened.select(emulate=emulate)
        assert selection.accepted == ()
        with pytest.raises(NothingToLoad, match=r"QNN backend API at least 9\.99\.0; here it is 5"):
            opened.load(emulate=emulate)
    refused = aotpack("run", package, *(["--emulate"] if emulate else []))
    assert wanted in refused.error
    assert refused.out == ""


@pytest.mark.parametrize("name", known())
def test_every_machine_is_named_on_the_command_line_and_explained_in_80_columns(
    vad: BuiltPackage, name: str
) -> None:
    done = aotpack("select", vad.path, "--machine", name, "--compared")
    assert done.status == 0, done.err
    assert max(map(len, done.out.splitlines())) <= 80
    assert done.out.startswith("->")


def test_a_package_with_nothing_for_this_machine_says_so(vad: BuiltPackage, tmp_path: Path) -> None:
    package = repack(
        vad.path, tmp_path / "npu.aotpack", lambda each: each if each.target == "qnn-htp-v79" else None
    )
    done = aotpack("select", package, "--machine", NPU_MACHINE)
    assert done.status == 3
    assert done.out.splitlines()[-1] == "No variant fits this machine."
    document = aotpack("select", package, "--machine", NPU_MACHINE, "--json").document("selection")
    assert document["chosen"] is None
    text = aotpack("coverage", package, "--machines", f"{NPU_MACHINE},rtx-40").out
    assert "gets nothing: snapdragon-x-elite, rtx-40" in text


def test_measuring_decides_where_it_is_asked_to(vad: BuiltPackage, tmp_path: Path) -> None:
    own = {"AOTPACK_CACHE": str(tmp_path / "cache")}
    before = aotpack("select", vad.path, "--measured", env=own).out
    assert "Nothing was measured on this machine" in before
    assert aotpack("tune", vad.path, env=own).status == 0
    selection = aotpack("select", vad.path, "--measured", "--json", env=own).document("selection")
    plain = aotpack("select", vad.path, "--json", env=own).document("selection")
    assert selection["measured"] is True
    accepted = [each["id"] for each in selection["candidates"] if each["accepted"]]
    assert sorted(accepted) == sorted(each["id"] for each in plain["candidates"] if each["accepted"])
    measured = aotpack("tune", vad.path, "--json", env=own)
    seconds = {each["variant"]: each["run_seconds"] for each in measured.document("tuning")["measurements"]}
    assert set(accepted) <= set(seconds)
    assert all(value is None or value > 0 for value in seconds.values())


def test_the_doctor_finds_what_newer_runtimes_refuse_and_refresh_mends_it(
    vad: BuiltPackage, tmp_path: Path
) -> None:
    machine, target = api.probe(), find("openvino-cpu-avx2")
    if toolchains()["openvino"].why_not_compile(target, machine):
        pytest.skip("no CPU to compile for AVX2 on")

    def aged(variant: Variant) -> Variant:
        text = variant.compatibility.ep_string or ""
        if variant.target != target.name:
            return variant
        old = variant.compatibility.replace(ep_string=text.replace("ov=20", "ov=19"))
        return variant.replace(compatibility=old)

    old = repack(vad.path, tmp_path / "old.aotpack", aged)
    examined = aotpack("doctor", old, "--json")
    assert examined.status == 3
    findings = examined.document("doctor")["findings"]
    states = {each["variant"].rsplit("-", 1)[0]: each["state"] for each in findings}
    assert states["openvino-cpu-avx2"] == "stale"
    assert states["ort-cpu"] == "fresh"
    new = tmp_path / "new.aotpack"
    done = aotpack("refresh", old, "-o", new, "--json")
    assert done.status == 0, done.err
    assert [row["target"] for row in done.document("build-report")["rows"]] == [target.name]
    examined = aotpack("doctor", new, "--json")
    assert examined.status == 0
    again = examined.document("doctor")["findings"]
    assert {each["state"] for each in again} == {"fresh"}
    assert len(again) == len(findings)


def test_where_nothing_but_portable_is_left_one_can_compile_or_refuse(
    portable_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AOTPACK_CACHE", str(tmp_path / "cache"))
    events: list[Event] = []
    with api.open(portable_only) as package:
        plain = package.load_first(on_event=events.append)
        assert plain.candidate.variant.target == "portable"
        assert EventCode.PORTABLE_ONLY in {event.code for event in events}
        with pytest.raises(NothingToLoad):
            package.load_first(on_miss="error")
        events.clear()
        compiled = package.load_first(on_miss="compile", on_event=events.append)
        assert compiled.candidate.variant.target != "portable"
        assert EventCode.RECOMPILED in {event.code for event in events}
        events.clear()
        again = package.load_first(on_miss="compile", on_event=events.append)
        assert again.candidate.id == compiled.candidate.id
        assert EventCode.RECOMPILED not in {event.code for event in events}


#: Sets a terminal's title, clears it, and turns the order of what follows.
ESCAPES = "\x1b]0;mine\x07\x1b[2J\u202e"


@pytest.mark.parametrize(
    "verb", [("select", "--compared"), ("coverage",), ("doctor",), ("inspect",), ("run",)], ids=" ".join
)
def test_what_a_package_says_commands_no_terminal(
    vad: BuiltPackage, tmp_path: Path, verb: tuple[str, ...]
) -> None:
    def hostile(variant: Variant) -> Variant:
        needs = variant.compatibility.requires.replace(os=(f"linux{ESCAPES}",))
        text = json.dumps({"ovep_compat_ver": "1.0", "ovep_bin_ver": "1.1", "ov_compat_string": ESCAPES})
        if variant.target == "portable":
            # Judged by its string where the toolchain is another, and by what it needs otherwise.
            needs = needs.replace(os=None, onnxruntime=f">=99{ESCAPES}")
        compatibility = variant.compatibility.replace(requires=needs, ep_string=text)
        return variant.replace(compatibility=compatibility, built_with={ESCAPES: ESCAPES})

    package = repack(vad.path, tmp_path / "hostile.aotpack", hostile)
    done = aotpack(verb[0], package, *verb[1:])
    shown = done.out + done.err
    # Nothing is known to fit, and some of it is stale.
    assert done.status == (3 if verb[0] in ("select", "doctor") else 0), done.err
    assert (r"linux\x1b]0;mine" in shown) == (verb[0] in ("select", "inspect")), "as text"
    assert not [each for each in shown if not each.isprintable() and each != "\n"], shown[:500]
