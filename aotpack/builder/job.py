"""One job: compile a component for a target, count, check the numbers; a variant or a reason comes out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aotpack.builder.lowering import lower_for
from aotpack.builder.numerics import TOLERANCES
from aotpack.builder.plan import ComponentPlan, Job
from aotpack.builder.report import Row
from aotpack.builder.spec import Limits
from aotpack.builder.supervise import Outcome, run_worker
from aotpack.builder.worker import CompareRequest, CompileRequest, ReferenceRequest, Result
from aotpack.errors import AotpackError, FlexError
from aotpack.machine import Machine
from aotpack.manifest import Compatibility, Coverage, Numerics, TensorInfo, Variant
from aotpack.target import PORTABLE
from aotpack.toolchain.plugin import MODEL_NAME

__all__ = ["Built", "Prepared", "Reference", "make_reference", "run_job"]

#: Of a log, in characters: enough for the vendor's last words.
_LOG_IN_REPORT = 4000
#: Of a reason, in characters: some vendors list every node of the model in one message.
_REASON_IN_REPORT = 600
#: What a worker reports for a difference that is not finite is above this.
_NOT_FINITE = 1e300
#: Of the nodes that are left out.
_NAMED_NODES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The portable model's outputs on seeded inputs."""

    #: None if it could not be run.
    path: Path | None
    failure: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What all jobs of one component share."""

    component: ComponentPlan
    #: The model with its shapes fixed.
    model: Path
    reference: Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What came out of a job: a variant with its files, or only a row that says why not."""

    row: Row
    variant: Variant | None = None
    files: tuple[tuple[str, Path], ...] = ()


@dataclass(slots=True)
class _Spent:
    """What the workers of one job took."""

    started: float = field(default_factory=time.monotonic)
    compile_seconds: float | None = None
    peak_memory: int = 0

    def add(self, outcome: Outcome) -> Outcome:
        self.peak_memory = max(self.peak_memory, outcome.peak_memory)
        return outcome


def make_reference(component: ComponentPlan, model: Path, folder: Path, limits: Limits) -> Reference:
    """Run the portable model once, in a worker.

    Args:
        component: whose model it is.
        model: with fixed shapes.
        folder: an empty one.
        limits: of the worker.
    """
    from aotpack.builder.model import read_graph, tensor_infos

    inputs: tuple[TensorInfo, ...] = tensor_infos(read_graph(model))
    output = folder / "reference.npz"
    request = ReferenceRequest(model=str(model), inputs=inputs, output=str(output))
    outcome = run_worker(request, folder, environment={}, limits=limits)
    return Reference(path=None if outcome.failure else output, failure=outcome.failure)


def run_job(
    job: Job, prepared: Prepared, folder: Path, *, machine: Machine, limits: Limits, tolerance: float | None
) -> Built:
    """Do all of one job. Whatever goes wrong is in the row; nothing is raised for it.

    Args:
        job: what to compile for what.
        prepared: the component's model and reference.
        folder: an empty one, which holds the variant's files until they are packed.
        machine: this computer.
        limits: of each worker.
        tolerance: the largest error; None: by the target's precision.
    """
    spent = _Spent()
    try:
        return _run(job, prepared, folder, machine, limits, tolerance, spent)
    except Exception as error:
        # A toolchain may raise in this process too, when it is asked what it can do.
        kind = "" if isinstance(error, AotpackError) else f"{type(error).__name__}: "
        return _failed(job, spent, f"{kind}{error}")


def _run(
    job: Job,
    prepared: Prepared,
    folder: Path,
    machine: Machine,
    limits: Limits,
    tolerance: float | None,
    spent: _Spent,
) -> Built:
    refused = job.toolchain.why_not_compile(job.target, machine)
    if refused is None and job.toolchain.needs_fixed_shapes and job.component.open:
        names = ", ".join(job.component.open)
        first = job.component.open[0].split("[")[0]
        refused = f"input dimensions have no fixed size: {names}; give them with --shape {first}=SIZE,…"
    if refused is not None:
        return _failed(job, spent, refused)
    source = job.component.model
    base = source.path if job.target.name == PORTABLE else prepared.model
    try:
        lowered = lower_for(job.target, job.toolchain, base, source, folder / "lowered")
    except FlexError as error:
        return _failed(job, spent, str(error))
    if job.target.name == PORTABLE:
        result = Result(
            files=tuple(zip((MODEL_NAME, *source.data), map(str, source.files(lowered.path)), strict=True)),
            coverage=Coverage(nodes=source.nodes, compiled=0, partitions=0),
        )
        log = ""
    else:
        compiled = folder / "compiled"
        compiled.mkdir(parents=True)
        request = CompileRequest(
            toolchain=job.toolchain.name,
            target=job.target,
            model=str(lowered.path),
            folder=str(compiled),
            nodes=lowered.nodes,
        )
        outcome = spent.add(
            run_worker(request, _step(folder, "compile"), environment=job.target.environment, limits=limits)
        )
        if outcome.failure is not None or outcome.result is None:
            return _failed(job, spent, _in_their_words(outcome, job), outcome.log)
        result, log = outcome.result, outcome.log
        spent.compile_seconds = result.seconds
    variant = _variant(job, result).model_copy(update={"flex": lowered.records})
    numerics, unchecked = _check(job, variant, prepared, result, folder, machine, limits, tolerance, spent)
    if isinstance(numerics, str):
        return _failed(job, spent, numerics, unchecked or "")
    variant = variant.model_copy(update={"numerics": numerics})
    notes = [_left_out(result, job, log), unchecked]
    return Built(
        row=Row(
            target=job.target.name,
            component=job.component.spec.name,
            state="built",
            seconds=time.monotonic() - spent.started,
            compile_seconds=spent.compile_seconds,
            reason=" ".join(note for note in notes if note) or None,
            id=variant.id,
            size=sum(Path(path).stat().st_size for _, path in result.files),
            ep_string=result.ep_string,
            coverage=result.coverage,
            numerics=numerics,
            peak_memory=spent.peak_memory or None,
            log=log[-_LOG_IN_REPORT:] if result.left else None,
        ),
        variant=variant,
        files=tuple((name, Path(path)) for name, path in result.files),
    )


