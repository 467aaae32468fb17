"""A transformer encoder of plain ONNX operators, with seeded random weights: 75 MB in fp32 by default.

    python samples/transformer.py transformer.onnx

Its weights are drawn as a trained network's are spread, so that sizes and times are realistic; its outputs
mean nothing.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["transformer"]

OPSET = 17


def transformer(
    *,
    layers: int = 6,
    width: int = 512,
    heads: int = 8,
    length: int | str = 64,
    batch: int | str = 1,
    seed: int = 0,
) -> onnx.ModelProto:
    """An encoder of `layers` blocks of self-attention and MLP, pre-norm.

    Args:
        layers: number of blocks.
        width: of the embedding; the MLP is four times as wide.
        heads: of the attention.
        length: of the sequence: a number, or the name of a symbolic dimension.
        batch: likewise.
        seed: of the weights.

    Returns:
        A model with the input ``hidden`` and the output ``encoded``, both float32 (batch, length, width).
    """
    graph = _Graph(np.random.default_rng(seed))
    hidden = "hidden"
    for layer in range(layers):
        hidden = _block(graph, f"layer{layer}", hidden, width, heads)
    graph.norm("final", hidden, width, output="encoded")
    shape = [batch, length, width]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "transformer",
            [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("encoded", TensorProto.FLOAT, shape)],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
        producer_name="aotpack samples",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _block(graph: _Graph, name: str, hidden: str, width: int, heads: int) -> str:
    normed = graph.norm(f"{name}.attention.norm", hidden, width)
    split = graph.constant(f"{name}.split", np.array([0, 0, heads, width // heads], np.int64))
    query, key, value = (
        graph.node(
            "Transpose",
            [graph.node("Reshape", [graph.linear(f"{name}.attention.{part}", normed, width, width), split])],
            perm=perm,
        )
        for part, perm in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3]))
    )
    scale = graph.constant(f"{name}.scale", np.array(1 / math.sqrt(width // heads), np.float32))
    scores = graph.node("Mul", [graph.node("MatMul", [query, key]), scale])
    mixed = graph.node("MatMul", [graph.node("Softmax", [scores], axis=-1), value])
    merge = graph.constant(f"{name}.merge", np.array([0, 0, width], np.int64))
    joined = graph.node("Reshape", [graph.node("Transpose", [mixed], perm=[0, 2, 1, 3]), merge])
    hidden = graph.node("Add", [hidden, graph.linear(f"{name}.attention.out", joined, width, width)])
    normed = graph.norm(f"{name}.mlp.norm", hidden, width)
    wide = graph.gelu(name, graph.linear(f"{name}.mlp.up", normed, width, 4 * width))
    return graph.node("Add", [hidden, graph.linear(f"{name}.mlp.down", wide, 4 * width, width)])


class _Graph:
    """Nodes and initializers as they come."""

    def __init__(self, random: np.random.Generator) -> None:
        self.random = random
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def node(self, op: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output or name], name=name, **attributes))
        return str(self.nodes[-1].output[0])

    def constant(self, name: str, value: npt.NDArray[np.generic]) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def linear(self, name: str, value: str, width_in: int, width_out: int) -> str:
        weight = self.random.standard_normal((width_in, width_out), np.float32) / np.float32(
            math.sqrt(width_in)
        )
        bias = self.random.standard_normal(width_out, np.float32) * np.float32(0.02)
        product = self.node("MatMul", [value, self.constant(f"{name}.weight", weight)])
        return self.node("Add", [product, self.constant(f"{name}.bias", bias)])

    def norm(self, name: str, value: str, width: int, output: str | None = None) -> str:
        scale = 1 + np.float32(0.1) * self.random.standard_normal(width, np.float32)
        shift = np.float32(0.02) * self.random.standard_normal(width, np.float32)
        inputs = [value, self.constant(f"{name}.scale", scale), self.constant(f"{name}.shift", shift)]
        return self.node("LayerNormalization", inputs, output, axis=-1, epsilon=1e-5)

    def gelu(self, name: str, value: str) -> str:
        # x / 2 * (1 + erf(x / sqrt(2))): opset 17 has no Gelu.
        root = self.constant(f"{name}.root", np.array(math.sqrt(2), np.float32))
        one = self.constant(f"{name}.one", np.array(1, np.float32))
        half = self.constant(f"{name}.half", np.array(0.5, np.float32))
        erf = self.node("Add", [self.node("Erf", [self.node("Div", [value, root])]), one])
        return self.node("Mul", [self.node("Mul", [value, erf]), half])


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a transformer with seeded random weights.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--dynamic", action="store_true", help="leave batch and length open")
    parser.add_argument("--external", action="store_true", help="keep the weights in a file beside the model")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = transformer(
        layers=options.layers,
        width=options.width,
        heads=options.heads,
        length="length" if options.dynamic else options.length,
        batch="batch" if options.dynamic else 1,
        seed=options.seed,
    )
    if options.external:
        (options.output.parent / f"{options.output.name}.data").unlink(missing_ok=True)
    onnx.save(
        model,
        options.output,
        save_as_external_data=options.external,
        location=f"{options.output.name}.data" if options.external else None,
    )


if __name__ == "__main__":
    main()
