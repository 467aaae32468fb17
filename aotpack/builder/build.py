"""The whole way from a model to a package."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock
import psutil

from aotpack.builder.job import Built, Prepared, make_reference, run_job
from aotpack.builder.lowering import lower_for
from aotpack.builder.model import prepare
from aotpack.builder.plan import ComponentPlan, Job, Plan, plan
from aotpack.builder.report import BuildReport
from aotpack.builder.spec import BuildSpec, ComponentSpec, Limits
from aotpack.container.content import Content
from aotpack.container.writer import write
from aotpack.errors import BuildFailed, OutputError, UsageError
from aotpack.machine import probe
from aotpack.manifest import Component, Manifest
from aotpack.source.cache import Cache
from aotpack.target import PORTABLE, find
from aotpack.toolchain import toolchains

__all__ = ["Event", "build", "build_spec"]

#: What a job is taken to need at most when none has run yet, in bytes.
_MEMORY_OF_A_JOB = 2 * 1024**3

#: (what, component, target, row or None): ``reference``, ``start``, ``end`` or ``pack``.
Event = Callable[[str, str, str, Built | None], None]


def build(
    model: str | os.PathLike[str],
    *,
    targets: Iterable[str],
    output: str | os.PathLike[str],
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    name: str | None = None,
    version: str = "0",
    portable: bool = True,
    tolerance: float | None = None,
    keep_going: bool = False,
    time_limit: float = Limits().seconds,
    memory_limit: int | None = None,
    jobs: int | None = None,
    compress: int | None = 3,
    on_event: Event | None = None,
) -> BuildReport:
    """Compile one ONNX model for many targets and pack what comes out.

    Args:
        model: path of the ONNX model.
        targets: names from the catalogue, or aliases (``aotpack targets``).
        output: path of the package to write.
        shapes: input name to its shape, or symbolic dimension to its one size.
        name: of the package; by default the model's file name.
        version: of the package.
        portable: add the untouched ONNX as a variant of its own, last in every order.
        tolerance: the largest error of a variant (`aotpack.builder.numerics.difference`); by default it
            depends on the precision that the target computes in.
        keep_going: return the report even if targets failed.
        time_limit: seconds for each worker process.
        memory_limit: bytes for each worker process and its children.
        jobs: workers at once; by default as many as cores and memory allow.
        compress: zstd level of segments that shrink by it, or None.
        on_event: called from worker threads, one call at a time.

    Raises:
        UsageError, ModelError: nothing was started.
        BuildFailed: targets failed and `keep_going` was not given, or no variant came out at all. The
            package holds those that did; the error has the report.
        OutputError: the package cannot be written.
    """
    path = Path(model)
    spec = BuildSpec(
        name=name or _package_name(path),
        version=version,
        output=Path(output),
        components=(ComponentSpec(name="main", model=path, shapes=dict(shapes or {})),),
        targets=tuple(targets),
        portable=portable,
        tolerance=tolerance,
        limits=Limits(seconds=time_limit, memory=memory_limit),
        jobs=jobs,
        compress=compress,
    )
    return build_spec(spec, keep_going=keep_going, on_event=on_event)


def build_spec(spec: BuildSpec, *, keep_going: bool = False, on_event: Event | None = None) -> BuildReport:
    """Build what `spec` says. As `build`."""
    started = time.monotonic()
    planned = plan(spec, toolchains())
    announce = _one_at_a_time(on_event)
    with _claimed(spec.output), tempfile.TemporaryDirectory(prefix="aotpack-build-") as scratch:
        built = _run(planned, Path(scratch), announce)
        report = _pack(planned, built, announce, started)
    if report.package is None:
        raise BuildFailed(
            "no target could be built, so there is no package", report=report, hint=_first_reason(report)
        )
    if report.failed and not keep_going:
        raise BuildFailed(
            f"{len(report.failed)} of {len(report.rows)} targets failed",
            report=report,
            hint=f"{_first_reason(report)}; the package has the others, --keep-going makes that a success",
        )
    return report


def _run(planned: Plan, scratch: Path, announce: Event) -> list[Built]:
    machine = probe()
    limits = planned.spec.limits
    if limits.memory is None:
        # What a machine has is the least that a limit can mean: beyond it the system kills at random.
        limits = Limits(seconds=limits.seconds, memory=psutil.virtual_memory().total * 9 // 10)
    prepared: dict[str, Prepared] = {}
    for index, component in enumerate(planned.components):
        announce("reference", component.spec.name, "", None)
        try:
            prepared[component.spec.name] = _prepare(component, scratch / f"source-{index}", limits)
        except OSError as error:
            raise OutputError(
                error.strerror or str(error), where=scratch, hint="set TMPDIR to a folder with more room"
            ) from error

    def work(item: tuple[int, Job]) -> Built:
        index, job = item
        announce("start", job.component.spec.name, job.target.name, None)
        folder = scratch / f"job-{index}"
        folder.mkdir()
        built = run_job(
            job,
            prepared[job.component.spec.name],
            folder,
            machine=machine,
            limits=limits,
            tolerance=planned.spec.tolerance,
        )
        announce("end", job.component.spec.name, job.target.name, built)
        return built

    with ThreadPoolExecutor(planned.spec.jobs or _jobs(len(planned.jobs))) as pool:
        return list(pool.map(work, enumerate(planned.jobs)))


def _prepare(component: ComponentPlan, folder: Path, limits: Limits) -> Prepared:
    prepared, reference = folder / "model", folder / "reference"
    prepared.mkdir(parents=True)
    reference.mkdir()
    model = prepare(component.model, component.spec.shapes, prepared)
    # The bare operator runs nowhere; what the portable variant has instead is what the others are held to.
    runnable = lower_for(find(PORTABLE), toolchains()["ort"], model, component.model, folder / "lowered")
    return Prepared(
        component=component,
        model=model,
        reference=make_reference(component, runnable.path, reference, limits),
    )


def _pack(planned: Plan, built: list[Built], announce: Event, started: float) -> BuildReport:
    components = []
    contents: dict[tuple[str, str], Sequence[tuple[str, Content]]] = {}
    for component in planned.components:
        name = component.spec.name
        mine = [
            item
            for job, item in zip(planned.jobs, built, strict=True)
            if job.component is component and item.variant is not None
        ]
        if mine:
            variants = tuple(item.variant for item in mine if item.variant is not None)
            components.append(
                Component(
                    name=name,
                    source=component.model.source,
                    inputs=component.model.inputs,
                    outputs=component.model.outputs,
                    variants=variants,
                )
            )
            contents |= {(name, item.variant.id): item.files for item in mine if item.variant is not None}
    rows = tuple(item.row for item in built)
    if not components:
        return BuildReport(package=None, seconds=time.monotonic() - started, rows=rows)
    announce("pack", "", "", None)
    spec = planned.spec
    manifest = Manifest(name=spec.name, version=spec.version, components=tuple(components))
    write(spec.output, manifest, contents, compress=spec.compress)
    return BuildReport(
        package=str(spec.output),
        size=spec.output.stat().st_size,
        seconds=time.monotonic() - started,
        rows=rows,
    )


@contextlib.contextmanager
def _claimed(output: Path) -> Iterator[None]:
    """Hold `output` for this build; find out before anything is compiled that it cannot be written."""
    if output.is_dir():
        raise OutputError("is a folder", where=output, expected="a file to write the package to")
    try:
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    except OSError as error:
        raise OutputError(
            error.strerror or str(error), where=output.parent, hint="choose a folder that can be written"
        ) from None
    locks = Cache().root / "builds"
    try:
        locks.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(error.strerror or str(error), where=locks, hint="set AOTPACK_CACHE") from None
    name = hashlib.sha256(os.fsencode(output.resolve())).hexdigest()[:32]
    lock = filelock.FileLock(locks / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise OutputError(
            "another build is writing it", where=output, hint="wait for it, or write elsewhere"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _one_at_a_time(on_event: Event | None) -> Event:
    lock = threading.Lock()

    def announce(what: str, component: str, target: str, built: Built | None) -> None:
        if on_event is not None:
            with lock:
                on_event(what, component, target, built)

    return announce


def _jobs(count: int) -> int:
    by_memory: int = psutil.virtual_memory().available // _MEMORY_OF_A_JOB
    return max(1, min(os.cpu_count() or 1, by_memory, count))


def _package_name(model: Path) -> str:
    kept = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "._+-") else "-"
        for letter in model.stem
    )
    name = kept.lstrip("._+-")[:128]
    if not name:
        raise UsageError("gives no name for the package", where=model, hint="give one with --name")
    return name


def _first_reason(report: BuildReport) -> str:
    row = report.failed[0]
    return f"{row.target}: {row.reason}"
