"""Running models in the tests: ONNX Runtime's CPU kernels, and the capabilities that they have."""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T
from onnx import helper

from aotpack import flex
from aotpack.flex.emit import numpy_type
from aotpack.targets.catalogue import find
from aotpack.toolchains import toolchains

CPU = toolchains()["ort"].flex_capabilities(find("ort-cpu"))


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
    )


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """The first output. bfloat16, which ONNX Runtime's Python cannot feed, goes in and out as float32."""
    outer = widened(model)
    known = {value.name for value in outer.graph.input if value.type.tensor_type.elem_type == T.FLOAT}
    return session(outer).run(
        None, {name: array.astype(np.float32) if name in known else array for name, array in feeds.items()}
    )[0]


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    outer = onnx.ModelProto()
    outer.CopyFrom(model)
    graph = outer.graph
    for value in [*graph.input, *graph.output]:
        if value.type.tensor_type.elem_type != T.BFLOAT16:
            continue
        value.type.tensor_type.elem_type = T.FLOAT
        inner = f"{value.name}/bfloat16"
        is_input = value in graph.input
        for node in graph.node:
            names = node.input if is_input else node.output
            names[:] = [inner if name == value.name else name for name in names]
        if is_input:
            graph.node.insert(0, helper.make_node("Cast", [value.name], [inner], to=T.BFLOAT16))
        else:
            graph.node.append(helper.make_node("Cast", [inner], [value.name], to=T.FLOAT))
    return outer


def tensors(model: onnx.ModelProto, seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs for a model: normal numbers, and small counts where integers are wanted. Open sizes are 2."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for value in model.graph.input:
        shape = [dim.dim_value or 2 for dim in value.type.tensor_type.shape.dim]
        kind = numpy_type(value.type.tensor_type.elem_type)
        array = rng.integers(0, 3, shape) if kind.kind in "iu" else rng.standard_normal(shape)
        feeds[value.name] = array.astype(kind)
    return feeds


def expected(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    (node,) = flex.read(model)
    q, k, v = (feeds[name] for name in node.inputs)
    captured = {name: feeds[name] for name in node.captured}
    return flex.reference(node, q, k, v, captured, opset=model.opset_import[0].version)
