"""From a spec to jobs: every name resolved, every model read, nothing run yet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from aotpack.builder.model import SourceModel, fix_shapes, open_dimensions, read_graph, read_model
from aotpack.builder.spec import BuildSpec, ComponentSpec
from aotpack.errors import UsageError
from aotpack.manifest import SessionSettings
from aotpack.target import PORTABLE, Target, find
from aotpack.toolchain.base import Toolchain

__all__ = ["ComponentPlan", "Job", "Plan", "plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentPlan:
    """A component whose model was read."""

    spec: ComponentSpec
    model: SourceModel
    #: Input dimensions that stay open with the given shapes, as `open_dimensions` names them.
    open: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One component to compile for one target."""

    component: ComponentPlan
    target: Target
    toolchain: Toolchain

    @property
    def variant_id(self) -> str:
        """The target, and a digest of all that goes in: a rebuild that changes nothing keeps it."""
        settings: SessionSettings = self.toolchain.session_settings(self.target)
        ingredients = {
            "source": self.component.model.source.sha256,
            "shapes": {name: list(shape) for name, shape in self.component.spec.shapes.items()},
            "target": self.target.model_dump(mode="json"),
            "session": settings.model_dump(mode="json"),
            "built_with": dict(self.toolchain.built_with()),
        }
        if self.target.name == PORTABLE:
            # It is the same whatever built it.
            ingredients = {"source": ingredients["source"]}
        digest = hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()
        return f"{self.target.name}-{digest[:8]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that is to be done, in the order of the package."""

    spec: BuildSpec
    components: tuple[ComponentPlan, ...]
    jobs: tuple[Job, ...]


def plan(spec: BuildSpec, toolchains: Mapping[str, Toolchain]) -> Plan:
    """Resolve all names of `spec` and read its models.

    Raises:
        UnknownName: a target, or a shape's input, does not exist.
        UsageError: two targets are the same, or there is no target at all.
        ModelError: a model cannot be read.
        ShapeError: a shape does not fit its input.
    """
    extra = [target for toolchain in toolchains.values() for target in toolchain.targets()]
    targets: dict[str, str] = {}
    for name in (*spec.targets, *((PORTABLE,) if spec.portable else ())):
        target = find(name, extra)
        if target.name in targets and target.name != PORTABLE:
            raise UsageError(
                "is given twice", where=f"target {name}", found=f"{targets[target.name]} before it"
            )
        # The portable one is last, wherever it was named.
        targets.pop(target.name, None)
        targets[target.name] = name
    if not targets:
        raise UsageError("no target", where=spec.output, hint="give --target; `aotpack targets` lists them")
    components = tuple(_read(component) for component in spec.components)
    jobs = tuple(
        Job(component=component, target=target, toolchain=toolchains[target.toolchain])
        for component in components
        for target in (find(name, extra) for name in targets)
    )
    return Plan(spec=spec, components=components, jobs=jobs)


def _read(spec: ComponentSpec) -> ComponentPlan:
    model = read_model(spec.model)
    graph = fix_shapes(read_graph(spec.model), spec.shapes)
    return ComponentPlan(spec=spec, model=model, open=tuple(open_dimensions(graph)))
