"""Domains of a model's operators that ONNX Runtime does not have: their kernels come in libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aotpack.builder.models.traversal import all_nodes
from aotpack.manifest.model_check import DOMAINS

if TYPE_CHECKING:
    import onnx

__all__ = ["custom_domains"]


def custom_domains(model: onnx.ModelProto) -> tuple[str, ...]:
    """The domains, in order, of operators that neither ONNX Runtime nor a function of the model has.

    As `aotpack.manifest.model_check.check_model` finds them in a variant.
    """
    functions = {(each.domain, each.name, each.overload) for each in model.functions}
    return tuple(
        sorted(
            {
                node.domain
                for node in all_nodes(model)
                if node.domain not in DOMAINS and (node.domain, node.op_type, node.overload) not in functions
            }
        )
    )
