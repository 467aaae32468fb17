"""What the built-in toolchains say, beside what their vendors' libraries write and answer."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

import pytest

from aotpack.container.reader import PackageReader
from aotpack.machine.profile import Machine
from aotpack.manifest.values import Manifest
from aotpack.runtime.probing import probe
from aotpack.targets.catalogue import PORTABLE, catalogue, find
from aotpack.toolchains import toolchains
from aotpack.toolchains.plugin import PluginToolchain, installed_version
from tests.command_line import environment
from tests.conftest import BuiltPackage
from tests.hardware import INTEL, needs

NAMES = ("ort", "openvino", "qnn")


@pytest.fixture(scope="module")
def manifest(vad: BuiltPackage) -> Manifest:
    with PackageReader.open(vad.path) as reader:
        return reader.manifest


def test_the_built_in_toolchains_come_first() -> None:
    assert tuple(toolchains())[:3] == NAMES
    assert all(known.name == name for name, known in toolchains().items())


def test_every_target_of_the_catalogue_has_its_toolchain_and_ep() -> None:
    for target in catalogue().values():
        assert toolchains()[target.toolchain].ep == target.ep


@pytest.mark.parametrize("name", NAMES)
def test_what_is_installed_here_has_a_version_and_says_what_it_builds_with(name: str) -> None:
    toolchain = toolchains()[name]
    assert toolchain.version()
    built_with = toolchain.built_with()
    assert built_with["onnxruntime"] == probe().onnxruntime
    assert toolchain.pip_command().startswith("pip install ")
    assert (probe().eps or {})[toolchain.ep].version == toolchain.version()


@needs("openvino-cpu-sse41")
def test_a_version_is_the_one_that_importlib_finds() -> None:
    """It is read without parsing all of a package's metadata; each that is installed here is a sample."""
    names = {each.metadata["Name"] for each in metadata.distributions()}
    assert len(names) > 50
    found = {name: installed_version(name) for name in names}
    assert found == {name: metadata.version(name) for name in names}
    assert installed_version("no-such-package") is None


def test_the_release_that_is_read_off_a_file_name_is_the_one_in_the_strings(manifest: Manifest) -> None:
    release = toolchains()["openvino"].runtime_details()["openvino"]
    strings = [
        variant.compatibility.ep_string
        for variant in manifest.variants()
        if variant.toolchain == "openvino" and variant.compatibility.ep_string
    ]
    assert strings
    for text in strings:
        assert f"ov={release};" in json.loads(text)["ov_compat_string"]


def test_the_backend_api_of_the_table_is_the_one_in_the_strings(manifest: Manifest) -> None:
    api = toolchains()["qnn"].runtime_details()["qnn-backend-api"]
    strings = {
        variant.target: variant.compatibility.ep_string
        for variant in manifest.variants()
        if variant.toolchain == "qnn"
    }
    for target, text in strings.items():
        assert text is not None
        parts = text.split(":")
        assert parts[:2] == ["v2", "6"]
        assert parts[3] == api
        options = find(target).provider_options
        assert parts[4:6] == [options["htp_arch"], options["soc_model"]]


def test_a_session_gets_the_options_that_it_was_compiled_with_and_compiles_nothing(
    manifest: Manifest,
) -> None:
    for variant in manifest.variants():
        target = find(variant.target)
        settings = toolchains()[target.toolchain].session_settings(target)
        assert variant.session == settings
        if variant.ep != "CPUExecutionProvider":
            assert settings.provider_options == target.provider_options
            assert settings.config["session.disable_model_compile"] == "1"
            # What names a place on the building machine is not for others.
            assert "/" not in "".join(settings.provider_options.values())


def test_only_the_portable_variant_requires_nothing(manifest: Manifest) -> None:
    for variant in manifest.variants():
        needs = variant.compatibility.requires.to_builtins()
        assert bool(needs) == (variant.target != PORTABLE)


ASK = """
import json, sys
from aotpack.runtime.probing import probe
from aotpack.runtime.package import open_package
from aotpack.toolchains import toolchains
from aotpack.toolchains.plugin import PluginToolchain
answers = {}
with open_package(sys.argv[1]) as package:
    for variant in package.manifest.variants():
        if variant.toolchain == "openvino":
            toolchain = toolchains()["openvino"]
            said = toolchain.ask(variant.compatibility.ep_string, variant.device)
            judged = toolchain.judge(variant, probe(), emulate=False).grade
            answers[variant.target] = [said, judged]
print(json.dumps(answers))
"""


@needs("openvino-cpu-avx2")
@pytest.mark.parametrize("cap", ["SSE41", "AVX2", "AVX512_CORE", None])
def test_the_rules_say_what_the_ep_says(vad: BuiltPackage, cap: str | None) -> None:
    added = {} if cap is None else {"ONEDNN_MAX_CPU_ISA": cap}
    done = subprocess.run(
        [sys.executable, "-c", ASK, vad.path],
        env=environment(added),
        capture_output=True,
        text=True,
        check=True,
    )
    answers = json.loads(done.stdout.splitlines()[-1])
    assert len(answers) >= 1
    for target, (said, judged) in answers.items():
        assert said == judged, target
    fitting = [target for target, (said, _) in answers.items() if said == "OPTIMAL"]
    expected = [name for name in answers if find(name).environment["ONEDNN_MAX_CPU_ISA"] == cap]
    if cap is not None:
        assert fitting == expected


