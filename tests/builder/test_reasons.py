"""Where a model does not become one compiled node the report names the nodes, in the vendor's words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from tests.command_line import Done, aotpack
from tests.hardware import compilable, needs

#: No vendor compiles `Det`; both MatMuls are compiled, each into a partition of its own.
DETERMINANT = """<ir_version: 10, opset_import: ["": 20]>
determinant (float[4, 8, 8] x) => (float[1, 4] y) {
    first = MatMul (x, w)
    each = Det (first)
    row = Reshape (each, to_row)
    y = MatMul (row, v)
}"""


#: What a vendor's compiler says of a node that it leaves, in the vendor's words or ours.
WORDS = {
    "qnn-htp-v73": "Operators of type `Det` are not supported by QNN EP",
    "openvino-cpu-avx2": "OpenVINOExecutionProvider does not say why",
}


@pytest.fixture(scope="module")
def determinant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(0)
    model = parser.parse_model(DETERMINANT)
    for node in model.graph.node:
        node.name = f"the_{node.op_type.lower()}_of_{node.output[0]}"
    for name, array in {
        "w": (random.standard_normal((8, 8)) / 3).astype(np.float32),
        "v": (random.standard_normal((4, 4)) / 2).astype(np.float32),
        "to_row": np.array([1, 4]),
    }.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    path = tmp_path_factory.mktemp("determinant") / "determinant.onnx"
    onnx.save(model, path)
    return path


def rows(done: Done) -> dict[str, dict[str, Any]]:
    return {row["target"]: row for row in done.document("build-report")["rows"]}


def test_nodes_that_stay_on_the_cpu_are_named_with_the_vendors_reason(
    determinant: Path, tmp_path: Path
) -> None:
    package = tmp_path / "determinant.aotpack"
    targets = compilable(*WORDS)
    done = aotpack("build", determinant, "-o", package, *(f"--target={name}" for name in targets), "--json")
    assert done.status == 0, done.err
    built = rows(done)
    for target in targets:
        row = built[target]
        assert row["state"] == "built"
        coverage = {"nodes": 4, "compiled": 3, "partitions": 2, "left_on_cpu": {"Det": 1}}
        assert row["coverage"] == coverage
        assert row["reason"].startswith("1 of 4 nodes stay on the CPU: Det (the_det_of_each).")
        assert ".." not in row["reason"]
        assert row["numerics"]["error"] <= row["numerics"]["tolerance"]
        assert WORDS[target] in row["reason"]
    shown = aotpack("inspect", package).out
    assert shown.count("on CPU   1 Det") == len(targets)


@needs("openvino-cpu-avx2")
def test_a_refused_model_has_the_vendors_words_and_a_missing_shape_the_option(
    real_model: Callable[[str], Path], tmp_path: Path
) -> None:
    package = tmp_path / "open.aotpack"
    done = aotpack(
        *("build", real_model("silero_vad_16k_op15"), "-o", package, "--json"),
        *("-t", "openvino-cpu-avx2", "-t", "qnn-htp-v73", "-t", "qnn-htp-v75"),
    )
    assert done.status == 1
    assert done.error.startswith("3 of 4 targets failed")
    failed = rows(done)
    assert failed["portable"]["state"] == "built"
    reason = failed["openvino-cpu-avx2"]["reason"]
    assert "OpConversionFailure" in reason
    assert "/model/decoder/decoder/2/Conv_output_0" in reason
    assert failed["openvino-cpu-avx2"]["log"]
    for target in ("qnn-htp-v73", "qnn-htp-v75"):
        reason = failed[target]["reason"]
        assert "input[0] (batch), input[1] (sequence), state[1] (batch)" in reason
        assert "--shape input=SIZE" in reason
    verified = aotpack("verify", package)
    assert verified.status == 0, verified.err


def test_with_its_shapes_fixed_the_same_model_compiles_whole(
    real_model: Callable[[str], Path], tmp_path: Path
) -> None:
    done = aotpack(
        *("build", real_model("silero_vad_16k_op15"), "-o", tmp_path / "fixed.aotpack", "--json"),
        *("--shape", "input=1,512", "--shape", "batch=1"),
        *(f"--target={name}" for name in compilable("openvino-cpu-avx2", "qnn-htp-v73")),
    )
    assert done.status == 0, done.err
    for row in rows(done).values():
        assert not row["coverage"]["left_on_cpu"]
        assert row["numerics"]["error"] <= row["numerics"]["tolerance"]
