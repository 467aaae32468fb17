"""From a spec to jobs: every name resolved, every model read, nothing run yet."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from aotpack.builder.flex_settings import FlexSettings
from aotpack.builder.models.bfloat16 import BFLOAT16, computes_in_bfloat16
from aotpack.builder.models.custom_domains import custom_domains
from aotpack.builder.models.low_bits import QDQ_DOMAINS, low_bit_types
from aotpack.builder.models.model import SourceModel, read_graph, read_source
from aotpack.builder.models.shapes import default_inputs, fix_shapes, open_dimensions, tensor_infos
from aotpack.builder.models.traversal import all_nodes
from aotpack.builder.numerics.hints import rounds_to_integers
from aotpack.builder.numerics.samples import check_samples
from aotpack.builder.spec import BuildSpec, ComponentSpec, TargetSpec
from aotpack.errors import UnknownName, UsageError
from aotpack.manifest.values import TensorInfo
from aotpack.selection.custom_ops import NO_LIBRARIES, Libraries, read_libraries
from aotpack.selection.settings import settings_issue
from aotpack.selection.shapes import Sizes, dimension_names, is_fixed
from aotpack.targets.catalogue import PORTABLE, Target, find
from aotpack.toolchains.base import Toolchain
from aotpack.version import VERSION

if TYPE_CHECKING:
    import onnx

__all__ = ["ComponentPlan", "Job", "Plan", "ingredients_digest", "plan"]

#: The domain of FlexAttention.
_PREVIEW = "ai.onnx.preview"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentPlan:
    """A component whose model was read."""

    spec: ComponentSpec
    model: SourceModel
    #: Its inputs with the given shapes.
    inputs: tuple[TensorInfo, ...]
    #: Input dimensions that stay open with the given shapes, as `open_dimensions` names them.
    open: tuple[str, ...]
    #: ONNX's names of element types that some compilers do not take: those of less than 8 bits that its
    #: weights have, and bfloat16 if it computes in that.
    narrow: frozenset[str]
    #: It may have FlexAttention nodes, which are lowered for each target.
    flex: bool
    #: It has quantised tensors (QDQ).
    quantised: bool
    #: It has quantised weights or activations of any form.
    rounds: bool
    #: Domains of its operators that ONNX Runtime does not have.
    custom_domains: tuple[str, ...] = ()
    #: Inputs that need not be given; compiled they are constants.
    default_inputs: tuple[str, ...] = ()
    #: Of the user's inputs; None: they are made up.
    samples_digest: str | None = None

    @property
    def name(self) -> str:
        """The component's name."""
        return self.spec.name

    def shapes(self, target: Target) -> dict[str, Sizes]:
        """What its variant for `target` takes: the shape of each input whose sizes its model leaves open."""
        fixed = {info.name: info.shape for info in self.model.inputs}
        # The portable one is the model as it is.
        inputs = self.model.inputs if target.name == PORTABLE else self.inputs
        return {
            info.name: info.shape
            for info in inputs
            if info.shape is not None and not is_fixed(fixed.get(info.name))
        }


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one worker compiles for one target: a component, or several that share their weights."""

    components: tuple[ComponentPlan, ...]
    target: Target
    toolchain: Toolchain
    #: The largest error; None: by the target's precision.
    tolerance: float | None
    #: Output to its own.
    tolerances: Mapping[str, float]
    #: Its variants are run and compared.
    check: bool
    #: The least share of nodes that have to be compiled, 0 to 1; None: any.
    min_compiled: float | None
    #: Versions of what compiles, on the machine that does it.
    built_with: Mapping[str, str]
    #: Element types to rewrite, and into which, for this target alone.
    widen: Mapping[str, str]
    #: Libraries of custom operators, for each session that is made of it.
    custom_ops: Libraries = NO_LIBRARIES
    #: What other jobs fix where these components leave sizes open: those are what they are compared at.
    borrowed_sizes: tuple[str, ...] = ()

    @functools.cached_property
    def ingredients(self) -> dict[str, Any]:
        """All that decides what comes out, as JSON."""
        source = {part.name: part.model.source.sha256 for part in self.components}
        # What we do to a model, and around what a compiler makes of it, is another thing in another release.
        ours: dict[str, Any] = {"aotpack": VERSION}
        flex = {part.name: said for part in self.components if part.flex and (said := part.spec.flex.said)}
        if flex:
            ours |= {"flex": flex}
        if self.target.name == PORTABLE:
            # It is the same whatever built it, unless FlexAttention was lowered in it.
            return {"source": source, **(ours if any(part.flex for part in self.components) else {})}
        return {
            "source": source,
            **ours,
            "shapes": {
                part.name: {name: list(shape) for name, shape in part.spec.shapes.items()}
                for part in self.components
            },
            "target": {
                key: value
                for key, value in self.target.to_builtins().items()
                if key in {"name", "toolchain", "ep", "device", "precision", "architectures"}
            },
            "options": dict(self.target.provider_options),
            "environment": dict(self.target.environment),
            "session": self.toolchain.session_settings(self.target).to_builtins(),
            "built_with": dict(self.built_with),
            "widen": dict(self.widen),
            **({"custom_ops": list(libraries)} if (libraries := self._libraries_used) else {}),
        }

    @functools.cached_property
    def digest(self) -> str:
        """Of the ingredients, which names the job's result in the build cache."""
        return ingredients_digest(self.ingredients)

    @functools.cached_property
    def check_key(self) -> str | None:
        """Of the inputs that its variants are compared on; None: they are not compared."""
        if not self.check:
            return None
        samples = [part.samples_digest for part in self.components]
        # The portable variant is the same whatever sizes are given, and they decide what it is compared at.
        sizes = [
            sorted((name, list(shape)) for name, shape in part.spec.shapes.items())
            for part in self.components
        ]
        borrowed = self.borrowed_sizes if any(part.open for part in self.components) else ()
        return ingredients_digest([VERSION, *samples, sizes, *borrowed, *self._libraries_used])

    @property
    def _libraries_used(self) -> tuple[str, ...]:
        """Digests of the libraries, if a component has operators that ONNX Runtime does not have.

        Another release of them is no reason to compile the other components of a package again.
        """
        uses_them = any(part.custom_domains for part in self.components)
        return self.custom_ops.digests if uses_them else ()

    def variant_id(self, component: ComponentPlan) -> str:
        """The target, and a digest of all that went in: a rebuild that changes nothing keeps it."""
        own = self.digest if len(self.components) == 1 else ingredients_digest([self.digest, component.name])
        return f"{self.target.name}-{own[:8]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that is to be done, in the order of the package."""

    spec: BuildSpec
    components: tuple[ComponentPlan, ...]
    jobs: tuple[Job, ...]
    #: Libraries of custom operators.
    custom_ops: Libraries = NO_LIBRARIES


