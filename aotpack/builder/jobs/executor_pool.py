"""Tasks done by an executor, in processes that may be on other machines (`aotpack.builder.jobs.remote_task`).

Of an answer only files and measurements are believed (docs/security.md); what this machine can find out, it
does (`aotpack.builder.jobs.carry_out.measure_here`). An executor that says nothing is not waited for without
end: of the tasks that it has, one must come back within the time that one may take.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, InvalidStateError, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from aotpack._text import printable
from aotpack.builder.jobs.carry_out import measure_here
from aotpack.builder.jobs.job import Done, Reference, References, Task
from aotpack.builder.jobs.remote_task import Offer, RemoteTask, describe, received, run_remote_task
from aotpack.builder.jobs.resources import cores
from aotpack.builder.jobs.supervise import Workers
from aotpack.errors import FarmError
from aotpack.machine.profile import Machine
from aotpack.version import VERSION

__all__ = ["ExecutorPool"]

_log = logging.getLogger(__name__)

#: Times that files are sent for a task: those that are missing, and all of them if it then comes to another
#: machine than it came to first.
_SENDINGS = 2
#: Seconds for a process there to start, import aotpack and say what it has.
_UNTIL_DESCRIBED = 120.0
#: Seconds for a task to travel there and back, beside the time that its workers may take, and how many bytes
#: of its files do so in each further one.
_UNTIL_SENT = 60.0
_SLOWEST_NETWORK = 1024 * 1024
#: Seconds between two looks at what is late.
_INTERVAL = 1.0
#: Seconds that giving up a task may block: an executor may ask somebody who does not answer.
_UNTIL_CANCELLED = 5.0
#: Characters of an `Offer`: the versions of some dozen packages.
_MAX_OFFER = 1024 * 1024
#: Characters of what somebody answered, in an error.
_SHOWN = 200

#: Of the packages of a toolchain, by name.
_Versions = tuple[tuple[str, str], ...]


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Running:
    """A task that somebody has."""

    toolchain: str
    outer: Future[Done]
    #: Seconds that it may take, its files' way included.
    patience: float


class ExecutorPool:
    """A `Place` behind any executor.

    Args:
        executor: runs functions of `aotpack.builder.jobs.remote_task`.
        workers: start the processes that check what comes back.
        machine: this one.
        where: what errors call the executor.

    Raises:
        FarmError: what it runs them in has another version of aotpack, or none, or does not answer.
    """

    def __init__(
        self, executor: Executor, workers: Workers, machine: Machine, *, where: object = None
    ) -> None:
        self._executor = executor
        self._workers = workers
        self._machine = machine
        self._where = executor if where is None else where
        self._lock = threading.Lock()
        self._digests: dict[tuple[Path, int], str] = {}
        # An executor's own thread may have better to do than to check files, and may not wait.
        self._answers = ThreadPoolExecutor(cores(), thread_name_prefix="aotpack-answers")
        self._running: dict[Future[Any], _Running] = {}
        #: When an answer came last, or the first of those that run was sent.
        self._heard = time.monotonic()
        self._closed = threading.Event()
        self._offered = self._chosen(self._ask())
        self._watching = threading.Thread(target=self._watch, name="aotpack-farm", daemon=True)
        self._watching.start()

    def offered(self) -> Mapping[str, Mapping[str, str]]:
        """Each toolchain that somebody there has, with the versions that most have, the newest of equals."""
        return self._offered

    def refer(self, make: Callable[[], _T]) -> Future[_T]:
        """As `Place.refer`: at once, for a reference goes with each task that is sent."""
        made: Future[_T] = Future()
        made.set_result(make())
        return made

    def submit(
        self, task: Task, references: References, folder: Path, begun: Callable[[], None]
    ) -> Future[Done]:
        """As `Place.submit`."""
        made = references()
        remote_task, paths = self._remote_task(task, made)
        outer: Future[Done] = Future()
        begun()

        def checked(done: Done) -> Done:
            if done.failure is not None:
                return done
            return measure_here(task, done, lambda: made, folder / "checked", self._workers, self._machine)

        self._attempt(remote_task, paths, folder, outer, checked, frozenset(), _SENDINGS)
        return outer

    def stop(self) -> None:
        """As `Place.stop`: what nobody has begun with is not begun."""
        self._workers.stop()
        with self._lock:
            running = list(self._running)
        _cancel(running)

    def close(self) -> None:
        """The executor is the caller's to shut down."""
        self._closed.set()
        self._answers.shutdown(cancel_futures=True)
        self._watching.join(_UNTIL_CANCELLED)

    def _attempt(
        self,
        remote_task: RemoteTask,
        paths: Mapping[str, Path],
        folder: Path,
        outer: Future[Done],
        checked: Callable[[Done], Done],
        sent: frozenset[str],
        sendings: int,
    ) -> None:
        """Have the remote task done, the files `sent` along with it, and give `outer` what comes of it."""

        def answered(inner: Future[Any]) -> None:
            with self._lock:
                if self._running.pop(inner, None) is None:
                    # Given up meanwhile.
                    return
            try:
                answer = received(self._result(inner), remote_task, folder)
                if isinstance(answer, Done):
                    _settle(outer, checked(answer))
                elif sendings == 0:
                    raise FarmError("still lacks files of the model after they were sent")
                else:
                    wanted = answer if sendings == _SENDINGS else remote_task.needed()
                    self._attempt(remote_task, paths, folder, outer, checked, wanted, sendings - 1)
            except Exception as error:
                _log.debug(
                    "%s gave no answer to %s", self._where, remote_task.task.target.name, exc_info=True
                )
                _settle(outer, error)
            except BaseException as error:
                # What stops a process there stops none here.
                found = f"{type(error).__name__}({printable(str(error)[:_SHOWN])})"
                _settle(outer, FarmError("the process that did it was ended", found=found))

        def later(inner: Future[Any]) -> None:
            self._heard = time.monotonic()
            # Too late if the build was stopped.
            with contextlib.suppress(RuntimeError):
                self._answers.submit(answered, inner)

        try:
            contents = {digest: paths[digest].read_bytes() for digest in sent}
            inner = self._start(remote_task, contents)
            task = remote_task.task
            # A worker for compiling and one for each comparison.
            patience = (1 + len(task.parts)) * task.limits.seconds + _UNTIL_SENT
            patience += sum(path.stat().st_size for path in paths.values()) / _SLOWEST_NETWORK
            with self._lock:
                if not self._running:
                    self._heard = time.monotonic()
                self._running[inner] = _Running(task.toolchain, outer, patience)
            inner.add_done_callback(later)
        except Exception as error:
            _settle(outer, error)

    def _result(self, inner: Future[Any]) -> object:
        return inner.result()

    def _watch(self) -> None:
        while not self._closed.wait(_INTERVAL):
            self._look()

    def _look(self) -> None:
        """Give up what was not done, if nothing was for too long."""
        with self._lock:
            running = dict(self._running)
        silent = time.monotonic() - self._heard
        if running and silent > max(each.patience for each in running.values()):
            self._give_up(running, f"no answer came for {silent:.0f} s")

    def _give_up(self, futures: Mapping[Future[Any], _Running], reason: str) -> None:
        with self._lock:
            mine = {inner: self._running.pop(inner) for inner in futures if inner in self._running}
        for each in mine.values():
            _settle(each.outer, FarmError(reason, where=self._where))
        _cancel(mine)

    def _ask(self) -> Sequence[object]:
        """What each process there says of itself (`describe`), or how it failed to."""
        try:
            future = self._executor.submit(describe)
            # Not raised by `result`, which would not tell a Ctrl-C here from one there.
            error = future.exception(_UNTIL_DESCRIBED)
        except TimeoutError:
            error = FarmError(f"no answer within {_UNTIL_DESCRIBED:g} s")
        except Exception as raised:
            error = raised
        if error is not None:
            raise FarmError("cannot run aotpack", where=self._where, found=error) from error
        return [future.result()]

    def _start(self, remote_task: RemoteTask, sent: Mapping[str, bytes]) -> Future[Any]:
        return self._executor.submit(run_remote_task, remote_task, sent)

    def _chosen(self, answers: Sequence[object]) -> Mapping[str, Mapping[str, str]]:
        offers = [_offer(answer) for answer in answers]
        usable = [offer for offer in offers if offer is not None and offer.aotpack == VERSION]
        if not usable:
            found = {
                printable(str(answer)[:_SHOWN] if offer is None else f"aotpack {offer.aotpack}")
                for answer, offer in zip(answers, offers, strict=True)
            }
            raise FarmError(
                "nobody there can do this build's jobs",
                where=self._where,
                found=", ".join(sorted(found)) or "no worker",
                expected=f"aotpack {VERSION}",
                hint="install the same release everywhere",
            )
        counts: dict[str, Counter[_Versions]] = {}
        for offer in usable:
            for name, versions in offer.toolchains.items():
                counts.setdefault(name, Counter())[tuple(sorted(versions.items()))] += 1
        chosen: dict[str, Mapping[str, str]] = {}
        for name, counter in counts.items():
            _, most = max((number, each) for each, number in counter.items())
            chosen[name] = dict(most)
        return chosen

    def _remote_task(self, task: Task, references: Sequence[Reference]) -> tuple[RemoteTask, dict[str, Path]]:
        paths: dict[str, Path] = {}
        files, digests = [], []
        for part, reference in zip(task.parts, references, strict=True):
            listed = []
            for name in (part.model.name, *part.data):
                place = part.model.parent / name
                listed.append((name, self._digest(place)))
                paths[listed[-1][1]] = place
            files.append(tuple(listed))
            digests.append(self._digest(reference.path) if reference.path is not None else None)
            if reference.path is not None:
                paths[self._digest(reference.path)] = reference.path
        remote_task = RemoteTask(
            aotpack=VERSION,
            task=task,
            files=tuple(files),
            references=tuple(references),
            reference_digests=tuple(digests),
            built_with=self._offered.get(task.toolchain, {}),
        )
        return remote_task, paths

    def _digest(self, path: Path) -> str:
        key = (path, path.stat().st_mtime_ns)
        if key not in self._digests:
            with path.open("rb") as file:
                self._digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._digests[key]


def _settle(outer: Future[Done], came: Done | Exception) -> None:
    # Whoever is first is right: what was given up may be answered after all.
    with contextlib.suppress(InvalidStateError):
        if isinstance(came, Done):
            outer.set_result(came)
        else:
            outer.set_exception(came)


def _cancel(futures: Iterable[Future[Any]]) -> None:
    """Cancel all, without waiting for an executor that does not answer."""
    threads = [threading.Thread(target=future.cancel, daemon=True) for future in futures]
    for thread in threads:
        thread.start()
    end = time.monotonic() + _UNTIL_CANCELLED
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))


def _offer(answer: object) -> Offer | None:
    try:
        if type(answer) is not str or len(answer) > _MAX_OFFER:
            return None
        release = str(json.loads(answer)["aotpack"])[:_SHOWN]
        # What else another release says may mean something else.
        own = release == VERSION
        return Offer.from_json(answer) if own else Offer(aotpack=release, machine="")
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
