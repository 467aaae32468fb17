"""FlexAttention subgraphs as components of their own: loadable alone, equal ones compiled once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from aotpack.builder.flex_settings import NOTHING_SAID, FlexSettings
from aotpack.builder.models.model import read_graph
from aotpack.builder.models.shapes import fix_shapes
from aotpack.builder.spec import BuildSpec, ComponentSpec
from aotpack.errors import UsageError

if TYPE_CHECKING:
    import onnx

__all__ = ["attention_components", "with_subgraphs"]


def with_subgraphs(spec: BuildSpec, folder: Path) -> BuildSpec:
    """`spec` with each distinct FlexAttention subgraph of its models as a component as well.

    They are called ``attention-0``, ``attention-1`` and so on, in the order of the models and their nodes;
    equal ones of all models are one.

    Args:
        spec: what to build.
        folder: an empty one that takes the subgraphs and has to last until they are built.

    Raises:
        UsageError: no model has a FlexAttention node.
        FlexError: a node is wrong.
        ModelError: a model cannot be read.
    """
    from aotpack import flex

    found: dict[str, tuple[onnx.ModelProto, FlexSettings]] = {}
    for component in spec.components:
        graph = fix_shapes(read_graph(component.model), component.shapes, component.places)
        for _, subgraph in flex.extract(graph):
            digest = hashlib.sha256(subgraph.SerializeToString(deterministic=True)).hexdigest()
            found.setdefault(digest, (subgraph, component.flex))
    if not found:
        raise UsageError("no model has a FlexAttention node", where="--extract flex")
    made: list[ComponentSpec] = []
    for index, (model, settings) in enumerate(found.values()):
        made += attention_components({f"attention-{index}": model}, folder, settings)
    return replace(spec, components=(*spec.components, *made))


def attention_components(
    models: Mapping[str, onnx.ModelProto], folder: Path, settings: FlexSettings = NOTHING_SAID
) -> tuple[ComponentSpec, ...]:
    """Write attention models into `folder` and give a component for each, by its name."""
    made = []
    for name, model in models.items():
        path = folder / f"{name}.onnx"
        path.write_bytes(model.SerializeToString(deterministic=True))
        made.append(ComponentSpec(name=name, model=path, shapes={}, kind="flex-attention", flex=settings))
    return tuple(made)
