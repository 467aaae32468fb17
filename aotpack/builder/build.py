"""The whole way from a model to a package."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import filelock

from aotpack.builder.flex_settings import NOTHING_SAID, FlexSettings
from aotpack.builder.footprint import with_footprints
from aotpack.builder.jobs.dask_farm import connect
from aotpack.builder.jobs.executor_pool import ExecutorPool
from aotpack.builder.jobs.libraries import check_loadable
from aotpack.builder.jobs.model_copies import ModelCopies
from aotpack.builder.jobs.pools import Here, Place, jobs_at_once
from aotpack.builder.jobs.resources import default_limits
from aotpack.builder.jobs.supervise import Workers
from aotpack.builder.models.constants import with_constants
from aotpack.builder.plan import plan
from aotpack.builder.report import BuildReport
from aotpack.builder.results import Results
from aotpack.builder.schedule import Finished, do_all
from aotpack.builder.sources import Sources
from aotpack.builder.spec import BuildSpec, ComponentSpec, Constant, Limits, TargetSpec
from aotpack.cache.layout import BUILDS, claim, not_written
from aotpack.cache.retention import sweep_builds
from aotpack.cache.variants import Cache
from aotpack.common.paths import name_issue
from aotpack.container.content import Content
from aotpack.container.partial import check_is_package, check_writable
from aotpack.container.writer import write
from aotpack.errors import BuildFailed, OutputError, UsageError
from aotpack.files.regular import discard, make_folder
from aotpack.manifest.values import Component, Manifest
from aotpack.runtime.events import Event, EventCode, OnEvent
from aotpack.runtime.probing import probe
from aotpack.selection.custom_ops import GivenLibraries, checked_libraries
from aotpack.selection.shapes import Wanted, checked_shapes
from aotpack.toolchains import toolchains

__all__ = ["build", "build_spec", "one_model", "package_name", "refuse_input"]


def build(
    model: str | os.PathLike[str],
    *,
    targets: Iterable[str | TargetSpec],
    output: str | os.PathLike[str],
    shapes: Wanted | None = None,
    constants: Mapping[str, Constant] | None = None,
    lowering: str | None = None,
    masked_rows: str | None = None,
    block: tuple[int, int] | None = None,
    kv_heads: int | None = None,
    name: str | None = None,
    version: str = "0",
    portable: bool = True,
    tolerance: float | Mapping[str, float] | None = None,
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    check: bool = True,
    min_compiled: float | None = None,
    keep_going: bool = False,
    time_limit: float = Limits().seconds,
    memory_limit: int | None = None,
    jobs: int | None = None,
    reuse: bool = True,
    executor: Executor | str | None = None,
    compress: int | None = 3,
    on_event: OnEvent | None = None,
    force: bool = False,
    custom_ops: GivenLibraries = (),
    cache: Cache | None = None,
) -> BuildReport:
    """Compile one ONNX model for many targets and pack what comes out.

    Args:
        model: path of the ONNX model.
        targets: names from the catalogue, aliases (``aotpack targets``), or a `TargetSpec` with more to say.
        output: path of the package to write; none of the files of the model.
        shapes: input name to its shape, or symbolic dimension to its one size, for all targets; a
            `TargetSpec` can have others.
        constants: input name to the value that it always has; the variants lack that input.
        lowering: of FlexAttention nodes, for all targets: ``function``, ``dense``, ``block-sparse`` or
            ``fused``; by default what costs least. A `TargetSpec` can have another one.
        masked_rows: what a query that sees no key gives: ``nan``, as in ONNX, or ``zeros``, as in PyTorch.
        block: queries and keys a block; by default what costs least.
        kv_heads: heads of K and V a tile; by default what costs least.
        name: of the package; by default the model's file name.
        version: of the package.
        portable: add the untouched ONNX as a variant of its own, last in every order.
        tolerance: the largest error of a variant (docs/numerics.md), or output name to its own; by default it
            depends on the precision that the target computes in.
        inputs: ``.npz`` files of arrays by input name, or folders of them, that variants are compared on; by
            default inputs are made up.
        check: run variants that can run here, and compare them with the portable model.
        min_compiled: the least share of the model's nodes that an EP has to compile, 0 to 1; by default any.
        keep_going: return the report even if targets failed.
        time_limit: seconds for each worker process.
        memory_limit: bytes for each worker process and its children.
        jobs: workers at once; by default as many as cores and memory allow.
        reuse: take results of earlier builds, and keep those of this one.
        executor: does the jobs instead of this machine: any `concurrent.futures.Executor` whose processes can
            import aotpack, or ``dask://HOST:PORT``, the scheduler of a Dask cluster.
        compress: zstd level of segments that shrink by it, or None.
        on_event: called for each step (`aotpack.runtime.events`), from worker threads, one call at a time.
        force: replace a file at `output` that is not a package, too.
        custom_ops: paths of the libraries of custom operators that the model needs. They are loaded into the
            worker processes, and are no part of the package: whoever loads it gives them as well. Not with
            an `executor`.
        cache: of results of builds; by default the user's.

    Raises:
        UsageError, ModelError: nothing was started.
        BuildFailed: targets failed and `keep_going` was not given, or no variant came out at all. The
            package holds those that did; the error has the report.
        OutputError: the package cannot be written.
    """
    spec = one_model(
        Path(model),
        targets=targets,
        output=Path(output),
        shapes=shapes,
        constants=constants,
        flex=FlexSettings(lowering=lowering, masked_rows=masked_rows, block=block, kv_heads=kv_heads),
        name=name,
        version=version,
        portable=portable,
        tolerance=None if isinstance(tolerance, Mapping) else tolerance,
        tolerances=tolerance if isinstance(tolerance, Mapping) else {},
        inputs=[inputs] if isinstance(inputs, str | os.PathLike) else inputs,
        check=check,
        min_compiled=min_compiled,
        limits=Limits(seconds=time_limit, memory=memory_limit),
        jobs=jobs,
        reuse=reuse,
        compress=compress,
        force=force,
        custom_ops=checked_libraries(custom_ops),
    )
    return build_spec(spec, executor=executor, keep_going=keep_going, on_event=on_event, cache=cache)


def one_model(
    model: Path,
    *,
    targets: Iterable[str | TargetSpec],
    output: Path,
    shapes: Wanted | None = None,
    constants: Mapping[str, Constant] | None = None,
    inputs: Iterable[str | os.PathLike[str]] = (),
    flex: FlexSettings = NOTHING_SAID,
    name: str | None = None,
    **settings: Any,
) -> BuildSpec:
    """The spec of a package with one model.

    Args:
        model: path of the ONNX model.
        targets: as `build`'s.
        output: path of the package to write.
        shapes: as `build`'s.
        constants: as `build`'s.
        inputs: as `build`'s.
        flex: of the lowering of FlexAttention nodes.
        name: of the package; by default the model's file name.
        settings: of the `BuildSpec`.

    Raises:
        UsageError: a setting makes no sense.
    """
    if isinstance(targets, str):
        raise UsageError("is a text", where="targets", found=repr(targets), expected=f"a list: [{targets!r}]")
    sizes = checked_shapes(shapes or {})
    return BuildSpec(
        name=name or package_name(model),
        output=output,
        components=(
            ComponentSpec(
                name="main",
                model=model,
                shapes=sizes,
                constants=dict(constants or {}),
                inputs=tuple(map(Path, inputs)),
                flex=flex,
            ),
        ),
        targets=tuple(TargetSpec(target=each) if isinstance(each, str) else each for each in targets),
        **settings,
    )


def build_spec(
    spec: BuildSpec,
    *,
    executor: Executor | str | None = None,
    keep_going: bool = False,
    on_event: OnEvent | None = None,
    cache: Cache | None = None,
) -> BuildReport:
    """Build what `spec` says. As `build`."""
    started = time.monotonic()
    cache = Cache() if cache is None else cache
    tell = _one_at_a_time(on_event)
    refuse_input(spec.output, [component.model for component in spec.components])
    with _claimed(spec.output, cache.root) as scratch:
        spec = with_constants(spec, scratch)
        results = Results(cache) if spec.reuse else None
        finished = _run(spec, executor, scratch, results, tell)
        report = _pack(spec, finished, tell, started)
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


def _run(
    spec: BuildSpec, executor: Executor | str | None, scratch: Path, results: Results | None, tell: OnEvent
) -> list[Finished]:
    limits = default_limits(spec.limits)
    if spec.custom_ops and executor is not None:
        raise UsageError(
            "are not sent to other machines",
            where="custom_ops",
            hint="build on this machine, without an executor",
        )
    with contextlib.ExitStack() as stack:
        workers = stack.enter_context(Workers())
        check_loadable(spec.custom_ops, workers)
        executor_pool = None if executor is None else _executor_pool(executor, workers)
        if executor_pool is not None:
            stack.callback(executor_pool.close)
        planned = plan(spec, toolchains(), executor_pool.offered() if executor_pool else None)
        refuse_input(spec.output, [file for each in planned.components for file in each.model.files()])
        check_is_package(spec.output, force=spec.force)
        place: Place
        if executor_pool is None:
            sizes = [sum(part.model.source.size for part in job.components) for job in planned.jobs]
            copies = ModelCopies(scratch / "models")
            place = Here(workers, probe(), jobs_at_once(sizes, spec.jobs), copies)
            stack.callback(place.close)
        else:
            place = executor_pool
        compiled = [part for job in planned.jobs for part in job.components]
        precisions = {"f32", *(job.target.precision or "f32" for job in planned.jobs)}
        sources = Sources(
            (*planned.components, *compiled), scratch, workers, limits, precisions, planned.custom_ops
        )
        machine = probe() if executor_pool is None else None
        finished = do_all(planned, place, sources, results, scratch, tell, machine)
        if results is not None:
            results.trim()
        return finished


def _executor_pool(executor: Executor | str, workers: Workers) -> ExecutorPool:
    if isinstance(executor, str):
        return connect(executor, workers, probe())
    return ExecutorPool(executor, workers, probe())


def _pack(spec: BuildSpec, finished: list[Finished], tell: OnEvent, started: float) -> BuildReport:
    components: dict[str, Component] = {}
    contents: dict[tuple[str, str], Sequence[tuple[str, Content]]] = {}
    for item in finished:
        component, variant = item.component, item.built.variant
        if variant is None:
            continue
        before = components.get(component.name)
        components[component.name] = Component(
            name=component.name,
            kind=component.spec.kind,
            source=component.model.source,
            inputs=component.model.inputs,
            outputs=component.model.outputs,
            variants=(*(before.variants if before else ()), variant),
        )
        contents[component.name, variant.id] = item.built.files
    rows = tuple(item.built.row for item in finished)
    if not components:
        return BuildReport(package=None, seconds=time.monotonic() - started, rows=rows)
    tell(Event(code=EventCode.PACKING, package=str(spec.output)))
    # Jobs are in the order of the targets, components of a package in that of the spec.
    ordered = tuple(components[each.name] for each in spec.components if each.name in components)
    manifest = write(
        spec.output,
        Manifest(name=spec.name, version=spec.version, license=spec.license, components=ordered),
        contents,
        compress=spec.compress,
        force=spec.force,
    )
    return BuildReport(
        package=str(spec.output),
        size=spec.output.stat().st_size,
        seconds=time.monotonic() - started,
        rows=with_footprints(rows, manifest),
    )


@contextlib.contextmanager
def _claimed(output: Path, root: Path) -> Iterator[Path]:
    """Hold `output` for this build, and give a scratch folder in the cache at `root`, gone afterwards.

    Find out before anything is compiled that `output` cannot be written. What builds that were killed have
    left is removed.
    """
    # That it is a package is asked when all that is read is known, for that it must not be in any case.
    check_writable(output, force=True)
    builds = root / BUILDS
    name = hashlib.sha256(os.fsencode(output.resolve())).hexdigest()[:32]
    try:
        claim(root)
        make_folder(builds)
        sweep_builds(root)
        lock = filelock.FileLock(builds / f"{name}.lock")
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise OutputError(
            "another build is writing it", where=output, hint="wait for it, or write elsewhere"
        ) from None
    except OSError as error:
        raise not_written(error, root) from None
    scratch = builds / name
    try:
        discard(scratch)
        scratch.mkdir()
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        # Before it is released: whoever waits for it finds that it has gone, and makes a new one. Windows
        # removes no open file; there it goes with the next sweep.
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


def _one_at_a_time(on_event: OnEvent | None) -> OnEvent:
    lock = threading.Lock()

    def tell(event: Event) -> None:
        if on_event is not None:
            with lock:
                on_event(event)

    return tell


def refuse_input(output: Path, inputs: Iterable[Path]) -> None:
    """Nothing, if `output` is none of the files that are read to make it.

    Raises:
        UsageError: it is one of them; a slip of the hand is not to cost a model.
    """
    for path in inputs:
        with contextlib.suppress(OSError):
            if output.samefile(path):
                raise UsageError("is also an input", where=output, hint="write to another file")


def package_name(model: Path) -> str:
    """A package's name out of a model's file name; ``model`` if there is none in it, as in ``模型.onnx``."""
    kept = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "._+-") else "-"
        for letter in model.stem
    )
    name = kept.lstrip("._+-")[:120].rstrip("._+-")
    # Such as CON, which is no file's name on Windows.
    return name if name and name_issue(name) is None else f"model-{name}".rstrip("-")


def _first_reason(report: BuildReport) -> str:
    row = report.failed[0]
    return f"{row.target}: {row.reason}"
