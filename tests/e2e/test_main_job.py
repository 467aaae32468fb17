"""The main job on a real model, from the command line: build, inspect, select, run, verify, extract."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from aotpack.builder.models.model import read_model
from aotpack.builder.numerics.inputs import Way, made_inputs
from aotpack.builder.numerics.judge import TOLERANCES
from aotpack.manifest.parsing import parse
from aotpack.manifest.values import Manifest
from aotpack.runtime.probing import probe
from aotpack.selection import verdict
from aotpack.targets.catalogue import catalogue, find
from aotpack.toolchains import toolchains
from tests.command_line import aotpack, environment
from tests.conftest import BuiltPackage
from tests.outputs import errors

VARIABLE = "ONEDNN_MAX_CPU_ISA"
QNN = ("qnn-htp-v73", "qnn-htp-v75", "qnn-htp-v79")


def manifest_of(package: Path) -> Manifest:
    done = aotpack("inspect", package, "--json")
    assert done.status == 0, done.err
    done.document("manifest")
    return parse(json.dumps(json.loads(done.out), separators=(",", ":"), ensure_ascii=False).encode())


def test_a_build_reports_each_target(vad: BuiltPackage) -> None:
    report = vad.build.document("build-report")
    assert report["package"] == str(vad.path)
    assert report["size"] == vad.path.stat().st_size
    assert [row["state"] for row in report["rows"]] == ["built"] * len(report["rows"])
    assert report["rows"][-1]["target"] == "portable"
    for row in report["rows"]:
        assert row["seconds"] >= 0
        assert row["id"].startswith(row["target"] + "-")
        target = find(row["target"])
        assert row["numerics"]["error"] <= row["numerics"]["tolerance"] == TOLERANCES[target.precision]


def test_progress_is_plain_lines_on_the_standard_error(vad: BuiltPackage) -> None:
    lines = vad.build.err.splitlines()
    for target in (row["target"] for row in vad.build.document("build-report")["rows"]):
        assert sum(line.startswith(f"built  main/{target} (") for line in lines) == 1
    assert "\x1b[" not in "".join(line for line in lines if line.startswith("built"))


def test_a_manifest_says_what_was_built(vad: BuiltPackage) -> None:
    manifest = manifest_of(vad.path)
    (component,) = manifest.components
    assert component.name == "main"
    assert [value.name for value in component.inputs] == ["input", "h", "c"]
    assert {variant.target for variant in component.variants} >= {*QNN, "ort-cpu", "portable"}
    for variant in component.variants:
        if variant.ep == "CPUExecutionProvider":
            assert variant.compatibility.ep_string is None
            continue
        assert variant.compatibility.ep_string
        assert variant.session.config["session.disable_model_compile"] == "1"
        assert variant.coverage is not None
        assert variant.coverage.partitions == 1
        assert not variant.coverage.left_on_cpu
        assert variant.coverage.compiled == variant.coverage.nodes > 0
        # The blob is a file of its own, so that it can be mapped.
        assert len(variant.files) == 2
        assert variant.files[0].size < 10_000 < variant.files[1].size


def test_inspect_shows_what_the_manifest_says(vad: BuiltPackage) -> None:
    done = aotpack("inspect", vad.path)
    assert done.status == 0, done.err
    for variant in manifest_of(vad.path).variants():
        assert variant.id in done.out
        assert (variant.compatibility.ep_string or "none (the EP writes none)") in done.out


def test_the_winner_on_this_machine_is_of_its_own_class(vad: BuiltPackage) -> None:
    document = aotpack("select", vad.path, "--json").document("selection")
    candidates = document["candidates"]
    assert document["chosen"] == candidates[0]["id"]
    assert [each["accepted"] for each in candidates] == sorted(
        (e["accepted"] for e in candidates), reverse=True
    )
    accepted = [each["target"] for each in candidates if each["accepted"]]
    assert accepted[-2:] == ["ort-cpu", "portable"]
    toolchain = toolchains()["openvino"]
    of_this_class = [
        target.name
        for target in catalogue().values()
        if target.toolchain == toolchain.name and toolchain.how_to_run(target, probe()).how == "host"
    ]
    assert [name for name in accepted[:-2] if name.startswith("openvino")] == [
        name for name in of_this_class if name in {each["target"] for each in candidates}
    ]
    assert all(each["reason"] for each in candidates)
    assert {each["code"] for each in candidates} <= {code.value for code in verdict.Code}
    assert {each["code"] for each in candidates if each["target"] in QNN} == {"emulation-not-asked"}


@pytest.mark.parametrize(
    ("cap", "target"),
    [("AVX2", "openvino-cpu-avx2"), ("AVX512_CORE", "openvino-cpu-avx512"), ("SSE41", "ort-cpu")],
)
def test_another_machine_takes_another_variant(vad: BuiltPackage, cap: str, target: str) -> None:
    if target not in {row["target"] for row in vad.build.document("build-report")["rows"]}:
        pytest.skip(f"this CPU cannot compile for {target}")
    selected = aotpack("select", vad.path, "--json", env={VARIABLE: cap}).document("selection")
    done = aotpack("run", vad.path, "--json", "--runs", "1", env={VARIABLE: cap})
    assert done.status == 0, done.err
    run = done.document("run")
    assert run["target"] == target
    assert run["variant"] == selected["chosen"]
    assert run["refused"] == []


@pytest.mark.parametrize("target", QNN)
def test_an_emulated_npu_computes_the_same_numbers(vad: BuiltPackage, target: str, tmp_path: Path) -> None:
    variant = next(each for each in manifest_of(vad.path).variants() if each.target == target)
    refused = aotpack("run", vad.path, "--variant", variant.id)
    assert refused.status == 1
    assert "emulator is taken only when asked for" in refused.error
    done = aotpack("run", vad.path, "--variant", variant.id, "--emulate", "--json", "--runs", "1")
    assert done.status == 0, done.err
    assert done.document("run")["variant"] == variant.id
    assert variant.numerics is not None
    assert variant.numerics.ran_on == "emulator"
    assert variant.numerics.error is not None
    assert variant.numerics.tolerance is not None
    assert 0 < variant.numerics.error <= variant.numerics.tolerance


SCRIPT = """
import sys, numpy, onnxruntime, aotpack
session = aotpack.load(sys.argv[1], emulate=sys.argv[4] == "emulate")
assert type(session) is onnxruntime.InferenceSession
with numpy.load(sys.argv[2]) as inputs:
    outputs = session.run(None, dict(inputs))
