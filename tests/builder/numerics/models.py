"""Small models for the tests of numbers, and a way to compare a changed copy with the original."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from aotpack.builder.numerics.compare import Compared, compare_with
from aotpack.builder.numerics.judge import Tolerances, judge
from aotpack.builder.numerics.reference import make_reference

__all__ = ["compared", "fault", "info", "model", "save", "weights"]

FLOAT = TensorProto.FLOAT


def info(name: str, shape: Sequence[int | str | None], dtype: int = FLOAT) -> onnx.ValueInfoProto:
    """An input or output."""
    return helper.make_tensor_value_info(name, dtype, shape)


def weights(name: str, *shape: int, seed: int = 0, scale: float = 1.0) -> onnx.TensorProto:
    """A tensor of normal numbers."""
    values = scale * np.random.default_rng(seed).standard_normal(shape)
    return numpy_helper.from_array(values.astype(np.float32), name)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    initializers: Sequence[onnx.TensorProto] = (),
    *,
    opsets: Sequence[tuple[str, int]] = (("", 17),),
    ir_version: int = 9,
) -> onnx.ModelProto:
    """A model."""
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), list(initializers))
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


def save(made: onnx.ModelProto, path: Path) -> Path:
    """Write it."""
    onnx.save(made, path)
    return path


def compared(
    original: onnx.ModelProto, variant: onnx.ModelProto, folder: Path, *, precision: str = "f32"
) -> Compared:
    """`variant` run beside `original`, as in a build."""
    reference = folder / "reference.npz"
    make_reference(save(original, folder / "original.onnx"), reference, precisions=["f32", precision])
    session = ort.InferenceSession(save(variant, folder / "variant.onnx"), providers=["CPUExecutionProvider"])
    return compare_with(session, reference, precision=precision)


def fault(
    original: onnx.ModelProto, variant: onnx.ModelProto, folder: Path, *, precision: str = "f32"
) -> str | None:
    """What is off in `variant`; None if nothing is."""
    found = compared(original, variant, folder, precision=precision)
    return judge(found, Tolerances(precision), "host")[1]
