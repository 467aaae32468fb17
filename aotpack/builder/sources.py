"""The models of a build as compilers take them: prepared once for all jobs that need them the same way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aotpack.builder.job import Reference, Task, TaskPart, make_reference
from aotpack.builder.model import count_nodes, prepare, read_graph, read_model
from aotpack.builder.plan import ComponentPlan, Job
from aotpack.builder.spec import Limits
from aotpack.builder.supervise import Workers
from aotpack.errors import ModelError

__all__ = ["Announce", "Sources", "refusal", "stamp"]

#: As `aotpack.builder.schedule.Event`.
Announce = Callable[[str, str, str, None], None]

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    model: Path
    nodes: int
    note: str | None


class Sources:
    """Prepares models and runs references when a job asks for them, each once. For one thread."""

    def __init__(
        self, components: tuple[ComponentPlan, ...], folder: Path, workers: Workers, limits: Limits
    ) -> None:
        self._folder = folder
        self._workers = workers
        self._limits = limits
        self._components = components
        self._stamps = {component.name: stamp(component) for component in components}
        self._prepared: dict[tuple[str, tuple[tuple[str, str], ...]], _Prepared] = {}
        self._references: dict[str, Reference] = {}

    def task(self, job: Job, limits: Limits, announce: Announce) -> Task:
        """The task of a job, its references run.

        Raises:
            ModelError: a model cannot be prepared.
        """
        return Task(
            toolchain=job.toolchain.name,
            target=job.target,
            parts=tuple(self._part(job, component, announce) for component in job.components),
            limits=limits,
        )

    def check(self) -> None:
        """Find out whether a model is no longer the one that was read when the build began.

        Raises:
            ModelError: it is not. What was compiled of it is of neither the old one nor the new one.
        """
        for component in self._components:
            if stamp(component) != self._stamps[component.name]:
                now = read_model(component.spec.model)
                if now.source.sha256 != component.model.source.sha256:
                    raise ModelError(
                        "changed while it was built", where=component.spec.model, hint="build again"
                    )
                self._stamps[component.name] = stamp(component)

    def _part(self, job: Job, component: ComponentPlan, announce: Announce) -> TaskPart:
        prepared = self._prepare(component, job.widen)
        return TaskPart(
            component=component.name,
            variant=job.variant_id(component),
            model=prepared.model,
            nodes=prepared.nodes,
            reference=self._reference(component, announce),
            note=prepared.note,
        )

    def _prepare(self, component: ComponentPlan, widen: Mapping[str, str]) -> _Prepared:
        key = (component.name, tuple(widen.items()))
        if key not in self._prepared:
            folder = self._folder / f"prepared-{len(self._prepared)}"
            folder.mkdir(parents=True)
            model, widened = prepare(component.model, component.spec.shapes, folder, widen)
            nodes = count_nodes(read_graph(model).graph)
            note = ", ".join(f"{count} {name} as {widen[name]}" for name, count in sorted(widened.items()))
            self._prepared[key] = _Prepared(
                model=model, nodes=nodes, note=f"Weights stored wider, exactly: {note}." if note else None
            )
        return self._prepared[key]

    def _reference(self, component: ComponentPlan, announce: Announce) -> Reference:
        if component.name not in self._references:
            announce("reference", component.name, "", None)
            folder = self._folder / f"reference-{len(self._references)}"
            folder.mkdir(parents=True)
            model = self._prepare(component, {}).model
            self._references[component.name] = make_reference(model, folder, self._workers, self._limits)
        return self._references[component.name]


def refusal(job: Job) -> str | None:
    """Why a job cannot be done, as far as its model and target say; None if they do not."""
    if not job.toolchain.needs_fixed_shapes:
        return None
    for component in job.components:
        if component.open:
            names = ", ".join(component.open)
            first = component.open[0].split("[")[0]
            return f"input dimensions have no fixed size: {names}; give them with --shape {first}=SIZE,…"
    return None


def stamp(component: ComponentPlan) -> _Stamp:
    """Size, inode and time of a model's files: while it is the same, so are they.

    Raises:
        ModelError: a file is gone.
    """
    try:
        found = [path.stat() for path in component.model.files()]
    except OSError as error:
        raise ModelError(
            "is gone; it was there when the build began", where=error.filename, hint="build again"
        ) from None
    return tuple((status.st_size, status.st_ino, status.st_mtime_ns) for status in found)
