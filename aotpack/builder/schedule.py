"""All jobs of a plan: take what earlier builds did, have the others done, keep what comes of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, Future, as_completed
from dataclasses import dataclass
from pathlib import Path

from aotpack.builder.job import Done
from aotpack.builder.plan import ComponentPlan, Job, Plan
from aotpack.builder.pools import Place
from aotpack.builder.results import Results
from aotpack.builder.sources import Sources, refusal
from aotpack.builder.variant import Built, finish, portable
from aotpack.errors import FlexError
from aotpack.machine import Machine
from aotpack.target import PORTABLE

__all__ = ["Event", "Finished", "do_all"]

#: (what, component, target, result or None): ``wait`` for each that has to be compiled, before the first is;
#: ``reference``, ``start``, ``end`` or ``pack``.
Event = Callable[[str, str, str, Built | None], None]


@dataclass(frozen=True, slots=True)
class Finished:
    """A component of a job, and what came of it."""

    component: ComponentPlan
    built: Built


def do_all(
    planned: Plan,
    place: Place,
    sources: Sources,
    results: Results | None,
    scratch: Path,
    announce: Event,
    machine: Machine | None,
) -> list[Finished]:
    """Do all jobs; give what came of them in the plan's order. What nobody can do is told before one begins.

    Args:
        planned: the jobs.
        place: where they are done.
        sources: prepares the models.
        results: of earlier builds; None: build all anew, and keep nothing.
        scratch: an empty folder, which has the files of what was built.
        announce: told of each step.
        machine: that does them; None if others do.

    Raises:
        ModelError: a model cannot be prepared, or changed while it was built.
        OutputError: the cache of results cannot be written.
    """
    finished: dict[int, tuple[Built, ...]] = {}
    waiting: dict[Future[Done], tuple[int, str | None]] = {}
    ahead: dict[int, str | None] = {}
    for index, job in enumerate(planned.jobs):
        folder = scratch / f"job-{index}"
        folder.mkdir()
        known, why = _without_work(job, sources, results, folder, str(planned.spec.output.resolve()), machine)
        if known is None:
            ahead[index] = why
            continue
        finished[index] = finish(job, known, cached=why is None and job.target.name != PORTABLE, why=why)
        _announce_end(job, finished[index], announce)
    for index in ahead:
        for component in planned.jobs[index].components:
            announce("wait", component.name, planned.jobs[index].target.name, None)
    for index, why in ahead.items():
        job = planned.jobs[index]
        try:
            task = sources.task(job, announce)
        except FlexError as error:
            finished[index] = finish(job, Done(failure=str(error)), cached=False, why=why)
            _announce_end(job, finished[index], announce)
            continue
        folder = scratch / f"job-{index}"
        waiting[place.submit(task, folder, _begun(job, announce))] = (index, why)
    for future in as_completed(waiting):
        index, why = waiting[future]
        job = planned.jobs[index]
        try:
            done = future.result()
        except (Exception, CancelledError) as error:
            # An executor that is not ours fails in ways of its own: that is this job's failure.
            done = Done(failure=f"it was not done: {type(error).__name__}: {error}")
        # What was compiled of a model that changed must not be found under the old one's digest.
        sources.check()
        finished[index] = finish(job, done, cached=False, why=why)
        if results is not None:
            if done.failure is None:
                results.put(job.digest, done)
            key = _key(job, str(planned.spec.output.resolve()))
            results.remember(key, job.digest, job.ingredients, failed=done.failure is not None)
        _announce_end(job, finished[index], announce)
    sources.check()
    return [
        Finished(component, built)
        for index, job in enumerate(planned.jobs)
        for component, built in zip(job.components, finished[index], strict=True)
    ]


def _without_work(
    job: Job, sources: Sources, results: Results | None, folder: Path, output: str, machine: Machine | None
) -> tuple[Done | None, str | None]:
    """What there is of a job before anything is done for it, and why there is nothing in the cache."""
    if job.target.name == PORTABLE:
        try:
            return portable(job, sources.portable(job)), None
        except FlexError as error:
            return Done(failure=str(error)), None
    if refused := refusal(job):
        return Done(failure=refused), "The model does not fit the target."
    known = results.get(job.digest, folder / "kept") if results is not None else None
    if results is not None and known is not None:
        results.remember(_key(job, output), job.digest, job.ingredients, failed=False)
        return known, None
    if machine is not None and (missing := _not_here(job, machine)):
        return Done(failure=missing), "It cannot be compiled for on this machine."
    if results is None:
        return None, "Results of earlier builds were not to be used."
    return None, results.why_not(_key(job, output), job.digest, job.ingredients)


def _not_here(job: Job, machine: Machine) -> str | None:
    try:
        return job.toolchain.why_not_compile(job.target, machine)
    except Exception:
        # A third party's, which will raise again where that is the job's failure.
        return None


def _key(job: Job, output: str) -> str:
    return "\n".join([output, job.target.name, *(component.name for component in job.components)])


def _begun(job: Job, announce: Event) -> Callable[[], None]:
    def begun() -> None:
        for component in job.components:
            announce("start", component.name, job.target.name, None)

    return begun


def _announce_end(job: Job, built: tuple[Built, ...], announce: Event) -> None:
    for component, item in zip(job.components, built, strict=True):
        announce("end", component.name, job.target.name, item)
