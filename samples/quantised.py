"""Quantised copies of models, for NPUs that compute in integers: QDQ by ONNX Runtime's own quantiser::

    python -m samples.quantised model.onnx model-int8.onnx --shape input=1,576

Calibrated on seeded noise: right in form and in how it loads, of no use for what the model is meant to do.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

from aotpack.builder.models.model import read_graph
from aotpack.builder.models.shapes import fix_shapes, tensor_infos
from aotpack.builder.numerics.inputs import made_inputs
from aotpack.selection.shapes import parse_shape

__all__ = ["quantise"]

_ROUNDS = 8


class _Noise(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, model: onnx.ModelProto) -> None:
        inputs = tensor_infos(model)
        self._rounds = iter([made_inputs(inputs, seed=seed) for seed in range(_ROUNDS)])

    def get_next(self) -> Any:
        return next(self._rounds, None)


def quantise(model: Path, output: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Write `model` to `output` with the given shapes, activations in uint8 and weights in int8."""
    fixed = fix_shapes(read_graph(model), shapes)
    with tempfile.TemporaryDirectory() as temporary:
        plain, ready = Path(temporary) / "plain.onnx", Path(temporary) / "ready.onnx"
        onnx.save(fixed, plain)
        # Its symbolic shape inference needs sympy, and every shape is fixed here.
        quant_pre_process(plain, ready, skip_symbolic_shape=True)
        quantization.quantize_static(
            ready,
            output,
            _Noise(fixed),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m samples.quantised", description="Quantise a model.")
    parser.add_argument("model", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--shape", action="append", default=[], metavar="NAME=SIZES")
    asked = parser.parse_args()
    quantise(asked.model, asked.output, parse_shape(asked.shape))