def ingredients_digest(ingredients: object) -> str:
    """sha256 of the canonical JSON of `ingredients`, hex."""
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()


def plan(
    spec: BuildSpec,
    toolchains: Mapping[str, Toolchain],
    offered: Mapping[str, Mapping[str, str]] | None = None,
) -> Plan:
    """Resolve all names of `spec` and read its models.

    Args:
        spec: what to build.
        toolchains: all there are, by name.
        offered: toolchain to the versions that compile, where that is not this machine.

    Raises:
        UnknownName: a target, or a shape's input, does not exist.
        UsageError: two targets are the same, an option is none of its toolchain's, or there is no target.
        ModelError: a model cannot be read.
        ShapeError: a shape does not fit its input.
    """
    targets = _targets(spec, toolchains)
    components = tuple(_read(component) for component in spec.components)
    _check_names(targets, components)
    _check_tolerances(spec, targets, components)
    _check_flex(targets, components)
    custom_ops = read_libraries(spec.custom_ops)
    jobs: list[Job] = []
    for wanted, target in targets:
        toolchain = toolchains[target.toolchain]
        here = {} if target.name == PORTABLE else toolchain.built_with()
        built_with = here if offered is None else offered.get(toolchain.name, here)
        asked = [part for part in components if _is_wanted(part, target, wanted)]
        asked = [_for_target(part, wanted, target) for part in asked]
        groups = [tuple(asked)] if wanted.share_weights and len(asked) > 1 else [(part,) for part in asked]
        jobs += [
            Job(
                components=group,
                target=target,
                toolchain=toolchain,
                tolerance=spec.tolerance if wanted.tolerance is None else wanted.tolerance,
                tolerances={**spec.tolerances, **wanted.tolerances},
                check=spec.check if wanted.check is None else wanted.check,
                min_compiled=None if target.name == PORTABLE else spec.min_compiled,
                built_with=built_with,
                # The portable variant is the source as it is.
                widen={}
                if target.name == PORTABLE
                else toolchain.widened(frozenset().union(*(part.narrow for part in group))),
                custom_ops=custom_ops,
            )
            for group in groups
        ]
    jobs = [replace(job, borrowed_sizes=_sizes_of_others(job, jobs)) for job in jobs]
    return Plan(spec=spec, components=components, jobs=tuple(jobs), custom_ops=custom_ops)


