"""All jobs of a plan: take what earlier builds did, have the others done, keep what comes of them."""

from __future__ import annotations

import contextlib
import functools
import logging
import shutil
from concurrent.futures import CancelledError, Future, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

from aotpack.builder.jobs.job import Done, References
from aotpack.builder.jobs.pools import Place
from aotpack.builder.plan import ComponentPlan, Job, Plan, ingredients_digest
from aotpack.builder.results import Results
from aotpack.builder.sources import Sources, refusal
from aotpack.builder.variant import Built, finish, portable
from aotpack.errors import AotpackError, OutputError
from aotpack.machine.profile import Machine
from aotpack.runtime.events import Event, EventCode, OnEvent
from aotpack.runtime.probing import probe
from aotpack.targets.catalogue import PORTABLE

__all__ = ["Finished", "do_all"]

_log = logging.getLogger("aotpack.build")


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
    tell: OnEvent,
    machine: Machine | None,
) -> list[Finished]:
    """Do all jobs; give what came of them in the plan's order. What nobody can do is told before one begins.

    Args:
        planned: the jobs.
        place: where they are done.
        sources: prepares the models.
        results: of earlier builds; None: build all anew, and keep nothing.
        scratch: an empty folder, which has the files of what was built.
        tell: is told of each step.
        machine: that does them; None if others do.

    Raises:
        ModelError: a model changed while it was built.
        OutputError: the cache of results cannot be written.
    """
    work = _Work(planned, place, sources, results, scratch, tell, machine)
    try:
        work.begin()
        for future in as_completed(work.waiting):
            work.take(future)
        sources.check()
    except BaseException:
        place.stop()
        work.keep_what_is_done()
        raise
    return [
        Finished(component, built)
        for index, job in enumerate(planned.jobs)
        for component, built in zip(job.components, work.finished[index], strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A job that is being done."""

    #: Its place in the plan.
    index: int
    #: Why it is not taken from an earlier build.
    why: str | None
    #: It is compiled; else it is only run and compared.
    compiled: bool


class _Work:
    def __init__(
        self,
        planned: Plan,
        place: Place,
        sources: Sources,
        results: Results | None,
        scratch: Path,
        tell: OnEvent,
        machine: Machine | None,
    ) -> None:
        self._jobs = planned.jobs
        self._output = str(planned.spec.output.resolve())
        self._place = place
        self._sources = sources
        self._results = results
        self._scratch = scratch
        self._tell = tell
        self._machine = machine
        #: By a job's place in the plan.
        self.finished: dict[int, tuple[Built, ...]] = {}
        self.waiting: dict[Future[Done], _Waiting] = {}

    def begin(self) -> None:
        """Take what there is, and hand on the rest."""
        ahead: dict[int, str | None] = {}
        again: dict[int, Done] = {}
        for index, job in enumerate(self._jobs):
            folder = self._folder(index)
            folder.mkdir()
            try:
                known, why = _without_work(
                    job, self._sources, self._results, folder, self._output, self._machine
                )
            except OutputError:
                raise
            except Exception as error:
                if job.target.name != PORTABLE:
                    raise
                self._fail(index, error, None)
                continue
            if known is None:
                ahead[index] = why
            elif _is_checked(job, known):
                kept = why is None and job.target.name != PORTABLE
                self._end(index, finish(job, known, cached=kept, why=why))
            else:
                again[index] = known
        for index in ahead:
            for component in self._jobs[index].components:
                self._tell(self._event(EventCode.QUEUED, component.name, self._jobs[index].target.name))
        for index, why in ahead.items():
            job = self._jobs[index]
            try:
                task = self._sources.task(job)
                references: References = tuple
                if self._machine is None or _can_do_all(job, self._machine):
                    # The portable model is not run for what is compared with nothing.
                    references = self._sources.references(job, self._place, self._tell_of_component)
            except OutputError:
                raise
            except Exception as error:
                # A model that cannot be prepared for one target may well be for another.
                self._fail(index, error, why)
                continue
            begun = functools.partial(self._begun, job)
            future = self._place.submit(task, references, self._folder(index), begun)
            self.waiting[future] = _Waiting(index, why, compiled=True)
        for index, made in again.items():
            self._check_again(index, made)

    def _check_again(self, index: int, made: Done) -> None:
        """Have what is compiled already, or needs no compiling, run and compared on this machine."""
        job = self._jobs[index]
        try:
            references = self._sources.references(job, self._place, self._tell_of_component)
        except OutputError:
            raise
        except Exception as error:
            self._fail(index, error, None)
            return
        folder = self._folder(index) / "check"
        folder.mkdir()
        check = self._sources.recheck(job, made, references, folder, self._machine or probe())
        self.waiting[self._place.refer(check)] = _Waiting(index, None, compiled=False)

    def take(self, future: Future[Done]) -> None:
        """Take what came of a job, and keep it for later builds."""
        waiting = self.waiting[future]
        index, why = waiting.index, waiting.why
        job = self._jobs[index]
        cause: BaseException | None = None
        try:
            done = future.result()
        except (Exception, CancelledError) as error:
            # An executor that is not ours fails in ways of its own: that is this job's failure.
            cause = error
            done = Done(failure=f"it was not done: {_told(error)}")
        # What was compiled of a model that changed must not be found under the old one's digest.
        self._sources.check()
        if self._results is not None:
            if done.failure is None:
                _keep(job, done, self._results)
            if waiting.compiled:
                key = _key(job, self._output)
                self._results.remember(key, job.digest, job.ingredients, failed=done.failure is not None)
        kept = not waiting.compiled and job.target.name != PORTABLE
        self._end(index, finish(job, done, cached=kept, why=why), cause)

    def keep_what_is_done(self) -> None:
        """Keep what the build had no time to take, for the next one."""
        if self._results is None:
            return
        try:
            self._sources.check()
        except AotpackError:
            return
        for future, waiting in self.waiting.items():
            if waiting.index not in self.finished and future.done():
                # There is an error already, and what cannot be kept is built again.
                with contextlib.suppress(Exception, CancelledError):
                    done = future.result()
                    if done.failure is None:
                        _keep(self._jobs[waiting.index], done, self._results)

    def _folder(self, index: int) -> Path:
        return self._scratch / f"job-{index}"

    def _fail(self, index: int, error: Exception, why: str | None) -> None:
        """End a job with what was raised in this process, before or instead of the work of another one."""
        failed = finish(self._jobs[index], Done(failure=_told(error)), cached=False, why=why)
        self._end(index, failed, error)

    def _end(self, index: int, built: tuple[Built, ...], error: BaseException | None = None) -> None:
        self.finished[index] = built
        job = self._jobs[index]
        if error is not None:
            # The row has a sentence; whoever has to mend what raised needs where it was.
            _log.info("%s: %s failed", self._output, job.target.name, exc_info=error)
        for component, item in zip(job.components, built, strict=True):
            code = EventCode.BUILT if item.row.state == "built" else EventCode.FAILED
            event = self._event(code, component.name, job.target.name)
            told = replace(
                event, variant=item.row.id, reason=item.row.reason or "", row=item.row, error=error
            )
            self._tell(told)

    def _begun(self, job: Job) -> None:
        for component in job.components:
            self._tell(self._event(EventCode.COMPILING, component.name, job.target.name))

    def _tell_of_component(self, code: EventCode, component: str) -> None:
        self._tell(self._event(code, component))

    def _event(self, code: EventCode, component: str, target: str | None = None) -> Event:
        return Event(code=code, package=self._output, component=component, target=target)


def _without_work(
    job: Job, sources: Sources, results: Results | None, folder: Path, output: str, machine: Machine | None
) -> tuple[Done | None, str | None]:
    """What there is of a job before anything is done for it, and why there is nothing in the cache."""
    if job.target.name == PORTABLE:
        done = portable(job, sources.portable(job))
        kept = None if results is None else results.get(_checks_digest(job), folder / "kept")
        return _with_checks(done, kept), None
    if refused := refusal(job):
        return Done(failure=refused), "The model does not fit the target."
    known = results.get(job.digest, folder / "kept") if results is not None else None
    unrun = known is not None and not known.runs and machine is not None and _can_do_all(job, machine)
    if unrun:
        shutil.rmtree(folder / "kept")
        known = None
    if results is not None and known is not None:
        results.remember(_key(job, output), job.digest, job.ingredients, failed=False)
        return known, None
    if machine is not None and (missing := _not_here(job, machine)):
        return Done(failure=missing), "It cannot be compiled for on this machine."
    if results is None:
        return None, "Results of earlier builds were not to be used."
    if unrun:
        return None, "It could not be run where it was compiled, and can be here."
    return None, results.why_not(_key(job, output), job.digest, job.ingredients)


def _is_checked(job: Job, done: Done) -> bool:
    """Whether nothing is left to run of what was compiled."""
    return done.failure is not None or job.check_key in (None, done.check_key) or not done.runs


def _checks_digest(job: Job) -> str:
    """Of what the portable model's check is kept under: its files are the user's and are not kept.

    The variant is the same in every release of ONNX Runtime; its numbers, and whether it runs, are not.
    """
    return ingredients_digest(["checks", job.digest, job.check_key, job.toolchain.built_with()])


def _with_checks(done: Done, kept: Done | None) -> Done:
    """What the portable variant is, with the check of an earlier build."""
    if kept is None or len(kept.parts) != len(done.parts):
        return done
    parts = tuple(
        part.replace(checked=before.checked, unchecked=before.unchecked)
        for part, before in zip(done.parts, kept.parts, strict=True)
    )
    return done.replace(parts=parts, check_key=kept.check_key)


def _keep(job: Job, done: Done, results: Results) -> None:
    if job.target.name == PORTABLE:
        parts = tuple(part.replace(files=()) for part in done.parts)
        results.put(_checks_digest(job), done.replace(parts=parts))
    else:
        results.put(job.digest, done)


def _told(error: BaseException) -> str:
    """An error as a reason; what is not ours is told with its kind."""
    return str(error) if isinstance(error, AotpackError) else f"{type(error).__name__}: {error}"


def _not_here(job: Job, machine: Machine) -> str | None:
    try:
        return job.toolchain.why_not_compile(job.target, machine)
    except Exception:
        # A third party's, which will raise again where that is the job's failure.
        return None


def _can_do_all(job: Job, machine: Machine) -> bool:
    """Whether `machine` can compile for the target and run what it gets."""
    try:
        compiles = job.toolchain.why_not_compile(job.target, machine) is None
        return compiles and job.toolchain.how_to_run(job.target, machine).how is not None
    except Exception:
        # As in `_not_here`.
        return False


def _key(job: Job, output: str) -> str:
    return "\n".join([output, job.target.name, *(component.name for component in job.components)])
