"""Writing FlexAttention: a node, or a model that is one attention and nothing else."""

from __future__ import annotations

import onnx
from onnx import helper

from aotpack.errors import FlexError
from aotpack.flex.emit import FLOATS
from aotpack.flex.lower import read
from aotpack.flex.mod import Mod, to_graph
from aotpack.flex.schema import DOMAIN, OP_TYPE, VERSION
from aotpack.flex.trace import Capture, element_type_of

__all__ = ["attention", "make_node"]


def make_node(
    inputs: tuple[str, str, str],
    output: str,
    *,
    dtype: str = "float32",
    score_mod: Mod | None = None,
    prob_mod: Mod | None = None,
    scale: float | None = None,
    softmax_precision: str | None = None,
    name: str = "",
) -> tuple[onnx.NodeProto, tuple[Capture, ...]]:
    """A FlexAttention node, and the values that its mods capture from the graph it is put in.

    Args:
        inputs: the names of Q (B, Hq, L, E), K (B, Hkv, S, E) and V (B, Hkv, S, Ev).
        output: the name of Y (B, Hq, L, Ev).
        dtype: of all four: float32, float16, bfloat16 or float64.
        score_mod: applied to the scores, of shape (B, Hq, L, S).
        prob_mod: applied to the softmax of them.
        scale: of the scores; 1 / sqrt(E) if None.
        softmax_precision: the type of scores and probabilities; float32, or float64 for that dtype, if None.
        name: of the node.

    Raises:
        FlexError: a mod is no mod, or a type is none that the operator takes.

    """
    element = element_type_of(dtype)
    precision = softmax_precision or ("float64" if dtype == "float64" else "float32")
    node = helper.make_node(OP_TYPE, inputs, [output], domain=DOMAIN, name=name)
    if element not in FLOATS or element_type_of(precision) not in FLOATS:
        raise FlexError("is no floating-point type", where=name or OP_TYPE, found=f"{dtype}, {precision}")
    if scale is not None:
        node.attribute.append(helper.make_attribute("scale", float(scale)))
    if softmax_precision is not None:
        node.attribute.append(helper.make_attribute("softmax_precision", element_type_of(precision)))
    captured: dict[str, Capture] = {}
    for attribute, value in (("score_mod", score_mod), ("prob_mod", prob_mod)):
        if value is not None:
            graph, found = to_graph(value, element_type_of(precision), name=attribute)
            node.attribute.append(helper.make_attribute(attribute, graph))
            for capture in found:
                if captured.setdefault(capture.name, capture) != capture:
                    raise FlexError("is captured with two types", where=capture.name)
    return node, tuple(captured.values())


def attention(
    shape: tuple[int | str, int, int | str, int],
    *,
    kv_shape: tuple[int | str, int, int | str, int] | None = None,
    v_size: int | None = None,
    dtype: str = "float32",
    score_mod: Mod | None = None,
    prob_mod: Mod | None = None,
    scale: float | None = None,
    softmax_precision: str | None = None,
    opset: int = 24,
    name: str = "attention",
) -> onnx.ModelProto:
    """A model of one FlexAttention node: inputs Q, K, V and what the mods capture, output Y.

    Args:
        shape: of Q: (B, Hq, L, E). B, L and S may be symbolic names.
        kv_shape: of K: (B, Hkv, S, E); that of Q if None.
        v_size: Ev, the last dimension of V and Y; E if None.
        dtype: of Q, K, V and Y.
        score_mod: as for `make_node`.
        prob_mod: as for `make_node`.
        scale: as for `make_node`.
        softmax_precision: as for `make_node`.
        opset: of the default domain.
        name: of the graph and the node.

    Raises:
        FlexError: shapes contradict each other, or a mod is wrong.

    """
    for each in filter(None, (score_mod, prob_mod)):
        for mod, heads in each.heads:
            if heads != shape[1]:
                raise FlexError(
                    "has a table for other heads", where=f"mod {mod!r}", found=heads, expected=shape[1]
                )
    k_shape = kv_shape or shape
    v_shape = (*k_shape[:3], v_size or k_shape[3])
    node, captured = make_node(
        ("Q", "K", "V"),
        "Y",
        dtype=dtype,
        score_mod=score_mod,
        prob_mod=prob_mod,
        scale=scale,
        softmax_precision=softmax_precision,
        name=name,
    )
    element = element_type_of(dtype)
    inputs = [
        helper.make_tensor_value_info(letter, element, list(dims))
        for letter, dims in zip("QKV", (shape, k_shape, v_shape), strict=True)
    ]
    for capture in captured:
        inputs.append(helper.make_tensor_value_info(capture.name, capture.element_type, list(capture.shape)))
    output = helper.make_tensor_value_info("Y", element, [*shape[:3], v_shape[3]])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, VERSION)]
    model = helper.make_model(
        helper.make_graph([node], name, inputs, [output]), opset_imports=opsets, producer_name="aotpack"
    )
    model.ir_version = helper.find_min_ir_version_for([opsets[0]])
    # What is wrong with the shapes is said here, and not when it is built.
    read(model)
    return model