def _sizes_of_others(job: Job, jobs: Sequence[Job]) -> tuple[str, ...]:
    """The sizes that any job fixes of the components of `job`, each as JSON."""
    names = {part.name for part in job.components}
    shapes = (
        json.dumps(
            [part.name, {name: list(shape) for name, shape in part.spec.shapes.items()}], sort_keys=True
        )
        for other in jobs
        for part in other.components
        if part.name in names and not part.open
    )
    return tuple(sorted(set(shapes)))


def _targets(spec: BuildSpec, toolchains: Mapping[str, Toolchain]) -> list[tuple[TargetSpec, Target]]:
    extra = [target for toolchain in toolchains.values() for target in toolchain.targets()]
    # A target may be there for several shapes.
    found: dict[tuple[str, str], tuple[TargetSpec, Target]] = {}
    portable = (TargetSpec(target=PORTABLE),) if spec.portable else ()
    for wanted in (*spec.targets, *portable):
        target = _resolve(wanted, extra, toolchains)
        key = (target.name, "" if target.name == PORTABLE else json.dumps(wanted.shapes, sort_keys=True))
        if key in found and target.name != PORTABLE:
            before = found[key][0]
            error = UsageError(
                "is given twice",
                where=f"target {wanted.name or wanted.target}",
                found=f"{_said(before, 'name', 'target') or before.target} before it",
                hint="give one of them a name of its own",
            )
            raise _placed(error, wanted, "name", "target")
        # The portable one is last, wherever it was named.
        found.pop(key, None)
        found[key] = (wanted, target)
    if not found:
        raise UsageError("no target", where=spec.output, hint="give --target; `aotpack targets` lists them")
    known = {component.name for component in spec.components}
    for wanted, target in found.values():
        for name in wanted.components or ():
            if name not in known:
                raise UsageError(f"unknown component {name!r}", where=f"target {target.name}")
    return list(found.values())


def _resolve(wanted: TargetSpec, extra: Iterable[Target], toolchains: Mapping[str, Toolchain]) -> Target:
    try:
        makers = (toolchain.target_named(wanted.target) for toolchain in toolchains.values())
        target = next((made for made in makers if made is not None), None) or find(wanted.target, extra)
        toolchain = toolchains[target.toolchain]
        if wanted.options:
            options = {**target.provider_options, **wanted.options}
            target = target.replace(provider_options=options)
    except UsageError as error:
        raise _placed(error, wanted, "target") from None
    if wanted.precision is not None:
        try:
            # After the options: some EPs have the precision in one of them, beside other things.
            target = toolchain.with_precision(target, wanted.precision)
        except UsageError as error:
            raise _placed(error, wanted, "precision") from None
    called = f"target {wanted.name or target.name}"
    for name, value in sorted(target.provider_options.items()):
        if issue := toolchain.option_issue(name, value):
            raise UsageError(issue, where=_said(wanted, f"options.{name}") or f"{called}, option {name}")
    # A third party's toolchain may set what it does not list.
    if issue := settings_issue(toolchain.session_settings(target), toolchain):
        raise UsageError(issue, where=_said(wanted, "target") or called)
    if wanted.share_weights and not toolchain.shares_weights:
        where = _said(wanted, "share_weights") or called
        raise UsageError(f"{target.ep} cannot share weights between components", where=where)
    changes = {"name": wanted.name or target.name, "shares_weights": wanted.share_weights}
    return target.replace(**changes)


def _said(wanted: TargetSpec, *keys: str) -> str | None:
    """Where the first of the keys that was given was said, if in a file."""
    return next((wanted.places[key] for key in keys if key in wanted.places), None)


def _placed(error: UsageError, wanted: TargetSpec, *keys: str) -> UsageError:
    place = _said(wanted, *keys)
    return error.at(place) if place else error


def _is_wanted(component: ComponentPlan, target: Target, wanted: TargetSpec) -> bool:
    return wanted.components is None or component.name in wanted.components or target.name == PORTABLE


