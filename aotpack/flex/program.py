"""Pointwise programs: what each score becomes, from itself and its place alone.

Only such a mod can be computed tile by tile.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from aotpack.flex.emit import Array

__all__ = ["OutsideTable", "Program", "Value", "needed", "run_node"]


class OutsideTable(Exception):
    """A mod looks up a place that its table does not have; says where."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Value:
    """A value of a program. Its shape broadcasts to (B, Hq, L, S)."""

    kind: Literal["score", "const", "data", "step"]
    shape: tuple[int, ...]
    element_type: int
    #: Known when compiling: depends on neither scores nor captured data.
    static: bool = False
    #: Depends on the scores.
    scored: bool = False
    #: A table that a Gather step looks up: no operand that broadcasts.
    table: bool = False
    #: Of a constant.
    array: Array | None = None
    #: Of data: its name in the outer graph or in the prologue.
    name: str = ""
    #: Of a step: what is computed, from the values at these positions.
    node: onnx.NodeProto | None = None
    inputs: tuple[int | None, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """Values in the order they are computed; the last one is the result."""

    values: tuple[Value, ...]
    #: (B, Hq, L, S); B is 1 where it is not known.
    shape: tuple[int, int, int, int]
    opset: int
    #: Nodes that compute data from captured values, to be run once, and the constants they read.
    prologue: tuple[onnx.NodeProto, ...]
    prologue_constants: Mapping[str, Array]

    @property
    def result(self) -> Value:
        """The value that the mod gives."""
        return self.values[-1]

    def without_leading_scale(self) -> tuple[Program, float]:
        """The program without a multiplication that is the first use of its scores, and the factor.

        The factor then costs nothing, since Q is scaled anyway.
        """
        score = next((at for at, value in enumerate(self.values) if value.kind == "score"), None)
        users = [at for at, value in enumerate(self.values) if score in value.inputs]
        if score is None or len(users) != 1:
            return self, 1.0
        user = self.values[users[0]]
        factor = _factor(user, score, self.values)
        if factor is None:
            return self, 1.0
        # The product takes the place of the score; what it multiplied by is left without a reader.
        values = tuple(
            replace(value, inputs=tuple(score if i == users[0] else i for i in value.inputs))
            for value in self.values
        )
        result = score if users[0] == len(values) - 1 else len(values) - 1
        return replace(self, values=needed(values, result)), factor

    @property
    def uses_data(self) -> bool:
        """Whether captured values matter."""
        return any(value.kind == "data" for value in self.values)


def run_node(node: onnx.NodeProto, inputs: Mapping[str, Array], opset: int) -> tuple[Array, ...]:
    """The outputs of one node, by onnx's reference.

    Raises:
        OutsideTable: no target can run it.

    """
    try:
        outputs = _evaluator(node.SerializeToString(), opset, tuple(inputs)).run(None, dict(inputs))
    except IndexError as error:
        raise OutsideTable(f"{node.op_type} {node.output[0]!r}: {error}") from None
    return tuple(np.asarray(output) for output in outputs)


@functools.lru_cache(maxsize=512)
def _evaluator(node: bytes, opset: int, names: tuple[str, ...]) -> ReferenceEvaluator:
    proto = onnx.NodeProto.FromString(node)
    graph = helper.make_graph(
        [proto],
        "one",
        [onnx.ValueInfoProto(name=name) for name in names],
        [onnx.ValueInfoProto(name=name) for name in proto.output],
    )
    return ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]))


def needed(values: Sequence[Value], result: int) -> tuple[Value, ...]:
    """The values that `result` is computed from, and it as the last one, with their positions renumbered."""
    wanted = {result}
    for at in range(result, -1, -1):
        if at in wanted:
            wanted.update(i for i in values[at].inputs if i is not None)
    new = {old: position for position, old in enumerate(sorted(wanted))}
    return tuple(
        replace(values[old], inputs=tuple(None if i is None else new[i] for i in values[old].inputs))
        for old in new
    )


def _factor(user: Value, score: int, values: Sequence[Value]) -> float | None:
    """What `user` multiplies the score by, if that is one known number other than 0."""
    if user.node is None or user.node.op_type not in {"Mul", "Div"} or user.inputs.count(score) != 1:
        return None
    other = next(i for i in user.inputs if i != score)
    array = None if other is None else values[other].array
    if array is None or array.size != 1 or (user.node.op_type == "Div" and user.inputs[0] != score):
        return None
    number = float(array.reshape(-1)[0])
    if not 0 < abs(number) < np.inf:
        return None
    return 1 / number if user.node.op_type == "Div" else number
