"""Tasks done by an executor, in processes that may be on other machines (`aotpack.builder.jobs.errand`)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aotpack.builder.jobs.errand import Errand, Offer, describe, received, run_errand
from aotpack.builder.jobs.job import Done, Reference, References, Task
from aotpack.errors import FarmError
from aotpack.version import VERSION

__all__ = ["Elsewhere"]

#: Times that files are sent for a task: those that are missing, and all of them if it then comes to another
#: machine than it came to first.
_SENDINGS = 2

#: Of the packages of a toolchain, by name.
_Versions = tuple[tuple[str, str], ...]


class Elsewhere:
    """A `Place` behind any executor.

    Args:
        executor: runs functions of `aotpack.builder.jobs.errand`.
        where: what errors call it.

    Raises:
        FarmError: what it runs them in has another version of aotpack, or none.
    """

    def __init__(self, executor: Executor, *, where: object = None) -> None:
        self._executor = executor
        self._where = executor if where is None else where
        self._lock = threading.Lock()
        self._digests: dict[tuple[Path, int], str] = {}
        # An executor's own thread may have better to do than to read and write files, and may not wait.
        self._answers = ThreadPoolExecutor(1, thread_name_prefix="aotpack-answers")
        #: What runs now, and the toolchain that it needs.
        self._running: dict[Future[Any], str] = {}
        self._offered = self._chosen(self._ask())

    def offered(self) -> Mapping[str, Mapping[str, str]]:
        """Each toolchain that somebody there has, with the versions that most have, the newest of equals."""
        return self._offered

    def refer(self, make: Callable[[], Reference]) -> Future[Reference]:
        """As `Place.refer`: at once, for it goes with each task that is sent."""
        made: Future[Reference] = Future()
        made.set_result(make())
        return made

    def submit(
        self, task: Task, references: References, folder: Path, begun: Callable[[], None]
    ) -> Future[Done]:
        """As `Place.submit`."""
        errand, paths = self._errand(task, references())
        outer: Future[Done] = Future()
        begun()
        self._attempt(errand, paths, folder, outer, frozenset(), _SENDINGS)
        return outer

    def stop(self) -> None:
        """As `Place.stop`: what nobody has begun with is not begun."""
        with self._lock:
            running = list(self._running)
        for future in running:
            future.cancel()

    def close(self) -> None:
        """The executor is the caller's to shut down."""
        self._answers.shutdown(cancel_futures=True)

    def _attempt(
        self,
        errand: Errand,
        paths: Mapping[str, Path],
        folder: Path,
        outer: Future[Done],
        sent: frozenset[str],
        sendings: int,
    ) -> None:
        """Have the errand done, the files `sent` along with it, and give `outer` what comes of it."""

        def answered(inner: Future[Any]) -> None:
            try:
                answer = received(self._result(inner), errand, folder)
                if isinstance(answer, Done):
                    outer.set_result(answer)
                elif sendings == 0:
                    raise FarmError("still lacks files of the model after they were sent")
                else:
                    wanted = answer if sendings == _SENDINGS else errand.needed()
                    self._attempt(errand, paths, folder, outer, wanted, sendings - 1)
            except BaseException as error:
                outer.set_exception(error)
            finally:
                with self._lock:
                    self._running.pop(inner, None)

        def later(inner: Future[Any]) -> None:
            # Too late if the build was stopped.
            with contextlib.suppress(RuntimeError):
                self._answers.submit(answered, inner)

        try:
            contents = {digest: paths[digest].read_bytes() for digest in sent}
            inner = self._start(errand, contents)
            with self._lock:
                self._running[inner] = errand.task.toolchain
            inner.add_done_callback(later)
        except Exception as error:
            outer.set_exception(error)

    def _result(self, inner: Future[Any]) -> object:
        return inner.result()

    def _ask(self) -> Sequence[object]:
        """What each process there says of itself (`describe`), or how it failed to."""
        try:
            return [self._executor.submit(describe).result()]
        except Exception as error:
            raise FarmError("cannot run aotpack", where=self._where, found=error) from error

    def _start(self, errand: Errand, sent: Mapping[str, bytes]) -> Future[Any]:
        return self._executor.submit(run_errand, errand, sent)

    def _chosen(self, answers: Sequence[object]) -> Mapping[str, Mapping[str, str]]:
        offers = [_offer(answer) for answer in answers]
        usable = [offer for offer in offers if offer is not None and offer.aotpack == VERSION]
        if not usable:
            found = {
                str(answer) if offer is None else f"aotpack {offer.aotpack}"
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

    def _errand(self, task: Task, references: Sequence[Reference]) -> tuple[Errand, dict[str, Path]]:
        from aotpack.builder.models.model import data_names

        paths: dict[str, Path] = {}
        files, digests = [], []
        for part, reference in zip(task.parts, references, strict=True):
            listed = []
            for name in (part.model.name, *data_names(part.model)):
                place = part.model.parent / name
                listed.append((name, self._digest(place)))
                paths[listed[-1][1]] = place
            files.append(tuple(listed))
            digests.append(self._digest(reference.path) if reference.path is not None else None)
            if reference.path is not None:
                paths[self._digest(reference.path)] = reference.path
        errand = Errand(
            aotpack=VERSION,
            task=task,
            files=tuple(files),
            references=tuple(references),
            reference_digests=tuple(digests),
            built_with=self._offered.get(task.toolchain, {}),
        )
        return errand, paths

    def _digest(self, path: Path) -> str:
        key = (path, path.stat().st_mtime_ns)
        if key not in self._digests:
            with path.open("rb") as file:
                self._digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._digests[key]


def _offer(answer: object) -> Offer | None:
    try:
        if not isinstance(answer, str):
            return None
        release = str(json.loads(answer)["aotpack"])
        # What else another release says may mean something else.
        own = release == VERSION
        return Offer.model_validate_json(answer) if own else Offer(aotpack=release, machine="")
    except (ValueError, TypeError, LookupError):
        return None