numpy.savez(sys.argv[3], *outputs)
print(session.get_providers()[0])
"""


@pytest.mark.parametrize(
    ("how", "precision", "ep"), [("host", "bf16", None), ("emulate", "f16", "QNNExecutionProvider")]
)
def test_load_gives_a_session_with_the_numbers_of_the_source(
    vad: BuiltPackage, how: str, precision: str, ep: str | None, tmp_path: Path
) -> None:
    import onnxruntime as ort

    (component,) = manifest_of(vad.path).components
    inputs = made_inputs(component.inputs, seed=7, way=Way(sizes=False))
    np.savez(tmp_path / "in.npz", **inputs)
    out = tmp_path / "out.npz"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, vad.path, tmp_path / "in.npz", out, how],
        env=environment({}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if ep is not None:
        assert done.stdout.split()[-1] == ep
    portable = next(variant for variant in component.variants if variant.target == "portable")
    loose = tmp_path / "portable"
    assert aotpack("extract", vad.path, "--variant", portable.id, "-o", loose).status == 0
    expected = ort.InferenceSession(loose / portable.files[0].path).run(None, inputs)
    with np.load(out) as outputs:
        error = errors([outputs[name] for name in outputs.files], expected)
    assert error <= TOLERANCES[precision]


def test_extract_gives_files_that_are_the_variant(vad: BuiltPackage, tmp_path: Path) -> None:
    manifest = manifest_of(vad.path)
    for variant in manifest.variants():
        folder = tmp_path / variant.id
        done = aotpack("extract", vad.path, "--variant", variant.id, "-o", folder, "--json")
        assert done.status == 0, done.err
        document = done.document("extract")
        assert document["files"] == [str(folder / file.path) for file in variant.files]
        assert sorted(path.name for path in folder.iterdir()) == sorted(file.path for file in variant.files)
        onnx.load(folder / variant.files[0].path, load_external_data=False)
        if variant.target == "portable":
            assert read_model(folder / variant.files[0].path).source == manifest.components[0].source


def test_verify_reads_every_segment(vad: BuiltPackage) -> None:
    document = aotpack("verify", vad.path, "--json").document("verify")
    assert document["segments"] == len(manifest_of(vad.path).segments)
    assert document["size"] == vad.path.stat().st_size


def test_targets_say_what_can_be_done_here() -> None:
    document = aotpack("targets", "--json").document("targets")
    by_name = {each["name"]: each for each in document["targets"]}
    assert list(by_name) == list(catalogue())
    for each in document["targets"]:
        assert each["can_compile"] or each["why"]
        assert each["can_run"] == (each["runs"] is not None)
    assert by_name["ort-cpu"] == by_name["ort-cpu"] | {"can_compile": True, "runs": "host"}
    assert by_name["qnn-htp-v73"] == by_name["qnn-htp-v73"] | {"can_compile": True, "runs": "emulator"}


def test_a_machine_profile_is_what_probing_says() -> None:
    document = aotpack("machine").document("machine")
    assert document["onnxruntime"] == probe().onnxruntime
    assert set(document["eps"]) == set(probe().eps or {})


def test_a_rebuild_keeps_the_ids(vad: BuiltPackage, tmp_path: Path) -> None:
    manifest = manifest_of(vad.path)
    portable = next(variant for variant in manifest.variants() if variant.target == "portable")
    loose = tmp_path / "loose"
    assert aotpack("extract", vad.path, "--variant", portable.id, "-o", loose).status == 0
    again = tmp_path / "again.aotpack"
    model = loose / portable.files[0].path
    done = aotpack("build", model, "-o", again, "--shape", "input=1,576", "-t", "qnn-htp-v73")
    assert done.status == 0, done.err
    ids = {variant.id for variant in manifest.variants()}
    assert {variant.id for variant in manifest_of(again).variants()} < ids