def _for_target(component: ComponentPlan, wanted: TargetSpec, target: Target) -> ComponentPlan:
    """`component` as it is compiled for one target, which may have settings of its own."""
    if target.name == PORTABLE:
        # Everything else is about how it is compiled.
        flex = FlexSettings(masked_rows=component.spec.flex.masked_rows)
        return replace(component, spec=replace(component.spec, flex=flex))
    if wanted.flex.said:
        flex = component.spec.flex.but_for(wanted.flex)
        component = replace(component, spec=replace(component.spec, flex=flex))
    known = dimension_names(component.model.inputs)
    own = {name: shape for name, shape in wanted.shapes.items() if name in known}
    if not own:
        return component
    spec = replace(
        component.spec,
        shapes={**component.spec.shapes, **own},
        places={**component.spec.places, **wanted.places},
    )
    graph = fix_shapes(read_graph(spec.model), spec.shapes, spec.places)
    return replace(component, spec=spec, inputs=tensor_infos(graph), open=tuple(open_dimensions(graph)))


def _check_tolerances(
    spec: BuildSpec, targets: Iterable[tuple[TargetSpec, Target]], components: Iterable[ComponentPlan]
) -> None:
    """Refuse tolerances of outputs that no component has.

    Raises:
        UnknownName: there is one.
    """
    outputs = {value.name for component in components for value in component.model.outputs}
    given = [
        (spec.tolerances, None),
        *((wanted.tolerances, _said(wanted, "tolerance")) for wanted, _ in targets),
    ]
    for tolerances, place in given:
        for output in tolerances:
            if output not in outputs:
                unknown = UnknownName("output with a tolerance", output, outputs)
                raise unknown.at(place) if place else unknown


def _check_flex(targets: Iterable[tuple[TargetSpec, Target]], components: Iterable[ComponentPlan]) -> None:
    """Refuse settings of the lowering where there is nothing to lower.

    Raises:
        UsageError: no model has a FlexAttention node.
    """
    if any(part.flex for part in components):
        return
    specs: list[ComponentSpec | TargetSpec] = [part.spec for part in components]
    for spec in (*specs, *(wanted for wanted, _ in targets)):
        if spec.flex.said:
            first = next(iter(spec.flex.said))
            where = spec.places.get("flex") or f"--{first.replace('_', '-')}"
            raise UsageError("is for FlexAttention, and no model has such a node", where=where)


def _check_names(targets: Iterable[tuple[TargetSpec, Target]], components: Iterable[ComponentPlan]) -> None:
    """Refuse shapes of a target that name nothing in any of its components.

    Raises:
        UnknownName: one does.
    """
    for wanted, target in targets:
        parts = [part for part in components if _is_wanted(part, target, wanted)]
        known = {name for part in parts for name in dimension_names(part.model.inputs)}
        for name in wanted.shapes:
            if name not in known:
                unknown = UnknownName("input or symbolic dimension", name, known)
                raise unknown.at(_said(wanted, f"shapes.{name}") or f"target {target.name}")


def _read(spec: ComponentSpec) -> ComponentPlan:
    model = read_source(spec)
    graph = fix_shapes(read_graph(spec.model), spec.shapes, spec.places)
    return ComponentPlan(
        spec=spec,
        model=model,
        inputs=tensor_infos(graph),
        open=tuple(open_dimensions(graph)),
        narrow=low_bit_types(graph) | ({BFLOAT16} if computes_in_bfloat16(graph) else frozenset()),
        flex=any(opset.domain == _PREVIEW for opset in _imports(graph)),
        quantised=any(
            node.op_type == "DequantizeLinear" and node.domain in QDQ_DOMAINS for node in all_nodes(graph)
        ),
        rounds=rounds_to_integers(graph) or bool(low_bit_types(graph)),
        custom_domains=custom_domains(graph),
        default_inputs=default_inputs(graph),
        samples_digest=_samples_digest(spec, model.inputs, tensor_infos(graph)),
    )


def _samples_digest(
    spec: ComponentSpec, inputs: Sequence[TensorInfo], sizes: Sequence[TensorInfo]
) -> str | None:
    try:
        return check_samples(spec.inputs, inputs, sizes)
    except UsageError as error:
        place = spec.places.get("inputs")
        raise error.at(place) if place else error from None


def _imports(model: onnx.ModelProto) -> list[onnx.OperatorSetIdProto]:
    return [*model.opset_import, *(item for function in model.functions for item in function.opset_import)]
