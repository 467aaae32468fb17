"""One job: compile for a target, count, run, measure. Where it is done knows nothing of the package.

A `Task` is a value that can travel to another machine; what it gives back, a `Done`, can be kept and taken
again. `aotpack.builder.variant` makes rows and variants of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aotpack.builder.jobs.supervise import Workers
from aotpack.builder.jobs.worker import ReferenceRequest, Seconds
from aotpack.builder.numerics.compare import Compared
from aotpack.builder.spec import Limits
from aotpack.common.values import Count, Value
from aotpack.manifest.values import Coverage, FlexLowering, Requirements, SessionSettings, TensorInfo
from aotpack.targets.catalogue import Target

__all__ = [
    "NOT_ASKED",
    "Checked",
    "Done",
    "PartDone",
    "Reference",
    "References",
    "Task",
    "TaskPart",
    "make_reference",
]


#: Of a build that compares nothing.
NOT_ASKED = "Not compared: the build was told not to."


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The portable model's inputs and outputs (`aotpack.builder.numerics.reference`)."""

    #: None if there are none.
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
    #: What its variants are compared on (`Done.check_key`); None: they are not compared.
    check_key: str | None = ""
    #: Libraries of custom operators, on this machine.
    custom_ops: tuple[Path, ...] = ()


class Checked(Value, kw_only=True):
    """A variant's outputs beside the portable model's."""

    compared: Compared
    ran_on: Literal["host", "isa-emulation", "emulator"]


class PartDone(Value, kw_only=True):
    """What became of a `TaskPart`."""

    component: str
    #: (path inside the variant, path on disk), the ONNX to load first.
    files: tuple[tuple[str, str], ...]
    ep_string: str | None = None
    coverage: Coverage
    #: Names of the nodes that are outside every partition, by operator type.
    left: dict[str, tuple[str, ...]] = {}
    #: None: it was not run, for the reason in `unchecked`.
    checked: Checked | None = None
    unchecked: str | None = None
    flex: tuple[FlexLowering, ...] = ()
    note: str | None = None


class Done(Value, kw_only=True):
    """What became of a task: a part for each of its, or a failure."""

    failure: str | None = None
    parts: tuple[PartDone, ...] = ()
    #: As the toolchain that compiled says them.
    requires: Requirements = Requirements()
    session: SessionSettings = SessionSettings()
    built_with: dict[str, str] = {}
    #: Where it was done, such variants can be run as well.
    runs: bool = True
    #: Of the inputs that its variants were compared on; None: they were not compared.
    check_key: str | None = None
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


def make_reference(
    model: Path,
    folder: Path,
    workers: Workers,
    limits: Limits,
    *,
    inputs: tuple[TensorInfo, ...] | None = None,
    given: Path | None = None,
    precisions: Iterable[str] = ("f32",),
    custom_ops: Iterable[Path] = (),
) -> Reference:
    """Run the portable model, in a worker.

    Args:
        model: with fixed shapes.
        folder: an empty one.
        workers: start it.
        limits: of the worker.
        inputs: of the model, with more of their sizes fixed than it says itself.
        given: samples of the user's (`aotpack.builder.numerics.samples`); None: they are made up.
        precisions: that the variants compute in.
        custom_ops: libraries of its custom operators.

    Raises:
        BuildStopped: nobody wants it any more.
    """
    output = folder / "reference.npz"
    request = ReferenceRequest(
        model=str(model),
        output=str(output),
        inputs=inputs,
        given=None if given is None else str(given),
        precisions=tuple(sorted(set(precisions))),
        custom_ops=tuple(map(str, custom_ops)),
    )
    outcome = workers.run(request, folder, environment={}, limits=limits)
    return Reference(path=None if outcome.failure else output, failure=outcome.failure)
