"""Models made in code, for what no small real model shows: weights of any size, chosen shapes, known numbers.

Weights are seeded and scaled by 1/sqrt(fan-in), so that values stay near 1 however deep the model is and a
difference between two variants means something.
"""

from __future__ import annotations

from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, parser

__all__ = ["cnn", "of_element_type", "quantised", "transformer"]

_HEADER = '<ir_version: 10, opset_import: ["": 20]>'


def transformer(
    *, layers: int = 6, width: int = 512, heads: int = 8, tokens: int = 128, seed: int = 0
) -> onnx.ModelProto:
    """A pre-norm encoder; the weights take 48 * layers * width**2 bytes: 75 MB by default.

    Its input ``hidden`` and its output ``output`` are float32 of (1, tokens, width).
    """
    weights = _Weights(seed)
    body = []
    for layer in range(layers):
        x = "hidden" if layer == 0 else f"h{layer}"
        y = "output" if layer == layers - 1 else f"h{layer + 1}"
        p = f"l{layer}_"
        weights.ones(p + "norm1", width)
        weights.normal(p + "qkv", (width, 3 * width))
        weights.normal(p + "out", (width, width))
        weights.ones(p + "norm2", width)
        weights.normal(p + "up", (width, 4 * width))
        weights.normal(p + "down", (4 * width, width))
        body.append(f"""
            {p}n = LayerNormalization ({x}, {p}norm1)
            {p}qkv_flat = MatMul ({p}n, {p}qkv)
            {p}qkv_heads = Reshape ({p}qkv_flat, to_heads)
            {p}qkv_first = Transpose <perm = [2, 0, 3, 1, 4]> ({p}qkv_heads)
            {p}q4, {p}k4, {p}v4 = Split <axis = 0, num_outputs = 3> ({p}qkv_first)
            {p}q = Squeeze ({p}q4, first)
            {p}k = Squeeze ({p}k4, first)
            {p}v = Squeeze ({p}v4, first)
            {p}kt = Transpose <perm = [0, 1, 3, 2]> ({p}k)
            {p}qk = MatMul ({p}q, {p}kt)
            {p}scores = Mul ({p}qk, scale)
            {p}shares = Softmax <axis = -1> ({p}scores)
            {p}mixed = MatMul ({p}shares, {p}v)
            {p}by_token = Transpose <perm = [0, 2, 1, 3]> ({p}mixed)
            {p}joined = Reshape ({p}by_token, to_width)
            {p}attended = MatMul ({p}joined, {p}out)
            {p}x = Add ({x}, {p}attended)
            {p}m = LayerNormalization ({p}x, {p}norm2)
            {p}wide = MatMul ({p}m, {p}up)
            {p}gelu = Gelu ({p}wide)
            {p}narrow = MatMul ({p}gelu, {p}down)
            {y} = Add ({p}x, {p}narrow)""")
    weights.add("to_heads", np.array([1, tokens, 3, heads, width // heads], np.int64))
    weights.add("to_width", np.array([1, tokens, width], np.int64))
    weights.add("first", np.array([0], np.int64))
    weights.add("scale", np.array((width // heads) ** -0.5, np.float32))
    tensor = f"float[1, {tokens}, {width}]"
    return _model(f"transformer ({tensor} hidden) => ({tensor} output)", body, weights)


def cnn(*, layers: int = 3, channels: int = 16, size: int = 32, seed: int = 0) -> onnx.ModelProto:
    """Convolutions with ReLU, then the mean of each channel.

    Its input ``image`` is float32 of (1, 3, size, size), its output ``features`` of (1, channels).
    """
    weights = _Weights(seed)
    body = []
    for layer in range(layers):
        weights.normal(f"w{layer}", (channels, channels if layer else 3, 3, 3))
        body.append(f"""
            c{layer} = Conv <pads = [1, 1, 1, 1]> ({f"r{layer - 1}" if layer else "image"}, w{layer})
            r{layer} = Relu (c{layer})""")
    body.append(f"""
            pooled = GlobalAveragePool (r{layers - 1})
            features = Flatten (pooled)""")
    signature = f"cnn (float[1, 3, {size}, {size}] image) => (float[1, {channels}] features)"
    return _model(signature, body, weights)


def quantised(
    kind: str,
    *,
    scales: Literal["tensor", "channel", "block"] = "channel",
    zero_points: bool = True,
    seed: int = 0,
) -> onnx.ModelProto:
    """Two layers whose weights are integers behind a DequantizeLinear, as weight-only quantisers write them.

    Its input ``x`` is float32 of (1, 16, 64), its output ``y`` of (1, 16, 32).

    Args:
        kind: ONNX's name of the weights' type: INT2, UINT2 (opset 25), INT4, UINT4, INT8 or UINT8 (opset 21).
        scales: one for all, one for each output, or one for 32 inputs of each output.
        zero_points: in the middle of the type's range, which is zero for a signed type; without them it is
            zero for an unsigned one too.
        seed: of the weights.
    """
    generator = np.random.default_rng(seed)
    bits, signed = int(kind.lstrip("UINT")), kind.startswith("I")
    low = -(2 ** (bits - 1)) if signed else 0
    plain: Any = np.int8 if signed else np.uint8
    dtype = plain if bits == 8 else getattr(ml_dtypes, kind.lower())
    nodes, tensors = [], []
    for layer, (inputs, outputs) in enumerate(((64, 128), (128, 32))):
        shape = {"tensor": (), "channel": (outputs,), "block": (inputs // 32, outputs)}[scales]
        how: dict[str, Any] = {"tensor": {}, "channel": {"axis": 1}, "block": {"axis": 0, "block_size": 32}}[
            scales
        ]
        values = generator.integers(low, low + 2**bits, (inputs, outputs)).astype(plain)
        spread = generator.uniform(0.5, 1.5, shape) * 3.5 / (inputs**0.5 * 2**bits)
        tensors += [
            numpy_helper.from_array(values.astype(dtype), f"w{layer}"),
            numpy_helper.from_array(np.asarray(spread, np.float32), f"s{layer}"),
        ]
        if zero_points:
            zeros = np.full(shape, low + 2 ** (bits - 1)).astype(plain).astype(dtype)
            tensors.append(numpy_helper.from_array(zeros, f"z{layer}"))
        quantised_as = [f"w{layer}", f"s{layer}", *([f"z{layer}"] if zero_points else [])]
        nodes += [
            helper.make_node("DequantizeLinear", quantised_as, [f"d{layer}"], **how),
            helper.make_node("MatMul", [f"a{layer - 1}" if layer else "x", f"d{layer}"], [f"m{layer}"]),
            helper.make_node("Tanh" if layer else "Relu", [f"m{layer}"], ["y" if layer else "a0"]),
        ]
    return _two_layers(nodes, tensors, opset=25 if bits == 2 else 21)


def of_element_type(kind: str, *, seed: int = 0) -> onnx.ModelProto:
    """The same two layers, all of whose values are of one type between a float32 input and output.

    Args:
        kind: FLOAT16 or BFLOAT16: what is computed in; QDQ: float32, weights and activations rounded to int8.
        seed: of the weights.
    """
    generator = np.random.default_rng(seed)
    drawn = [
        (generator.standard_normal(shape) / shape[0] ** 0.5).astype(np.float32)
        for shape in ((64, 128), (128, 32))
    ]
    if kind == "QDQ":
        nodes, tensors = _rounded(drawn)
    else:
        dtype: Any = np.float16 if kind == "FLOAT16" else ml_dtypes.bfloat16
        element = TensorProto.DataType.Value(kind)
        tensors = [numpy_helper.from_array(w.astype(dtype), f"w{index}") for index, w in enumerate(drawn)]
        nodes = [
            helper.make_node("Cast", ["x"], ["a"], to=element),
            helper.make_node("MatMul", ["a", "w0"], ["b"]),
            helper.make_node("Relu", ["b"], ["c"]),
            helper.make_node("MatMul", ["c", "w1"], ["d"]),
            helper.make_node("Tanh", ["d"], ["e"]),
            helper.make_node("Cast", ["e"], ["y"], to=TensorProto.FLOAT),
        ]
    return _two_layers(nodes, tensors, opset=21)


def _rounded(drawn: list[NDArray[np.float32]]) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    nodes, tensors = [], []
    value = "x"
    for layer, w in enumerate(drawn):
        scale = float(np.abs(w).max()) / 127
        tensors += [
            numpy_helper.from_array(np.round(w / scale).astype(np.int8), f"w{layer}"),
            numpy_helper.from_array(np.array(scale, np.float32), f"s{layer}"),
            numpy_helper.from_array(np.array(4 / 127, np.float32), f"t{layer}"),
            numpy_helper.from_array(np.array(128, np.uint8), f"u{layer}"),
        ]
        done = "y" if layer else "c0"
        nodes += [
            helper.make_node("QuantizeLinear", [value, f"t{layer}", f"u{layer}"], [f"q{layer}"]),
            helper.make_node("DequantizeLinear", [f"q{layer}", f"t{layer}", f"u{layer}"], [f"a{layer}"]),
            helper.make_node("DequantizeLinear", [f"w{layer}", f"s{layer}"], [f"d{layer}"]),
            helper.make_node("MatMul", [f"a{layer}", f"d{layer}"], [f"m{layer}"]),
            helper.make_node("Tanh" if layer else "Relu", [f"m{layer}"], [done]),
        ]
        value = done
    return nodes, tensors


def _two_layers(
    nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto], *, opset: int
) -> onnx.ModelProto:
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16, width])
        for name, width in (("x", 64), ("y", 32))
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "layers", ends[:1], ends[1:], tensors),
        opset_imports=[helper.make_opsetid("", opset)],
        # The first ones with 2-bit and with 4-bit types.
        ir_version=13 if opset >= 25 else 10,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


class _Weights:
    """The initializers of one model, drawn one after the other from one seed."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)
        self.tensors: list[onnx.TensorProto] = []

    def add(self, name: str, array: NDArray[np.float32] | NDArray[np.int64]) -> None:
        self.tensors.append(numpy_helper.from_array(array, name))

    def ones(self, name: str, size: int) -> None:
        self.add(name, np.ones(size, np.float32))

    def normal(self, name: str, shape: tuple[int, ...]) -> None:
        # A matrix is (in, out); a convolution's kernel is (out, in, height, width).
        fan_in = shape[0] if len(shape) == 2 else int(np.prod(shape[1:]))
        drawn = self._generator.standard_normal(shape, np.float32)
        self.add(name, drawn / np.float32(fan_in**0.5))


def _model(signature: str, body: list[str], weights: _Weights) -> onnx.ModelProto:
    model = parser.parse_model(f"{_HEADER} {signature} {{{''.join(body)}\n}}")
    model.graph.initializer.extend(weights.tensors)
    onnx.checker.check_model(model, full_check=True)
    return model
