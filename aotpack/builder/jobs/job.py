"""One job: compile for a target, count, run, measure. Where it is done knows nothing of the package.

A `Task` is a value that can travel to another machine; what it gives back, a `Done`, can be kept and taken
again. `aotpack.builder.variant` makes rows and variants of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from aotpack._values import Value
from aotpack.builder.jobs.supervise import Outcome, Workers
from aotpack.builder.jobs.worker import CompareRequest, CompiledPart, CompileRequest, Part, ReferenceRequest
from aotpack.builder.spec import Limits
from aotpack.errors import AotpackError
from aotpack.machine import Machine
from aotpack.manifest import Compatibility, Coverage, FlexLowering, Requirements, SessionSettings, Variant
from aotpack.target import Target
from aotpack.toolchain import toolchains
from aotpack.toolchain.base import RunsHere, Toolchain

__all__ = [
    "Done",
    "Measured",
    "PartDone",
    "Reference",
    "References",
    "Task",
    "TaskPart",
    "carry_out",
    "make_reference",
]

#: Of a vendor's remarks: more of them say the same of further nodes.
_REMARKS = 5


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

    max_abs: float
    error: float
    #: ``host``, ``isa-emulation`` or ``emulator``.
    ran_on: str


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
    seconds: float = 0.0
    #: Of it, loading the vendor's library.
    load_seconds: float = 0.0
    #: Of it, the vendor's compiler.
    compile_seconds: float | None = None
    #: Of it, creating sessions and running them.
    check_seconds: float = 0.0
    #: Highest memory of a worker, in bytes.
    peak_memory: int = 0
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


def carry_out(task: Task, references: References, folder: Path, workers: Workers, machine: Machine) -> Done:
    """Do all of a task. Whatever goes wrong is in what it gives; nothing is raised for it.

    Args:
        task: what to compile for what.
        references: what its variants are compared with.
        folder: an empty one, in which the variants' files stay.
        workers: start the processes that load the vendor's libraries.
        machine: this computer.
    """
    work = _Work(task, references, folder, workers, machine)
    try:
        return work.do()
    except Exception as error:
        # A toolchain may raise in this process too, when it is asked what it can do.
        kind = "" if isinstance(error, AotpackError) else f"{type(error).__name__}: "
        return Done(failure=f"{kind}{error}")


class _Work:
    def __init__(
        self, task: Task, references: References, folder: Path, workers: Workers, machine: Machine
    ) -> None:
        self._task = task
        self._references = references
        self._folder = folder
        self._workers = workers
        self._toolchain: Toolchain = toolchains()[task.toolchain]
        self._machine = machine
        self._started = time.monotonic()
        self._peak = 0
        self._load_seconds = 0.0
        self._check_seconds = 0.0

    def do(self) -> Done:
        task, toolchain = self._task, self._toolchain
        if refused := toolchain.why_not_compile(task.target, self._machine):
            return self._end(Done(failure=refused))
        compiled = self._folder / "compiled"
        compiled.mkdir(parents=True)
        request = CompileRequest(
            toolchain=toolchain.name,
            target=task.target,
            parts=tuple(
                Part(component=part.component, model=str(part.model), nodes=part.nodes) for part in task.parts
            ),
            folder=str(compiled),
        )
        outcome = self._run(request, "compile", dict(task.target.environment))
        if outcome.failure is not None or outcome.result is None:
            return self._end(Done(failure=self._in_their_words(outcome), log=outcome.log))
        runs = toolchain.how_to_run(task.target, self._machine)
        done = Done(
            runs=runs.how is not None,
            requires=toolchain.requirements(task.target),
            session=toolchain.session_settings(task.target),
            built_with=dict(toolchain.built_with()),
            compile_seconds=outcome.result.seconds,
            remarks=toolchain.remarks(outcome.log)[:_REMARKS],
            log=outcome.log,
        )
        parts = []
        for index, (part, made) in enumerate(zip(task.parts, outcome.result.parts, strict=True)):
            measured, why_not, failure = self._measure(index, part, made, done, runs)
            if failure is not None:
                return self._end(done.model_copy(update={"failure": failure}))
            parts.append(
                PartDone(
                    component=part.component,
                    files=made.files,
                    ep_string=made.ep_string,
                    coverage=made.coverage,
                    left=made.left,
                    measured=measured,
                    unchecked=why_not,
                    flex=part.flex,
                    note=part.note,
                )
            )
        return self._end(done.model_copy(update={"parts": tuple(parts)}))

    def _measure(
        self, index: int, part: TaskPart, made: CompiledPart, done: Done, runs: RunsHere
    ) -> tuple[Measured | None, str | None, str | None]:
        """The difference, or why it was not run, or why running it failed."""
        if runs.how is None:
            return None, f"Not run here: {runs.why}.", None
        reference = self._references()[index]
        if reference.path is None:
            return None, f"Not compared: {reference.failure}.", None
        target = self._task.target
        variant = Variant(
            id=part.variant,
            target=target.name,
            toolchain=self._task.toolchain,
            ep=target.ep,
            device=target.device,
            compatibility=Compatibility(ep_string=made.ep_string, requires=done.requires),
            session=done.session,
        )
        request = CompareRequest(
            variant=variant,
            model=made.files[0][1],
            reference=str(reference.path),
            emulate=runs.how == "emulator",
        )
        environment = dict(target.environment) if runs.how != "host" else {}
        outcome = self._run(request, f"compare-{index}", environment)
        if outcome.failure is not None or outcome.result is None:
            words = self._in_their_words(outcome)
            return None, None, f"it compiled, but does not run ({runs.how}): {words}"
        max_abs, error = outcome.result.max_abs, outcome.result.difference
        self._check_seconds += outcome.result.seconds
        assert max_abs is not None and error is not None
        return Measured(max_abs=max_abs, error=error, ran_on=runs.how), None, None

    def _run(
        self, request: CompileRequest | CompareRequest, step: str, environment: dict[str, str]
    ) -> Outcome:
        folder = self._folder / step
        folder.mkdir()
        outcome = self._workers.run(request, folder, environment=environment, limits=self._task.limits)
        self._peak = max(self._peak, outcome.peak_memory)
        if outcome.result is not None:
            self._load_seconds += outcome.result.load_seconds
        return outcome

    def _end(self, done: Done) -> Done:
        return done.model_copy(
            update={
                "seconds": time.monotonic() - self._started,
                "load_seconds": self._load_seconds,
                "check_seconds": self._check_seconds,
                "peak_memory": self._peak,
            }
        )

    def _in_their_words(self, outcome: Outcome) -> str:
        """The failure, and what the vendor's library said of it."""
        failure = outcome.failure or ""
        remarks = [remark for remark in self._toolchain.remarks(outcome.log) if remark not in failure]
        said = f" - {'; '.join(remarks[:_REMARKS])}" if remarks else ""
        return f"{failure}{said}"
