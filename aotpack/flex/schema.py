"""The FlexAttention that onnx ships: its schema, fingerprinted, and its body as a function.

The operator is experimental and changes in place, so its version number says nothing. What is hashed instead
is all that its meaning depends on: inputs, outputs, types, attributes, and the body that onnx builds for a
node with and without each attribute.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import onnx
from onnx import helper

from aotpack.errors import FlexError

__all__ = ["DOMAIN", "FINGERPRINT", "OP_TYPE", "VERSION", "check_schema", "fingerprint", "function_body"]

#: Where the operator is.
DOMAIN = "ai.onnx.preview"
#: What it is called.
OP_TYPE = "FlexAttention"
#: The opset of the domain that this release knows.
VERSION = 1

#: Of the schema in onnx 1.23, which everything in this folder was written against.
FINGERPRINT = "a14def599bd9093fc0e8a280a6e723dc5c8f8ce6b3146e57c2548ce0481b524a"


@functools.cache
def fingerprint() -> str:
    """The sha256 of what the installed onnx means by FlexAttention, in hex.

    Raises:
        FlexError: this onnx has no such operator.

    """
    schema = _schema()
    types = {item.type_param_str: sorted(item.allowed_type_strs) for item in schema.type_constraints}
    means = {
        "since": schema.since_version,
        "inputs": [(item.name, item.type_str, str(item.option)) for item in schema.inputs],
        "outputs": [(item.name, item.type_str, str(item.option)) for item in schema.outputs],
        "types": types,
        "attributes": {
            name: (str(item.type), item.required, _value(item.default_value))
            for name, item in sorted(schema.attributes.items())
        },
        "bodies": [
            onnx.printer.to_text(function_body(_bare_node(attributes), element))
            for element in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
            for attributes in ({}, {"scale": 0.5}, {"softmax_precision": onnx.TensorProto.DOUBLE})
        ],
    }
    return hashlib.sha256(json.dumps(means, sort_keys=True).encode()).hexdigest()


def check_schema() -> None:
    """Refuse an onnx whose FlexAttention is another one than ours.

    Raises:
        FlexError: the operator is missing, or its schema has changed.

    """
    found = fingerprint()
    if found != FINGERPRINT:
        raise FlexError(
            "the FlexAttention schema has changed",
            where=f"onnx {onnx.__version__}",
            found=found[:16],
            expected=FINGERPRINT[:16],
            hint="install the onnx release that this aotpack was made for",
        )


def function_body(node: onnx.NodeProto, *element_types: int, rank: int = 4) -> onnx.FunctionProto:
    """The body that onnx gives `node`, with its mods inlined.

    Args:
        node: a FlexAttention node.
        element_types: ``TensorProto`` types of Q, K and V; one stands for all three.
        rank: of Q, K and V.

    """
    types = [
        helper.make_tensor_type_proto(element, [None] * rank)
        for element in (element_types * 3 if len(element_types) == 1 else element_types)
    ]
    text: bytes = _schema().get_context_dependent_function(
        node.SerializeToString(), [item.SerializeToString() for item in types]
    )
    body = onnx.FunctionProto()
    body.ParseFromString(text)
    return body


def _schema() -> Any:
    try:
        return onnx.defs.get_schema(OP_TYPE, VERSION, DOMAIN)
    except onnx.defs.SchemaError:
        raise FlexError(
            f"has no {DOMAIN}::{OP_TYPE}", where=f"onnx {onnx.__version__}", expected="onnx 1.22 or later"
        ) from None


def _bare_node(attributes: Mapping[str, float | int]) -> onnx.NodeProto:
    node = helper.make_node(OP_TYPE, ["Q", "K", "V"], ["Y"], domain=DOMAIN)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    return node


def _value(attribute: onnx.AttributeProto) -> str:
    return str(attribute.SerializeToString().hex())
