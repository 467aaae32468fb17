"""Models made in code, for what no small real model shows: weights of any size, chosen shapes, known numbers.

Weights are seeded and scaled by 1/sqrt(fan-in), so that values stay near 1 however deep the model is and a
difference between two variants means something.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, parser

__all__ = ["cnn", "transformer"]

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
