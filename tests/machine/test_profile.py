"""Machine profiles: bad ones are refused in one line, and what they leave out stays unknown."""

from __future__ import annotations

import json
from pathlib import Path

import archspec.cpu
import pytest

from aotpack.errors import ProfileError, UnknownName
from aotpack.machine.profile import (
    MAX_PROFILE_SIZE,
    Machine,
    contradiction,
    find_machine,
    known,
    parse_profile,
    read_profile,
)
from aotpack.runtime.probing import probe
from aotpack.targets.catalogue import catalogue
from aotpack.toolchains.devices import npu_architectures, npu_chips, pci_vendors
from tests.command_line import aotpack


@pytest.mark.parametrize("name", known())
def test_every_known_machine_is_free_of_contradictions(name: str) -> None:
    machine = find_machine(name)
    assert machine.os and machine.arch
    assert contradiction(machine.arch, machine.cpu.features) is None


#: What people own, by the names that the command line takes.
OWNED = {
    "amx-server",
    "arm64-box",
    "avx2-desktop",
    "avx512-server",
    "core-ultra-1",
    "core-ultra-2",
    "core-ultra-3",
    "rtx-30",
    "rtx-40",
    "rtx-50",
    "ryzen-ai-300",
    "snapdragon-8-elite",
    "snapdragon-8-gen-2",
    "snapdragon-8-gen-3",
    "snapdragon-x-elite",
}


def test_the_machines_that_people_own_are_named() -> None:
    assert set(known()) >= OWNED
    assert aotpack("machine", "--list").out.split() == list(known())


@pytest.mark.parametrize("name", known())
def test_a_known_machine_is_told_in_the_words_of_the_data_it_is_judged_by(name: str) -> None:
    """archspec's features of the microarchitecture; NPUs and GPUs that rules and targets know."""
    machine = find_machine(name)
    assert aotpack("machine", name).document("machine")["name"] == name == machine.name
    described = archspec.cpu.TARGETS.get(machine.cpu.microarchitecture or "")
    if machine.arch == "x86_64":
        assert described is not None
        assert described.vendor == machine.cpu.vendor
        assert described.features <= set(machine.cpu.features or ())
    chips = set(npu_chips().values())
    for npu in machine.npus or ():
        if npu.vendor == "qualcomm":
            assert (npu.architecture, npu.vtcm_mb) in chips
        if npu.vendor == "intel":
            assert npu.architecture in npu_architectures().values()
    capabilities = {
        f"{each[:-1]}.{each[-1]}" for target in catalogue().values() for each in target.architectures
    }
    for gpu in machine.gpus or ():
        assert gpu.vendor in pci_vendors().values()
        if gpu.vendor == "nvidia":
            assert gpu.compute_capability in capabilities
            assert gpu.driver
    assert machine.memory and machine.onnxruntime
    assert "CPUExecutionProvider" in (machine.eps or {})


def test_what_is_probed_here_is_read_back_the_same(tmp_path: Path) -> None:
    path = tmp_path / "me.json"
    path.write_text(probe().to_json(), encoding="utf-8")
    assert read_profile(path) == probe()
    assert find_machine(str(path)).key() == probe().key()


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="snapdragon-x-elite"):
        find_machine("snapdragn-x")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "not a machine profile"),
        (b"[]", "not a machine profile"),
        (b'{"os": "linux", "os": "windows"}', "duplicate key"),
        (b'{"cpu": {"features": ["avx"], "features": []}}', "duplicate key"),
        (b'{"colour": "red"}', "colour"),
        (b'{"memory": -1}', "memory"),
        (b'{"profile": "2"}', "profile"),
        (b'{"npus": [{"architecture": "v73"}]}', r"npus\[0\]: .*`vendor`"),
        (b"[" * 200_000, "not a machine profile"),
        (b" " * (MAX_PROFILE_SIZE + 1), "has 1048577 bytes; expected at most 1048576"),
        (b'{"name": ' + b"9" * 5000 + b"}", "a number has 5000 digits"),
        (json.dumps({"name": "x" * 1025}).encode(), "name: Expected `str` of length <= 1024"),
        (
            json.dumps({"cpu": {"features": ["x"] * 4097}}).encode(),
            "cpu.features: Expected `array` of length <= 4096",
        ),
        (
            json.dumps({"environment": {"x" * 1025: ""}}).encode(),
            "environment: Expected `str` of length <= 1024 as a key",
        ),
        (
            json.dumps({"npus": [{"vendor": "x", "vtcm_mb": 2**64}]}).encode(),
            r"npus\[0\]\.vtcm_mb: Expected `int`",
        ),
        (json.dumps({"name": "x"}).encode("utf-16"), "is UTF-16; expected UTF-8"),
    ],
)
def test_a_bad_profile_is_refused(text: bytes, said: str) -> None:
    with pytest.raises(ProfileError, match=said):
        parse_profile(text, where="me.json")


def test_a_profile_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError):
        find_machine(str(tmp_path / "none.json"))


def test_a_microarchitecture_gives_its_features_unless_they_are_listed() -> None:
    named = parse_profile(b'{"cpu": {"microarchitecture": "haswell"}}', where="me.json")
    assert "avx2" in (named.cpu.features or ())
    listed = parse_profile(b'{"cpu": {"microarchitecture": "haswell", "features": []}}', where="me.json")
    assert listed.cpu.features == ()
    strange = parse_profile(b'{"cpu": {"microarchitecture": "abacus"}}', where="me.json")
    assert strange.cpu.features is None


@pytest.mark.parametrize(
    ("arch", "features"), [("x86_64", ("avx2",)), ("aarch64", ("sse4_1", "avx")), (None, ("amx_int8",))]
)
def test_a_lie_about_a_cpu_is_seen(arch: str | None, features: tuple[str, ...]) -> None:
    assert contradiction(arch, features)


def test_another_driver_or_ep_is_another_machine_and_another_name_is_not() -> None:
    said = json.loads(probe().to_json())
    assert Machine.from_json(json.dumps(said | {"name": "other", "memory": 1})).key() == probe().key()
    said["eps"]["OpenVINOExecutionProvider"] = {"version": "0.0.1"}
    assert Machine.from_json(json.dumps(said)).key() != probe().key()
