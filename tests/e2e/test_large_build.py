"""A build of a model of 3 GB: aotpack itself stays small; toolchains take the memory that they need."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tests.command_line import aotpack, finish, start

SIDE, LAYERS = 4096, 48


def large_model(folder: Path) -> Path:
    """A chain of products with square matrices of 64 MiB each, all different, in one external data file."""
    weights, nodes = [], []
    with (folder / "large.onnx.data").open("wb") as data:
        for layer in range(LAYERS):
            tensor = TensorProto(name=f"w{layer}", data_type=TensorProto.FLOAT, dims=[SIDE, SIDE])
            tensor.data_location = TensorProto.EXTERNAL
            length = 4 * SIDE * SIDE
            for key, value in (("location", "large.onnx.data"), ("offset", data.tell()), ("length", length)):
                tensor.external_data.add(key=key, value=str(value))
            weights.append(tensor)
            # Diagonals, so that the numbers stay small and no two layers share a row.
            for row in range(SIDE):
                line = bytearray(4 * SIDE)
                line[4 * row : 4 * row + 4] = (0x3F800000 + row * LAYERS + layer).to_bytes(4, "little")
                data.write(line)
            nodes.append(helper.make_node("MatMul", [f"x{layer}", f"w{layer}"], [f"x{layer + 1}"]))
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, [1, SIDE])],
        [helper.make_tensor_value_info(f"x{LAYERS}", TensorProto.FLOAT, [1, SIDE])],
        weights,
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "large.onnx")
    return folder / "large.onnx"


def widened_model(folder: Path) -> Path:
    """1.1 GB of bfloat16 zeros, in a file with a hole: in float32 they are more than a protobuf can hold."""
    length = 2 * SIDE * SIDE
    layers = 34
    with (folder / "narrow.data").open("wb") as data:
        data.truncate(layers * length)
    weights, nodes = [], []
    for layer in range(layers):
        tensor = TensorProto(name=f"w{layer}", data_type=TensorProto.BFLOAT16, dims=[SIDE, SIDE])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "narrow.data"), ("offset", layer * length), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        weights.append(tensor)
        nodes.append(helper.make_node("MatMul", [f"x{layer}", f"w{layer}"], [f"x{layer + 1}"]))
    # What computes in float32 has an input and an output that Python can give and read.
    nodes = [
        helper.make_node("Cast", ["x"], ["x0"], to=TensorProto.BFLOAT16),
        *nodes,
        helper.make_node("Cast", [f"x{layers}"], ["y"], to=TensorProto.FLOAT),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, SIDE]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "narrow", values[:1], values[1:], weights)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), folder / "narrow.onnx")
    return folder / "narrow.onnx"


@pytest.mark.long
@pytest.mark.parametrize("make", [large_model, widened_model])
def test_memory_of_a_build_does_not_grow_with_the_model(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    model = make(tmp_path)
    package = tmp_path / "made.aotpack"
    process = start("build", model, "-t", "ort-cpu", "-o", package, "--no-reuse", "--json")
    peak = 0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        # Without it where the process has just ended.
        if "VmHWM:" in status:
            peak = max(peak, int(status.split("VmHWM:")[1].split()[0]) * 1024)
        time.sleep(0.02)
    done = finish(process)
    assert done.status == 0, done.err
    assert 0 < peak < 1 << 30
    (row, _) = done.document("build-report")["rows"]
    assert row["numerics"]["ran_on"] == "host"
    assert aotpack("verify", package).status == 0
