"""Models whose weights or values are of less than 32 bits, on each toolchain, beside ORT's CPU EP."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator

import aotpack as front_door
from aotpack.builder.models.model import read_graph
from aotpack.builder.models.shapes import tensor_infos
from aotpack.builder.numerics.inputs import made_inputs
from aotpack.builder.numerics.judge import TOLERANCES, tolerance_key
from aotpack.runtime.probing import probe
from aotpack.targets.catalogue import find
from aotpack.toolchains import toolchains
from samples.made_models import of_element_type, quantised
from tests.command_line import Done, aotpack
from tests.hardware import software_gpu
from tests.outputs import errors

#: Scales for one or for several values, with and without a zero point: compilers treat each in its own way.
MODELS = {
    "int2-tensor": quantised("INT2", scales="tensor", zero_points=False),
    "int2-block": quantised("INT2", scales="block"),
    "uint2-channel": quantised("UINT2", scales="channel", zero_points=False),
    "uint2-tensor": quantised("UINT2", scales="tensor"),
    "int4-tensor": quantised("INT4", scales="tensor", zero_points=False),
    "int4-block": quantised("INT4", scales="block", zero_points=False),
    "uint4-channel": quantised("UINT4", scales="channel"),
    "int8-channel": quantised("INT8", scales="channel"),
    "float16": of_element_type("FLOAT16"),
    "bfloat16": of_element_type("BFLOAT16"),
    "qdq": of_element_type("QDQ"),
}
TARGETS = ("ort-cpu", "openvino-cpu-avx2", "openvino-cpu-avx512", "openvino-cpu-avx512-bf16", "qnn-htp-v73")

#: What each of these makes of them: INT2 and so on in wider types, and what its compiler does not take.
ELSEWHERE = {
    "tensorrt-rtx-sm89": {
        "int2-tensor": "Weights stored wider, exactly: 2 INT2 as INT4. Not run",
        "int2-block": "Weights stored wider, exactly: 2 INT2 as INT4. Not run",
        "uint2-channel": "Weights stored wider, exactly: 2 UINT2 as INT4. Not run",
        "uint2-tensor": "Weights stored wider, exactly: 2 UINT2 as INT4. Not run",
        "uint4-channel": "Weights stored wider, exactly: 2 UINT4 as INT4. Not run",
        # Its values are quantised around another number than zero, which nothing exact makes up for.
        "qdq": "TensorRT-RTX tensorrt-rtx-sm89: Assertion failed: shiftIsAllZeros(zeroPoint)",
    },
    "webgpu": {
        "bfloat16": "Computed in float32, for it takes no bfloat16.",
        # A GPU in software has no arithmetic of 16 bits.
        "float16": "it compiled, but does not run (emulator): Fail",
    },
}


def compilable(*names: str) -> list[str]:
    """Those that this machine can compile for."""
    machine, known = probe(), toolchains()
    return [
        name for name in names if known[find(name).toolchain].why_not_compile(find(name), machine) is None
    ]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """One package of all models for all targets."""
    folder = tmp_path_factory.mktemp("types")
    lines = ['name = "types"']
    for name, model in MODELS.items():
        onnx.save(model, folder / f"{name}.onnx")
        lines += ["[[component]]", f'name = "{name}"', f'model = "{name}.onnx"']
    for target in compilable(*TARGETS):
        lines += ["[[target]]", f'target = "{target}"']
    (folder / "aotpack.toml").write_text("\n".join(lines), encoding="utf-8")
    return folder, aotpack("build", folder / "aotpack.toml", "--json")


@pytest.fixture(scope="module")
def rows(built: tuple[Path, Done]) -> dict[tuple[str, str], dict[str, Any]]:
    assert built[1].status == 0, built[1].err
    return {(row["component"], row["target"]): row for row in built[1].document("build-report")["rows"]}


@pytest.mark.parametrize("target", compilable(*TARGETS))
@pytest.mark.parametrize("model", MODELS)
def test_it_builds_and_its_numbers_hold(
    rows: dict[tuple[str, str], dict[str, Any]], model: str, target: str
) -> None:
    row = rows[model, target]
    assert row["state"] == "built"
    rounds = model.startswith(("int", "uint", "qdq"))
    key = tolerance_key(find(target).precision, bfloat16=model == "bfloat16", rounds=rounds)
    # Above it only where the output's own noise is.
    assert row["numerics"]["error"] <= row["numerics"]["tolerance"]
    assert row["numerics"]["tolerance"] >= TOLERANCES[key]
    in_float32 = "Computed in float32, for it takes no bfloat16." in (row["reason"] or "")
    assert in_float32 == (model == "bfloat16" and not target.startswith("openvino"))
    wide = {"qnn-htp-v73": "4", "ort-cpu": None}.get(target, "4")
    note = re.search(r"Weights stored wider, exactly: 2 (\w+)2 as (\w+)\.", row["reason"] or "")
    if "int2" in model and wide:
        assert note is not None
        assert note[2] == f"{note[1]}{wide}"
    else:
        assert note is None, "what the compiler takes is left as it is"
    if not target.startswith("qnn"):
        assert row["coverage"]["left_on_cpu"] == {}


@pytest.mark.parametrize("target", ELSEWHERE)
def test_on_gpus_it_builds_or_the_vendor_says_why_not(target: str, tmp_path: Path) -> None:
    env = software_gpu() if target == "webgpu" else {}
    if target not in (*compilable(target), "webgpu") or toolchains()["webgpu"].version() is None:
        pytest.skip(f"nothing compiles for {target} here")
    lines = ['name = "types"', f'[[target]]\ntarget = "{target}"']
    for name, model in MODELS.items():
        onnx.save(model, tmp_path / f"{name}.onnx")
        lines.append(f'[[component]]\nname = "{name}"\nmodel = "{name}.onnx"')
    (tmp_path / "aotpack.toml").write_text("\n".join(lines), encoding="utf-8")
    done = aotpack("build", tmp_path / "aotpack.toml", "--json", "--keep-going", env=env)
    rows = [row for row in done.document("build-report")["rows"] if row["target"] == target]
    assert len(rows) == len(MODELS)
    for row in rows:
        told = ELSEWHERE[target].get(row["component"])
        assert row["state"] == ("failed" if told and ":" in told.split("exactly:")[0] else "built"), row
        assert (row["reason"] or "").startswith(told or ("" if target == "webgpu" else "Not run here")), row
        if row["state"] == "built" and target == "webgpu":
            assert row["numerics"]["error"] <= row["numerics"]["tolerance"]
            assert row["coverage"]["left_on_cpu"] == {}


def test_an_untouched_model_that_no_cpu_runs_is_not_said_to_have_run(
    rows: dict[tuple[str, str], dict[str, Any]],
) -> None:
    row = rows["bfloat16", "portable"]
    assert row["numerics"] is None
    assert row["reason"] == "Not run here: on a CPU ONNX Runtime computes no bfloat16."
    assert rows["float16", "portable"]["numerics"]["ran_on"] == "host"


def test_what_stays_on_the_cpu_is_in_the_coverage(rows: dict[tuple[str, str], dict[str, Any]]) -> None:
    if "qnn-htp-v73" not in compilable("qnn-htp-v73"):
        pytest.skip("QNN compiles on x86-64 only")
    # QNN takes a DequantizeLinear of weights with one scale, and no other.
    assert rows["uint2-tensor", "qnn-htp-v73"]["coverage"]["left_on_cpu"] == {}
    row = rows["int4-block", "qnn-htp-v73"]
    assert row["coverage"]["left_on_cpu"] == {"DequantizeLinear": 2}
    assert "DequantizeLinear" in row["reason"]
    assert "zero point written out: 2 INT4" in rows["int4-tensor", "qnn-htp-v73"]["reason"]


def test_the_numbers_of_a_session_are_those_of_the_original_on_the_cpu_ep(
    built: tuple[Path, Done], rows: dict[tuple[str, str], dict[str, Any]]
) -> None:
    """Not only by the build's own word: the package is loaded here and now."""
    folder, _ = built
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for name in ("int2-block", "uint4-channel", "qdq"):
        path = folder / f"{name}.onnx"
        inputs = made_inputs(tensor_infos(read_graph(path)), seed=7)
        wanted = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, inputs)
        reference: Any = ReferenceEvaluator(str(path)).run(None, inputs)
        assert errors(reference, wanted) < 1e-5
        with front_door.open(folder / "types.aotpack") as package:
            loaded = package.load_first(component=name)
        precision = loaded.candidate.variant.precision
        assert errors(loaded.session.run(None, inputs), wanted) <= max(
            TOLERANCES[precision], TOLERANCES["int8"]
        )