def test_where_a_cpu_lacks_a_class_nothing_is_compiled_for_it() -> None:
    toolchain = toolchains()["openvino"]
    bare = INTEL.replace(cpu=INTEL.cpu.replace(features=("sse4_1",)))
    assert toolchain.why_not_compile(find("openvino-cpu-sse41"), bare) is None
    why = toolchain.why_not_compile(find("openvino-cpu-amx"), bare)
    assert why is not None
    assert why.startswith("this CPU lacks amx_bf16, amx_int8, amx_tile")
    arm = INTEL.replace(arch="aarch64")
    assert toolchain.how_to_run(find("openvino-cpu-sse41"), arm).how is None


@needs("openvino-cpu-sse41")
def test_each_class_of_this_cpu_runs_on_the_host_or_by_emulation() -> None:
    toolchain, machine = toolchains()["openvino"], probe()
    ways = {
        target.name: toolchain.how_to_run(target, machine).how
        for target in catalogue().values()
        if target.toolchain == "openvino" and toolchain.why_not_compile(target, machine) is None
    }
    assert list(ways.values()).count("host") <= 1
    assert set(ways.values()) <= {"host", "isa-emulation"}


def test_qnn_runs_in_the_emulator_where_there_is_no_npu() -> None:
    toolchain = toolchains()["qnn"]
    runs = toolchain.how_to_run(find("qnn-htp-v73"), probe())
    assert runs.how == "emulator"
    assert "emulator" in runs.why
    assert toolchain.how_to_run(find("qnn-htp-v73"), Machine(arch="x86_64", eps={})).how is None


def test_qnns_reasons_are_taken_out_of_its_log() -> None:
    log = "[V:onnxruntime] noise\nREASON : Operators of type `Det` are not supported\nREASON : other\n"
    remarks = toolchains()["qnn"].remarks(log + log)
    assert remarks == ("Operators of type `Det` are not supported", "other")
    assert toolchains()["qnn"].remarks("all is well") == ()
    # As it is for a quantised LSTM of three layers.
    said = "Operators of type `DynamicQuantizeLSTM` are not supported by QNN EP"
    nodes = [f"DynamicQuantizeLSTM node `/lstm/LSTM{number}_quant`" for number in ("", "_1", "_2")]
    log = "".join(f"REASON : {said}.{node} will not be assigned to QNN EP.\n" for node in nodes)
    assert toolchains()["qnn"].remarks(f"REASON : Failed to add node.\n{log}") == (said,)
    assert toolchains()["ort"].remarks(log) == ()


def test_a_missing_package_has_a_pip_command_that_names_our_extra() -> None:
    for name in NAMES[1:]:
        assert re.fullmatch(rf"pip install 'aotpack\[{name}\]'", toolchains()[name].pip_command())


@pytest.mark.parametrize("name", NAMES[1:])
def test_every_option_of_the_lists_is_in_the_eps_library(name: str) -> None:
    """EPs ignore an option that they do not know: a list that has one too many would be believed."""
    toolchain = toolchains()[name]
    assert isinstance(toolchain, PluginToolchain)
    library = Path(import_module(toolchain.module).get_library_path()).read_bytes()
    missing = [option for option in toolchain.package_options if option.encode() + b"\0" not in library]
    assert toolchain.package_options
    assert not missing


@pytest.mark.parametrize(
    ("target", "option", "value", "says"),
    [
        ("qnn-htp-v73", "vtcm_mb", "8", None),
        ("qnn-htp-v73", "vtcm_mb", "eight", "is 'eight'"),
        ("qnn-htp-v73", "vtcm_bm", "8", "did you mean vtcm_mb"),
        ("qnn-htp-v73", "htp_arch", "74", "is '74'"),
        ("qnn-htp-v73", "htp_arch", "73,75", None),
        ("qnn-htp-v73", "soc_model", "Snapdragon", "is 'Snapdragon'"),
        ("qnn-htp-v73", "htp_performance_mode", "brust", "burst or balanced"),
        ("qnn-htp-v73", "qnn_context_priority", "critical_plus", None),
        ("qnn-htp-v73", "htp_share_resource_optimization", "1", None),
        ("qnn-htp-v73", "htp_share_resource_optimization", "0", "is '0'; expected 1"),
        ("qnn-htp-v73", "htp_reused_io_limit_mb", "64", None),
        ("qnn-htp-v73", "backend_path", "/tmp/x.so", "has no such option that a package may set"),
        ("openvino-cpu-avx2", "device_type", "CPU", "has no such option that a package may set"),
        ("openvino-cpu-avx2", "num_of_threads", "2", None),
        ("openvino-cpu-avx2", "model_priority", "low", "is 'low'; expected LOW or MEDIUM"),
        ("tensorrt-rtx-sm89", "nv_target_sm", "89", "has no options that a package may set"),
        ("ort-cpu", "threads", "2", "has no options that a package may set"),
    ],
)
def test_options_are_checked_by_name_and_value(
    target: str, option: str, value: str, says: str | None
) -> None:
    issue = toolchains()[find(target).toolchain].option_issue(option, value)
    assert (issue is None) == (says is None)
    assert says is None or says in (issue or "")


def test_the_options_of_the_catalogue_are_in_the_lists() -> None:
    for target in catalogue().values():
        for name, value in target.provider_options.items():
            assert toolchains()[target.toolchain].option_issue(name, value) is None, target.name
