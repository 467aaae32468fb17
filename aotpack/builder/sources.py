"""The models of a build as compilers take them: prepared once for all jobs that need them the same way."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from aotpack.builder.flex_settings import FlexSettings
from aotpack.builder.jobs.carry_out import recheck
from aotpack.builder.jobs.job import Done, Reference, References, Task, TaskPart, make_reference
from aotpack.builder.jobs.pools import Place
from aotpack.builder.jobs.supervise import Workers
from aotpack.builder.models.bfloat16 import BFLOAT16
from aotpack.builder.models.lowering import Lowered, lower_for
from aotpack.builder.models.model import (
    ModelFiles,
    file_stamps,
    import_model,
    load_graph,
    prepare,
    read_model,
)
from aotpack.builder.models.shapes import tensor_infos
from aotpack.builder.numerics.samples import write_samples
from aotpack.builder.plan import ComponentPlan, Job
from aotpack.builder.spec import Limits
from aotpack.errors import ModelError, OutputError, UsageError
from aotpack.machine.profile import Machine
from aotpack.runtime.events import EventCode
from aotpack.selection.custom_ops import NO_LIBRARIES, Libraries, missing_library, read_libraries
from aotpack.selection.shapes import takes
from aotpack.targets.catalogue import PORTABLE, Target, find
from aotpack.toolchains import toolchains
from aotpack.toolchains.base import Toolchain

__all__ = ["Announce", "Sources", "refusal"]

#: Is told which component a reference is made of, and when it is made.
Announce = Callable[[EventCode, str], None]


@dataclass(frozen=True, slots=True)
class _Prepared:
    model: ModelFiles
    note: str | None


class Sources:
    """Prepares models and has references made when a job asks for them, each once. For one thread.

    Args:
        components: whose models they are; one may be there several times, for several shapes.
        folder: an empty one, which takes what is prepared.
        workers: start the references.
        limits: of a worker.
        precisions: that the variants compute in.
        custom_ops: libraries of custom operators.
    """

    def __init__(
        self,
        components: tuple[ComponentPlan, ...],
        folder: Path,
        workers: Workers,
        limits: Limits,
        precisions: Iterable[str] = ("f32",),
        custom_ops: Libraries = NO_LIBRARIES,
    ) -> None:
        self._custom_ops = custom_ops
        self._library_stamps = file_stamps(custom_ops.paths)
        self._precisions = tuple(precisions)
        self._folder = folder
        self._workers = workers
        self._limits = limits
        self._components = components
        self._stamps = {component.name: component.model.stamps for component in components}
        self._imported: dict[str, ModelFiles] = {}
        self._prepared: dict[object, _Prepared] = {}
        self._lowered: dict[object, Lowered] = {}
        self._references: dict[object, Future[Reference]] = {}

    def task(self, job: Job) -> Task:
        """The task of a job.

        Raises:
            FlexError: a FlexAttention node cannot be lowered for the target.
            ModelError: a model cannot be prepared.
            OutputError: there is no room.
        """
        parts = []
        for component in job.components:
            prepared = self._prepare(component, job.widen)
            lowered = self._lower(component, job.target, job.toolchain, job.widen)
            parts.append(
                TaskPart(
                    component=component.name,
                    variant=job.variant_id(component),
                    model=lowered.model.path,
                    data=lowered.model.data,
                    nodes=lowered.model.nodes,
                    flex=lowered.records,
                    note=prepared.note,
                )
            )
        return Task(
            toolchain=job.toolchain.name,
            target=job.target,
            parts=tuple(parts),
            limits=self._limits,
            check_key=job.check_key,
            custom_ops=job.custom_ops.paths,
        )

    def recheck(
        self, job: Job, made: Done, references: References, folder: Path, machine: Machine
    ) -> Callable[[], Done]:
        """What runs and compares on this machine what was compiled before, or needs no compiling.

        Args:
            job: what was asked for.
            made: what came of it.
            references: what its variants are compared with.
            folder: an empty one.
            machine: this computer.
        """
        parts = tuple(
            TaskPart(
                component=part.component,
                variant=job.variant_id(part_plan),
                model=Path(part.files[0][1]),
                nodes=part.coverage.nodes,
                flex=part.flex,
                note=part.note,
            )
            for part, part_plan in zip(made.parts, job.components, strict=True)
        )
        task = Task(
            toolchain=job.toolchain.name,
            target=job.target,
            parts=parts,
            limits=self._limits,
            check_key=job.check_key,
            custom_ops=job.custom_ops.paths,
        )
        return lambda: recheck(task, made, references, folder, self._workers, machine)

    def references(self, job: Job, place: Place, announce: Announce) -> References:
        """What the variants of a job are compared with, made by `place` when the first job asks.

        Raises:
            As `task`.
        """
        made = [self._reference(component, place, announce) for component in job.components]
        return lambda: [each.result() for each in made]

    def portable(self, job: Job) -> Mapping[str, Lowered]:
        """Component to the model that any EP can run, its shapes as they were.

        Raises:
            As `task`.
        """
        return {
            component.name: self._lower(component, job.target, job.toolchain, None)
            for component in job.components
        }

    def check(self) -> None:
        """Find out whether a model or library is no longer the one that was read when the build began.

        Raises:
            ModelError: it is not. What was compiled of it is of neither the old one nor the new one.
        """
        libraries = self._custom_ops.paths
        if (stamps := file_stamps(libraries)) != self._library_stamps:
            if read_libraries(libraries) != self._custom_ops:
                where = ", ".join(map(str, libraries))
                raise ModelError("changed while it was built with", where=where, hint="build again")
            self._library_stamps = stamps
        for component in self._components:
            now = file_stamps(component.model.files())
            if now != self._stamps[component.name]:
                if read_model(component.spec.model).source.sha256 != component.model.source.sha256:
                    raise ModelError(
                        "changed while it was built", where=component.spec.model, hint="build again"
                    )
                self._stamps[component.name] = now

    def _prepare(self, component: ComponentPlan, widen: Mapping[str, str]) -> _Prepared:
        # Of components that share their weights one may have types that another has not.
        widen = {name: wide for name, wide in widen.items() if name in component.narrow}
        key = (component.name, _shapes_key(component), tuple(widen.items()))
        if key not in self._prepared:
            source = self._import(component)
            with _scratch(self._folder / f"prepared-{len(self._prepared)}") as folder:
                model, widened = prepare(source, component.spec.shapes, folder, widen)
            self._prepared[key] = _Prepared(model, _note(widened, widen, component.default_inputs))
        return self._prepared[key]

    def _import(self, component: ComponentPlan) -> ModelFiles:
        if component.name not in self._imported:
            with _scratch(self._folder / f"imported-{len(self._imported)}") as folder:
                self._imported[component.name] = import_model(component.model, folder)
        return self._imported[component.name]

    def _lower(
        self, component: ComponentPlan, target: Target, toolchain: Toolchain, widen: Mapping[str, str] | None
    ) -> Lowered:
        """The prepared model lowered for a target; without `widen` the source itself is."""
        model = self._import(component) if widen is None else self._prepare(component, widen).model
        if not component.flex:
            return Lowered(model=model)
        settings = component.spec.flex
        if target.name == PORTABLE:
            settings = FlexSettings(masked_rows=settings.masked_rows)
        said = json.dumps(settings.said, sort_keys=True)
        key = (model.path, target.name == PORTABLE, toolchain.flex_capabilities(target), said)
        if key not in self._lowered:
            with _scratch(self._folder / f"lowered-{len(self._lowered)}") as folder:
                self._lowered[key] = lower_for(target, toolchain, model, folder, settings)
        return self._lowered[key]

    def _reference(self, component: ComponentPlan, place: Place, announce: Announce) -> Future[Reference]:
        component = self._comparable(component)
        key = (component.name, _shapes_key(component))
        if key not in self._references:
            folder = self._folder / f"reference-{len(self._references)}"
            folder.mkdir(parents=True)
            # The bare operator runs nowhere; what the portable variant has is what the others are held to.
            portable = find(PORTABLE)
            runs_it = toolchains()[portable.toolchain]
            runnable = self._lower(component, portable, runs_it, runs_it.widened(component.narrow))

            def make() -> Reference:
                announce(EventCode.REFERENCE, component.name)
                reference = self._made_reference(component, runnable.model.path, folder)
                announce(EventCode.REFERENCE_DONE, component.name)
                return reference

            self._references[key] = place.refer(make)
        return self._references[key]

    def _made_reference(self, component: ComponentPlan, model: Path, folder: Path) -> Reference:
        given = folder / "given.npz" if component.spec.inputs else None
        if given is not None:
            try:
                write_samples(component.spec.inputs, tensor_infos(load_graph(model)), given)
            except UsageError as error:
                # They fit the component: this target alone has other sizes, or a file changed.
                return Reference(path=None, failure=str(error))
        return make_reference(
            model,
            folder,
            self._workers,
            self._limits,
            given=given,
            precisions=self._precisions,
            custom_ops=self._custom_ops.paths,
        )

    def _comparable(self, component: ComponentPlan) -> ComponentPlan:
        """`component`, or the same with sizes where it leaves some open: it has to be run with some.

        Those that another target is compiled for mean something to the model, and 1 for each may not.
        """
        if not component.open or component.spec.inputs:
            # The user's inputs have sizes.
            return component
        fixed = (each for each in self._components if each.name == component.name and not each.open)
        return next((each for each in fixed if takes(component.inputs, each.inputs)), component)


def _shapes_key(component: ComponentPlan) -> object:
    return tuple(sorted(component.spec.shapes.items()))


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """`folder`, made and empty; what goes wrong with it is told as what it is."""
    try:
        # What was begun in it before may have failed.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        yield folder
    except OSError as error:
        if error.errno is None:
            raise
        raise OutputError(error.strerror or str(error), where=folder, hint="is it full?") from error


def _note(
    widened: Mapping[tuple[str, str], int], widen: Mapping[str, str], fixed: Sequence[str]
) -> str | None:
    """What was done to weights and inputs, in a sentence for the report."""
    wider = [f"{count} {name} as {wide}" for (name, wide), count in widened.items() if wide != name]
    told = [f"{count} {name}" for (name, wide), count in widened.items() if wide == name]
    sentences = [
        *([f"Weights stored wider, exactly: {', '.join(sorted(wider))}."] if wider else []),
        *(["Computed in float32, for it takes no bfloat16."] if BFLOAT16 in widen else []),
        *([f"Inputs fixed to their default values: {', '.join(fixed)}."] if fixed else []),
        *([f"Weights with their zero point written out: {', '.join(sorted(told))}."] if told else []),
    ]
    return " ".join(sentences) or None


def refusal(job: Job) -> str | None:
    """Why a job cannot be done, as far as its model and target say; None if they do not."""
    for component in job.components:
        # A compiler that never asks ONNX Runtime may know them.
        if component.custom_domains and not job.custom_ops.paths and job.toolchain.takes_custom_ops:
            return missing_library(component.custom_domains).removesuffix(".")
        if job.target.integers_only and not component.quantised:
            return (
                f"its NPU computes in integers alone, and {component.name} is not quantised: "
                "give it QuantizeLinear and DequantizeLinear nodes (QDQ)"
            )
        if component.open and job.toolchain.needs_fixed_shapes:
            names = ", ".join(component.open)
            first = component.open[0].split("[")[0]
            how = f"--shape {first}=SIZE,…"
            if component.spec.places:
                how = f"shapes = {{ {first} = [SIZE, …] }} in its [[component]]"
            return f"input dimensions have no fixed size: {names}; give them with {how}"
    return None
