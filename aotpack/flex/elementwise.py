"""Ops that work on each place by itself: which they are, and what they give."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

__all__ = ["ELEMENTWISE", "broadcasts", "element_type"]

#: Ops whose output at a place depends on their inputs at that place only, inputs broadcasting as in numpy.
ELEMENTWISE = frozenset(
    [
        "Abs",
        "Acos",
        "Acosh",
        "Add",
        "And",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "BitShift",
        "BitwiseAnd",
        "BitwiseNot",
        "BitwiseOr",
        "BitwiseXor",
        "Cast",
        "Ceil",
        "Celu",
        "Clip",
        "Cos",
        "Cosh",
        "Div",
        "Elu",
        "Equal",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "Greater",
        "GreaterOrEqual",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "IsInf",
        "IsNaN",
        "LeakyRelu",
        "Less",
        "LessOrEqual",
        "Log",
        "Max",
        "Mean",
        "Min",
        "Mish",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "Pow",
        "Reciprocal",
        "Relu",
        "Round",
        "Selu",
        "Shrink",
        "Sigmoid",
        "Sign",
        "Sin",
        "Sinh",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Sub",
        "Sum",
        "Swish",
        "Tan",
        "Tanh",
        "ThresholdedRelu",
        "Where",
        "Xor",
    ]
)

#: Those that give truth values for numbers.
_TESTS = frozenset({"Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual"})


def element_type(node: onnx.NodeProto, operands: Sequence[int]) -> int:
    """The ``TensorProto`` type of what one of these ops gives, from the types of its operands."""
    if node.op_type == "Cast":
        return int(next(item.i for item in node.attribute if item.name == "to"))
    if node.op_type in _TESTS:
        return int(onnx.TensorProto.BOOL)
    return operands[1 if node.op_type == "Where" else 0]


def broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether an operand of one shape can stand for one of another without making that larger."""
    tail = target[len(target) - len(shape) :]
    return len(shape) <= len(target) and all(dim in (1, size) for dim, size in zip(shape, tail, strict=True))
