"""Mods: what a FlexAttention node does to its scores or probabilities, as values that compose.

A mod is a chain of changes to the score and a set of masks. `a & b` joins both, so that ``causal() &
softcap(30.0)`` and ``softcap(30.0) & causal()`` mean the same: a mask is applied after every change, else a
softcap would turn its -inf into a number that is not masked. `a | b` sees what either of two masks sees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx
from onnx import helper

from aotpack.errors import FlexError
from aotpack.flex.emit import Emitter, captures, names_of
from aotpack.flex.trace import BOOL, Capture, Tensor, Trace, indices, where

__all__ = ["Mask", "Mod", "from_graph", "mask", "mod", "to_graph"]

#: (b, h, q, k) to a boolean tensor, true where the key is seen. All are int64 of rank 4.
MaskFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
#: (score, b, h, q, k) to a score of the same shape and type.
ScoreFunction = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Mod:
    """Changes to the score, in order, and masks that are all applied after them."""

    name: str
    changes: tuple[ScoreFunction | onnx.GraphProto, ...] = ()
    masks: tuple[MaskFunction, ...] = ()
    #: How many query heads its tables are for, by the name of each mod that has one.
    heads: tuple[tuple[str, int], ...] = ()

    def __and__(self, other: Mod) -> Mod:
        kind = Mask if isinstance(self, Mask) and isinstance(other, Mask) else Mod
        return kind(
            f"{self.name}+{other.name}",
            self.changes + other.changes,
            self.masks + other.masks,
            self.heads + other.heads,
        )


@dataclass(frozen=True, eq=False)
class Mask(Mod):
    """A mod that only hides keys."""

    def sees(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        """True where query `q` of head `h` in batch `b` sees key `k`."""
        first, *others = [function(b, h, q, k) for function in self.masks]
        for other in others:
            first = first & other
        return first

    def __or__(self, other: Mask) -> Mask:
        return Mask(f"{self.name}|{other.name}", (), (lambda *at: self.sees(*at) | other.sees(*at),))

    def __invert__(self) -> Mask:
        return Mask(f"not-{self.name}", (), (lambda *at: ~self.sees(*at),))


def mask(function: MaskFunction, name: str | None = None) -> Mask:
    """A mask from a Python function ``f(b, h, q, k)`` over tensors."""
    return Mask(name or _name(function), (), (function,))


def mod(function: ScoreFunction, name: str | None = None, *, heads: int | None = None) -> Mod:
    """A mod from a Python function ``f(score, b, h, q, k)`` over tensors.

    Args:
        function: is given the score and its place.
        name: of the mod; the function's if None.
        heads: how many query heads its tables are for: `attention` refuses to use it with another number.

    """
    name = name or _name(function)
    return Mod(name, (function,), heads=() if heads is None else ((name, heads),))


def from_graph(graph: onnx.GraphProto) -> Mod:
    """A mod from an ONNX graph: one rank-4 tensor in, one of the same shape and type out.

    Names that it uses and does not define are captured from around the node.

    Raises:
        FlexError: it has not one input and one output.

    """
    if len(graph.input) != 1 or len(graph.output) != 1:
        raise FlexError(
            "does not take one tensor and give one",
            where=f"mod {graph.name!r}",
            found=f"{len(graph.input)} inputs, {len(graph.output)} outputs",
        )
    return Mod(graph.name or "graph", (graph,))


def to_graph(
    value: Mod, element_type: int, *, name: str = "score_mod"
) -> tuple[onnx.GraphProto, tuple[Capture, ...]]:
    """The graph of a mod, and the values that it captures.

    Args:
        value: the mod.
        element_type: ``TensorProto`` type of the scores, which is the node's softmax precision.
        name: of the graph; its inner names begin with it.

    Raises:
        FlexError: a function gave no tensor, or one of another type.

    """
    emitter = Emitter(f"{name}_")
    scores = emitter.name("in")
    trace = Trace(emitter, element_type)
    score = Tensor(trace, scores, element_type)
    at = indices(trace, scores, range(4))
    for change in value.changes:
        if isinstance(change, onnx.GraphProto):
            score = Tensor(trace, emitter.inline(change, score.name), element_type)
            continue
        score = _checked(change(score, *at), element_type, value.name)
    if value.masks:
        sees = _checked(value.masks[0](*at), BOOL, value.name)
        for function in value.masks[1:]:
            sees = sees & _checked(function(*at), BOOL, value.name)
        score = where(sees, score, float("-inf"))
    # An output has a name of its own even if the mod changes nothing.
    out = emitter.op("Identity", score.name, output=emitter.name("out"))
    shape = ["B", "H", "L", "S"]
    graph = helper.make_graph(
        _used(emitter.nodes, out),
        name,
        [helper.make_tensor_value_info(scores, element_type, shape)],
        [helper.make_tensor_value_info(out, element_type, shape)],
    )
    read = set(captures(graph))
    graph.initializer.extend(tensor for tensor in emitter.initializers if tensor.name in read)
    return graph, tuple(capture for capture in trace.captures.values() if capture.name in read)


def _used(nodes: list[onnx.NodeProto], output: str) -> list[onnx.NodeProto]:
    wanted, kept = {output}, []
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.output):
            wanted.update(names_of(node))
            kept.append(node)
    return kept[::-1]


def _checked(value: object, element_type: int, name: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise FlexError("gave no tensor", where=f"mod {name!r}", found=type(value).__name__)
    if value.element_type != element_type:
        kinds = onnx.TensorProto.DataType
        raise FlexError(
            "gave a tensor of another type",
            where=f"mod {name!r}",
            found=kinds.Name(value.element_type).lower(),
            expected=kinds.Name(element_type).lower(),
            hint="cast it with .like(score)",
        )
    return value


def _name(function: Callable[..., object]) -> str:
    return getattr(function, "__name__", "mod").strip("<>")
