"""Do a task: have it compiled in a worker process, take its files, run them and compare.

What a compiler is given are copies (`aotpack.builder.jobs.model_copies`), and what it left is taken as copies
(`aotpack.builder.jobs.untrusted_files`): a vendor's library may do to its files what it likes.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec import ValidationError

from aotpack._text import shortened
from aotpack.builder.jobs.job import NOT_ASKED, Checked, Done, PartDone, References, Task, TaskPart
from aotpack.builder.jobs.manifest_rules import check_variant, seen_by_loaders
from aotpack.builder.jobs.model_copies import FileStamp, GivenModel, ModelCopies, stamp_of
from aotpack.builder.jobs.redaction import Redaction
from aotpack.builder.jobs.supervise import Outcome, Workers
from aotpack.builder.jobs.untrusted_files import ResultFolder
from aotpack.builder.jobs.worker import CompareRequest, CompiledPart, CompileRequest, InspectRequest, Part
from aotpack.common.field_errors import explain
from aotpack.errors import AotpackError, CompileError
from aotpack.machine.profile import Machine
from aotpack.manifest.values import Compatibility, Requirements, Variant
from aotpack.toolchains import toolchains
from aotpack.toolchains.base import RunsHere, Toolchain

__all__ = ["carry_out", "measure_here", "recheck"]

_log = logging.getLogger(__name__)

#: Of a vendor's remarks: more of them say the same of further nodes.
_REMARKS = 5
#: Of a remark, in characters.
_LONGEST_REMARK = 1000
#: Bytes that the files of a job's variants may have: what compilers make of the smallest model, and what a
#: model grows by if its weights of 2 bits are stored as float32. Holes count.
_LARGEST_OF_NO_MODEL = 1024**3
_LARGEST_BY_SIZE = 16


def carry_out(
    task: Task,
    references: References,
    folder: Path,
    workers: Workers,
    machine: Machine,
    copies: ModelCopies,
) -> Done:
    """Do all of a task. Whatever goes wrong is in what it gives; nothing is raised for it.

    Args:
        task: what to compile for what.
        references: what its variants are compared with.
        folder: an empty one, in which the variants' files stay.
        workers: start the processes that load the vendor's libraries.
        machine: this computer.
        copies: make the copies of models that compilers get.
    """
    work = _Work(task, references, folder, workers, machine, copies)
    return work.guarded(work.do)


def measure_here(
    task: Task, done: Done, references: References, folder: Path, workers: Workers, machine: Machine
) -> Done:
    """What another machine did of a task, with all that this one can find out about it.

    Of what the other says only the files stay, and the measurements of what cannot run here. Coverage and
    the compatibility string are read from the files again, and the rest is the toolchain's that is here.

    Args:
        task: what was asked for.
        done: what came of it; its files are on this machine.
        references: as for `carry_out`.
        folder: an empty one.
        workers: start the processes.
        machine: this computer.
    """
    work = _Work(task, references, folder, workers, machine, ModelCopies())
    return work.guarded(lambda: work.check(done)).replace(
        machine=done.machine,
        seconds=done.seconds,
        load_seconds=done.load_seconds,
        compile_seconds=done.compile_seconds,
        log=done.log,
        remarks=done.remarks,
        peak_memory=done.peak_memory,
    )


def recheck(
    task: Task, done: Done, references: References, folder: Path, workers: Workers, machine: Machine
) -> Done:
    """What was compiled before, or needs no compiling, run and compared on this machine.

    Args:
        task: what was asked for.
        done: what came of compiling.
        references: as for `carry_out`.
        folder: an empty one.
        workers: start the processes.
        machine: this computer.
    """
    work = _Work(task, references, folder, workers, machine, ModelCopies())
    return work.guarded(lambda: work.run_again(done))


class _Work:
    def __init__(
        self,
        task: Task,
        references: References,
        folder: Path,
        workers: Workers,
        machine: Machine,
        copies: ModelCopies,
    ) -> None:
        self._task = task
        self._references = references
        self._folder = folder
        self._workers = workers
        self._toolchain: Toolchain = toolchains()[task.toolchain]
        self._machine = machine
        self._copies = copies
        self._redaction = Redaction.of_this_process(task.target.environment)
        self._started = time.monotonic()
        self._peak = 0
        self._load_seconds = 0.0
        self._check_seconds = 0.0
        self._log = ""

    def guarded(self, work: Callable[[], Done]) -> Done:
        """What `work` gives, or the failure that it raised."""
        try:
            return self._end(work())
        except ValidationError as error:
            return self._end(Done(failure=f"it gave what no package may hold: {explain(error)}"))
        except Exception as error:
            # A toolchain may raise in this process too, when it is asked what it can do.
            _log.debug("%s failed", self._task.target.name, exc_info=True)
            kind = "" if isinstance(error, AotpackError) else f"{type(error).__name__}: "
            return self._end(Done(failure=f"{kind}{error}"))

    def do(self) -> Done:
        """Compile, take the files, compare."""
        task, toolchain = self._task, self._toolchain
        if refused := toolchain.why_not_compile(task.target, self._machine):
            return Done(failure=refused)
        self._folder.mkdir(parents=True, exist_ok=True)
        outcome, made, given = self._compile("compile", private=False)
        if any(each.shared and each.changed() for each in given):
            # By this job or by one beside it: with a copy of its own that is certain.
            outcome, made, given = self._compile("compile-again", private=True)
        self._log = outcome.log
        if any(each.changed() for each in given):
            return Done(failure="the compiler changed or removed the model that it was given")
        if outcome.failure is not None or outcome.result is None:
            return Done(failure=self._in_their_words(outcome))
        runs = toolchain.how_to_run(task.target, self._machine)
        done = self._described(Done(compile_seconds=outcome.result.seconds), runs)
        return self._measured(done, made, runs)

    def check(self, done: Done) -> Done:
        """What another machine did, checked here."""
        toolchain, target = self._toolchain, self._task.target
        parts = tuple(
            Part(component=part.component, model=part.files[0][1], nodes=asked.nodes)
            for part, asked in zip(done.parts, self._task.parts, strict=True)
        )
        same_versions = dict(toolchain.built_with()) == done.built_with
        runs = toolchain.how_to_run(target, self._machine)
        if not same_versions:
            runs = RunsHere(None, "other versions compiled it than are installed here")
        request = InspectRequest(toolchain=toolchain.name, target=target, parts=parts)
        outcome = self._run(request, "inspect", {})
        if outcome.failure is not None or outcome.result is None:
            return Done(failure=f"what it compiled cannot be read: {outcome.failure}")
        made = [
            seen.replace(files=part.files)
            for seen, part in zip(outcome.result.parts, done.parts, strict=True)
        ]
        requires = toolchain.requirements(target)
        if not same_versions:
            requires = _of_their_versions(requires, done)
        own = self._described(Done(), runs).replace(built_with=done.built_with, requires=requires)
        result = self._measured(own, made, runs)
        if runs.how is not None or result.failure is not None:
            return result
        # Nobody here can measure it, so what was measured there has to do.
        measured = tuple(
            mine.replace(checked=theirs.checked, unchecked=theirs.unchecked)
            for mine, theirs in zip(result.parts, done.parts, strict=True)
        )
        return result.replace(parts=measured, runs=done.runs)

    def run_again(self, done: Done) -> Done:
        """What was compiled before, compared now."""
        made = [
            CompiledPart(files=part.files, ep_string=part.ep_string, coverage=part.coverage, left=part.left)
            for part in done.parts
        ]
        runs = self._toolchain.how_to_run(self._task.target, self._machine)
        return self._measured(done, made, runs, compiled=False)

    def _described(self, done: Done, runs: RunsHere) -> Done:
        toolchain, target = self._toolchain, self._task.target
        # What a third party's toolchain says is held to its types here, before it is kept for later builds.
        return done.replace(
            runs=runs.how is not None,
            requires=toolchain.requirements(target),
            session=toolchain.session_settings(target),
            built_with=dict(toolchain.built_with()),
            remarks=toolchain.remarks(self._log)[:_REMARKS],
        ).validated()

    def _compile(
        self, step: str, *, private: bool
    ) -> tuple[Outcome, Sequence[CompiledPart], Sequence[GivenModel]]:
        """How it went, the parts with the files that were taken, and what the compiler was given."""
        task, folder = self._task, self._folder / step
        folder.mkdir()
        given = [
            self._copies.give(part.model, part.data, folder / "model" / str(index), private=private)
            for index, part in enumerate(task.parts)
        ]
        parts = tuple(
            Part(
                component=part.component,
                # The same in every build, wherever it is done.
                model=str(each.path.relative_to(folder)),
                nodes=part.nodes,
            )
            for part, each in zip(task.parts, given, strict=True)
        )
        compiled = folder / "compiled"
        compiled.mkdir()
        largest = _LARGEST_OF_NO_MODEL + _LARGEST_BY_SIZE * sum(each.size for each in given)
        libraries = task.custom_ops if self._toolchain.takes_custom_ops else ()
        request = CompileRequest(
            toolchain=self._toolchain.name,
            target=task.target,
            parts=parts,
            folder=compiled.name,
            custom_ops=tuple(map(str, libraries)),
        )
        with ResultFolder(compiled) as results:
            outcome = self._run(request, step, dict(task.target.environment), largest)
            made: Sequence[CompiledPart] = ()
            if outcome.failure is None and outcome.result is not None:
                made = self._taken(outcome.result.parts, folder, results, largest)
        return outcome, made, given

    def _taken(
        self, parts: Sequence[CompiledPart], folder: Path, results: ResultFolder, largest: int
    ) -> Sequence[CompiledPart]:
        """Copies of what a compiler wrote, which belong to nobody else.

        Raises:
            CompileError: it is not what a package may hold.
        """
        if len(parts) != len(self._task.parts):
            raise CompileError("gave parts of another task", where=self._toolchain.name)
        taken = []
        for index, (asked, part) in enumerate(zip(self._task.parts, parts, strict=True)):
            coverage = part.coverage
            if coverage.nodes != asked.nodes:
                raise CompileError("gave parts of another task", where=self._toolchain.name)
            if coverage.compiled > coverage.nodes:
                raise CompileError("counts more nodes than there are", where=asked.component)
            # First of all, for names are made into paths below.
            check_variant(self._variant(asked, part, Done()), [name for name, _ in part.files])
            files = []
            for name, place in part.files:
                kept = self._folder / "taken" / str(index) / name
                kept.parent.mkdir(parents=True, exist_ok=True)
                largest -= results.copy(str(folder / place), kept, largest)
                files.append((name, str(kept)))
            taken.append(part.replace(files=tuple(files)))
        return taken

    def _variant(self, asked: TaskPart, made: CompiledPart, done: Done) -> Variant:
        target = self._task.target
        return Variant(
            id=asked.variant,
            target=target.name,
            toolchain=self._task.toolchain,
            ep=target.ep,
            device=target.device,
            compatibility=Compatibility(ep_string=made.ep_string, requires=done.requires),
            session=done.session,
            coverage=made.coverage,
        )

    def _measured(
        self, done: Done, made: Sequence[CompiledPart], runs: RunsHere, *, compiled: bool = True
    ) -> Done:
        """`done` with its parts, compared if they can run here."""
        stamps = {Path(path): stamp_of(Path(path)) for part in made for _, path in part.files}
        parts = []
        for index, (asked, part) in enumerate(zip(self._task.parts, made, strict=True)):
            variant = self._variant(asked, part, done)
            check_variant(variant, [name for name, _ in part.files])
            # Before an EP gets to see it, for it may name files of this machine.
            seen = seen_by_loaders(variant.session, part.files, self._toolchain)
            if seen.issue is not None:
                return done.replace(failure=seen.issue)
            checked, why_not, failure = self._compare(index, variant, part, runs, compiled)
            if failure is not None:
                return done.replace(failure=failure)
            parts.append(
                PartDone(
                    component=asked.component,
                    files=part.files,
                    ep_string=part.ep_string,
                    coverage=part.coverage,
                    left=part.left,
                    checked=checked,
                    unchecked=why_not,
                    flex=asked.flex,
                    note=asked.note,
                )
            )
        if _changed(stamps):
            return done.replace(failure="it changed its compiled files when it was run")
        return done.replace(parts=tuple(parts), check_key=self._task.check_key)

    def _compare(
        self, index: int, variant: Variant, made: CompiledPart, runs: RunsHere, compiled: bool
    ) -> tuple[Checked | None, str | None, str | None]:
        """The comparison, or why there is none, or why it does not run."""
        if self._task.check_key is None:
            return None, NOT_ASKED, None
        if runs.how is None:
            return None, f"Not run here: {runs.why}.", None
        reference = self._references()[index]
        target = self._task.target
        step = f"compare-{index}"
        before = reference.path and stamp_of(reference.path)
        request = CompareRequest(
            variant=variant,
            model=made.files[0][1],
            # Without one it is still found out whether the variant loads.
            reference=None if reference.path is None else str(reference.path),
            precision=target.precision,
            emulate=runs.how == "emulator",
            custom_ops=tuple(map(str, self._task.custom_ops)),
        )
        environment = dict(target.environment) if runs.how != "host" else {}
        outcome = self._run(request, step, environment)
        if outcome.failure is not None or outcome.result is None:
            words = self._in_their_words(outcome)
            what = "it compiled, but does not run" if compiled else "it does not run"
            return None, None, f"{what} ({runs.how}): {words}"
        self._check_seconds += outcome.result.seconds
        if reference.path is None:
            why = (reference.failure or "").rstrip(".")
            return None, f"Not compared: {why}.", None
        if stamp_of(reference.path) != before:
            return None, None, "it changed what it was compared with"
        if outcome.result.compared is None:
            return None, None, f"it compiled, but gave no outputs ({runs.how})"
        checked = Checked.from_builtins({"compared": outcome.result.compared, "ran_on": runs.how})
        return checked, None, None

    def _run(
        self,
        request: CompileRequest | CompareRequest | InspectRequest,
        step: str,
        environment: dict[str, str],
        largest_file: int | None = None,
    ) -> Outcome:
        folder = self._folder / step
        folder.mkdir(parents=True, exist_ok=True)
        limits = self._task.limits
        outcome = (
            self._workers.run(request, folder, environment=environment, limits=limits)
            if largest_file is None
            else self._workers.run(
                request, folder, environment=environment, limits=limits, largest_file=largest_file
            )
        )
        self._peak = max(self._peak, outcome.peak_memory)
        if outcome.result is not None:
            self._load_seconds += outcome.result.load_seconds
        return outcome

    def _end(self, done: Done) -> Done:
        hide = self._redaction.hide
        return done.replace(
            failure=None if done.failure is None else hide(done.failure),
            remarks=tuple(hide(remark)[:_LONGEST_REMARK] for remark in done.remarks),
            log=hide(self._log),
            seconds=time.monotonic() - self._started,
            load_seconds=self._load_seconds,
            check_seconds=self._check_seconds,
            peak_memory=self._peak,
        )

    def _in_their_words(self, outcome: Outcome) -> str:
        """The failure, and what the vendor's library said of it."""
        failure = outcome.failure or ""
        remarks = [remark for remark in self._toolchain.remarks(outcome.log) if remark not in failure]
        said = f" - {'; '.join(remarks[:_REMARKS])}" if remarks else ""
        return f"{failure}{said}"


#: A requirement of a version, as toolchains write it.
_SPECIFIER = re.compile(r"(?:>=|==)([0-9]+(?:\.[0-9]+)*)(?:\.\*)?")


def _of_their_versions(requires: Requirements, done: Done) -> Requirements:
    """`requires` with the versions that compiled, as the other machine says them, held to what it offered.

    Raises:
        CompileError: it requires versions that it did not compile with.
    """
    for specifier in (done.requires.onnxruntime, done.requires.ep):
        if specifier is None:
            continue
        match = _SPECIFIER.fullmatch(specifier)
        versions = done.built_with.values()
        if match is None or not any(f"{version}.".startswith(f"{match[1]}.") for version in versions):
            found, expected = shortened(specifier), "a version that compiled it"
            raise CompileError("is required", where=done.machine, found=found, expected=expected)
    return requires.replace(onnxruntime=done.requires.onnxruntime, ep=done.requires.ep)


def _changed(stamps: Mapping[Path, FileStamp | None]) -> bool:
    return any(stamp_of(path) != stamp for path, stamp in stamps.items())