def _check(
    job: Job,
    variant: Variant,
    prepared: Prepared,
    result: Result,
    folder: Path,
    machine: Machine,
    limits: Limits,
    tolerance: float | None,
    spent: _Spent,
) -> tuple[Numerics | str | None, str | None]:
    """The numerics and why there are none, or a failure and its log."""
    allowed = TOLERANCES[job.target.precision] if tolerance is None else tolerance
    runs = job.toolchain.how_to_run(job.target, machine)
    if runs.how is None:
        return None, f"Not run here: {runs.why}."
    if prepared.reference.path is None:
        return None, f"Not compared: {prepared.reference.failure}."
    if job.target.name == PORTABLE:
        # It is what the others are compared with.
        return Numerics(max_abs=0.0, error=0.0, tolerance=allowed, ran_on=runs.how), None
    request = CompareRequest(
        variant=variant,
        model=result.files[0][1],
        reference=str(prepared.reference.path),
        emulate=runs.how == "emulator",
    )
    environment: Mapping[str, str] = job.target.environment if runs.how != "host" else {}
    outcome = spent.add(run_worker(request, _step(folder, "compare"), environment=environment, limits=limits))
    if outcome.failure is not None or outcome.result is None:
        return f"it compiled, but does not run ({runs.how}): {_in_their_words(outcome, job)}", outcome.log
    max_abs, error = outcome.result.max_abs, outcome.result.difference
    if max_abs is None or error is None or error > allowed:
        found = "not finite" if error is None or error > _NOT_FINITE else f"an error of {error:.3g}"
        return f"its numbers are off: {found} on seeded inputs; the tolerance is {allowed:g}", outcome.log
    return Numerics(max_abs=max_abs, error=error, tolerance=allowed, ran_on=runs.how), None


def _variant(job: Job, result: Result) -> Variant:
    target = job.target
    return Variant(
        id=job.variant_id,
        target=target.name,
        toolchain=job.toolchain.name,
        ep=target.ep,
        device=target.device,
        precision=target.precision,
        specificity=target.specificity,
        compatibility=Compatibility(ep_string=result.ep_string, requires=job.toolchain.requirements(target)),
        session=job.toolchain.session_settings(target),
        built_with=dict(job.toolchain.built_with()) if target.name != PORTABLE else {},
        coverage=result.coverage,
    )


def _step(folder: Path, name: str) -> Path:
    step = folder / name
    step.mkdir()
    return step


def _failed(job: Job, spent: _Spent, reason: str, log: str = "") -> Built:
    sentence = " ".join(reason.split())
    if len(sentence) > _REASON_IN_REPORT:
        sentence = sentence[:_REASON_IN_REPORT] + " …"
    return Built(
        row=Row(
            target=job.target.name,
            component=job.component.spec.name,
            state="failed",
            seconds=time.monotonic() - spent.started,
            compile_seconds=spent.compile_seconds,
            reason=sentence,
            peak_memory=spent.peak_memory or None,
            log=log[-_LOG_IN_REPORT:] or None,
        )
    )


def _in_their_words(outcome: Outcome, job: Job) -> str:
    """The failure, and what the vendor's library said of it."""
    remarks = [
        remark for remark in job.toolchain.remarks(outcome.log) if remark not in (outcome.failure or "")
    ]
    said = f" - {'; '.join(remarks[:_NAMED_NODES])}" if remarks else ""
    return f"{outcome.failure}{said}"


def _left_out(result: Result, job: Job, log: str) -> str | None:
    """Which nodes stay on the CPU, and why."""
    if not result.left or result.coverage is None:
        return None
    count = sum(len(names) for names in result.left.values())
    kinds = []
    for kind, names in sorted(result.left.items()):
        shown = ", ".join(names[:_NAMED_NODES]) + (", …" if len(names) > _NAMED_NODES else "")
        kinds.append(f"{kind} ({shown})")
    remarks = job.toolchain.remarks(log)
    why = (
        f" {job.target.ep}: {'; '.join(remarks[:_NAMED_NODES]).rstrip('.')}."
        if remarks
        else f" {job.target.ep} does not say why."
    )
    return f"{count} of {result.coverage.nodes} nodes stay on the CPU: {', '.join(kinds)}.{why}"
