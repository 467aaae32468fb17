"""FlexAttention on the way to a compiler: each target gets the model lowered for what it runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from aotpack.builder.flex_settings import NOTHING_SAID, FlexSettings
from aotpack.builder.models.model import ModelFiles, load_graph, write_beside
from aotpack.errors import FlexError
from aotpack.manifest.values import FlexLowering
from aotpack.targets.catalogue import PORTABLE, Target
from aotpack.toolchains.base import Toolchain

if TYPE_CHECKING:
    import onnx

__all__ = ["Lowered", "lower_for"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered:
    """A model that a target's compiler takes."""

    model: ModelFiles
    #: One record for each FlexAttention node; none if the model has none and is the one given.
    records: tuple[FlexLowering, ...] = ()


def lower_for(
    target: Target,
    toolchain: Toolchain,
    model: ModelFiles,
    folder: Path,
    settings: FlexSettings = NOTHING_SAID,
) -> Lowered:
    """Lower every FlexAttention node of `model` for `target`.

    For the portable target the nodes stay, each with the schema's body beside it: an EP that knows the
    operator then takes it, and every other one runs the body.

    Args:
        target: whom for.
        toolchain: says what the target runs.
        model: the prepared model.
        folder: takes the lowered model if there is anything to lower.
        settings: of the user. For the portable target `masked_rows` alone counts: with ``zeros`` the nodes do
            not stay, as the schema's body gives NaN.

    Raises:
        FlexError: a node is wrong; the error names node and attribute.
    """
    from aotpack import flex

    graph = load_graph(model.path)
    if not flex.has_flex(graph):
        return Lowered(model=model)
    lowered, records = (
        _keep(graph, settings)
        if target.name == PORTABLE
        else flex.lower(graph, toolchain.flex_capabilities(target), options=settings.options())
    )
    folder.mkdir(parents=True, exist_ok=True)
    return Lowered(model=write_beside(lowered, model, folder / "lowered.onnx"), records=records)


def _keep(graph: onnx.ModelProto, settings: FlexSettings) -> tuple[onnx.ModelProto, tuple[FlexLowering, ...]]:
    from aotpack import flex

    options = FlexSettings(masked_rows=settings.masked_rows).options()
    try:
        return flex.lower(graph, flex.Capabilities(), options=replace(options, lowering="function"))
    except FlexError:
        # A function cannot see the values that a mod captures; plain ops run everywhere too.
        return flex.lower(graph, flex.Capabilities(), options=replace(options, lowering="dense"))
