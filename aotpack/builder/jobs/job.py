"""One job: compile for a target, count, run, measure. Where it is done knows nothing of the package.

A `Task` is a value that can travel to another machine; what it gives back, a `Done`, can be kept and taken
again. `aotpack.builder.variant` makes rows and variants of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from aotpack._values import Count, Value
from aotpack.builder.jobs.supervise import Workers
from aotpack.builder.jobs.worker import (
    Difference,
    ReferenceRequest,
    Seconds,
)
from aotpack.builder.spec import Limits
from aotpack.manifest import Coverage, FlexLowering, Requirements, SessionSettings
from aotpack.target import Target

__all__ = [
    "Done",
    "Measured",
    "PartDone",
    "Reference",
    "References",
    "Task",
    "TaskPart",
    "make_reference",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The portable model's outputs on seeded inputs."""

    #: None if it could not be run.
    path: Path | None
    failure: str | None = None


#: Of a task's parts, in their order. Made while the task is done, and waited for when they are needed.
References = Callable[[], Sequence[Reference]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPart:
    """A component to compile."""

    component: str
    variant: str
    #: Prepared: shapes fixed, its data beside it.
    model: Path
    #: Of its external data, relative to the model's folder.
    data: tuple[str, ...] = ()
    #: Constants left out.
    nodes: int
    #: How FlexAttention was lowered in it.
    flex: tuple[FlexLowering, ...] = ()
    #: What there is to know of how the model was prepared.
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What to compile for a target: one component, or several that share their weights."""

    toolchain: str
    target: Target
    parts: tuple[TaskPart, ...]
    limits: Limits


class Measured(Value):
    """How far a variant's outputs are from the portable model's."""

    max_abs: Difference
    error: Difference
    ran_on: Literal["host", "isa-emulation", "emulator"]


class PartDone(Value):
    """What became of a `TaskPart`."""

    component: str
    #: (path inside the variant, path on disk), the ONNX to load first.
    files: tuple[tuple[str, str], ...]
    ep_string: str | None = None
    coverage: Coverage
    #: Names of the nodes that are outside every partition, by operator type.
    left: dict[str, tuple[str, ...]] = Field(default={})
    #: None: it was not run, for the reason in `unchecked`.
    measured: Measured | None = None
    unchecked: str | None = None
    flex: tuple[FlexLowering, ...] = ()
    note: str | None = None


class Done(Value):
    """What became of a task: a part for each of its, or a failure."""

    failure: str | None = None
    parts: tuple[PartDone, ...] = ()
    #: As the toolchain that compiled says them.
    requires: Requirements = Requirements()
    session: SessionSettings = SessionSettings()
    built_with: dict[str, str] = Field(default={})
    #: Where it was done, such variants can be run as well.
    runs: bool = True
    #: The vendor's own words on nodes that were left out.
    remarks: tuple[str, ...] = ()
    log: str = ""
    #: Wall time of all its workers.
    seconds: Seconds = 0.0
    #: Of it, loading the vendor's library.
    load_seconds: Seconds = 0.0
    #: Of it, the vendor's compiler.
    compile_seconds: Seconds | None = None
    #: Of it, creating sessions and running them.
    check_seconds: Seconds = 0.0
    #: Highest memory of a worker, in bytes.
    peak_memory: Count = 0
    #: Name of the machine, where it was another one.
    machine: str | None = None


def make_reference(model: Path, folder: Path, workers: Workers, limits: Limits) -> Reference:
    """Run the portable model once, in a worker.

    Args:
        model: with fixed shapes.
        folder: an empty one.
        workers: start it.
        limits: of the worker.

    Raises:
        BuildStopped: nobody wants it any more.
    """
    from aotpack.builder.models.model import load_graph
    from aotpack.builder.models.shapes import tensor_infos

    output = folder / "reference.npz"
    request = ReferenceRequest(model=str(model), inputs=tensor_infos(load_graph(model)), output=str(output))
    outcome = workers.run(request, folder, environment={}, limits=limits)
    return Reference(path=None if outcome.failure else output, failure=outcome.failure)
