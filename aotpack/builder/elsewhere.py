"""Tasks done by an executor, in processes that may be on other machines.

A task goes as an `Errand`: files by their sha256, first by name alone and, where the other side does not
have them, with their bytes. It keeps them, so that a model travels to it once. Files come back the same way.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import tempfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from pathlib import Path

from aotpack.builder.job import Done, Task, carry_out
from aotpack.builder.store import Store
from aotpack.builder.supervise import Workers
from aotpack.errors import FarmError
from aotpack.source.cache import Cache
from aotpack.version import VERSION

__all__ = ["Elsewhere", "Errand", "Offer", "describe", "place_of", "run_errand"]

_Bytes = Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a process that does tasks has."""

    #: Its version of aotpack.
    aotpack: str
    machine: str
    #: Each toolchain that can compile some target there, with the versions that compile.
    toolchains: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """A task, and the files that it needs: those of its paths mean nothing to whoever does it."""

    aotpack: str
    task: Task
    #: For each part, its files as (path relative to the model's folder, sha256), the model first.
    files: tuple[tuple[tuple[str, str], ...], ...]
    #: For each part, the sha256 of its reference.
    references: tuple[str | None, ...]

    def needed(self) -> set[str]:
        """sha256 of each file."""
        own = {digest for files in self.files for _, digest in files}
        return own | {digest for digest in self.references if digest is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    done: Done
    #: By sha256, which stand in `done` for the paths.
    files: _Bytes = field(default_factory=dict)
    #: What has to be sent along.
    missing: frozenset[str] = frozenset()


def describe() -> Offer:
    """What this process has."""
    from aotpack.machine import probe
    from aotpack.target import catalogue
    from aotpack.toolchain import toolchains

    machine, known = probe(), toolchains()
    targets = catalogue(target for toolchain in known.values() for target in toolchain.targets()).values()
    return Offer(
        aotpack=VERSION,
        machine=platform.node(),
        toolchains={
            target.toolchain: dict(known[target.toolchain].built_with())
            for target in targets
            if known[target.toolchain].why_not_compile(target, machine) is None
        },
    )


@functools.cache
def _workers() -> Workers:
    # Kept for the next errand. What it starts ends with this process.
    return Workers()


def run_errand(errand: Errand, *sent: _Bytes) -> _Answer:
    """On the far side: do a task.

    Args:
        errand: what to do.
        sent: the bytes of files, by sha256.
    """
    from aotpack.machine import probe

    name = platform.node()
    if errand.aotpack != VERSION:
        failure = f"{name} has aotpack {VERSION}; the build is done by {errand.aotpack}"
        return _Answer(done=Done(failure=failure, machine=name))
    store = Store(Cache())
    for files in sent:
        for digest, data in files.items():
            store.put(digest, data)
    with tempfile.TemporaryDirectory(prefix="aotpack-task-") as scratch:
        folder = Path(scratch)
        missing = frozenset(
            digest for digest in errand.needed() if not store.link(digest, folder / "needed" / digest)
        )
        if missing:
            return _Answer(done=Done(failure=f"{name} lacks files of the model"), missing=missing)
        done = carry_out(_localised(errand, folder), folder / "task", _workers(), probe())
        contents: dict[str, bytes] = {}
        parts = []
        for part in done.parts:
            listed = []
            for path, place in part.files:
                data = Path(place).read_bytes()
                digest = hashlib.sha256(data).hexdigest()
                contents[digest] = data
                listed.append((path, digest))
            parts.append(part.model_copy(update={"files": tuple(listed)}))
        store.trim()
        return _Answer(done=done.model_copy(update={"parts": tuple(parts), "machine": name}), files=contents)


def _localised(errand: Errand, folder: Path) -> Task:
    """The task with its files laid out in `folder`."""
    (folder / "task").mkdir()
    parts = []
    for index, (part, files) in enumerate(zip(errand.task.parts, errand.files, strict=True)):
        for relative, digest in files:
            place = folder / f"model-{index}" / relative
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(folder / "needed" / digest, place)
        reference = errand.references[index]
        parts.append(
            replace(
                part,
                model=folder / f"model-{index}" / files[0][0],
                reference=part.reference
                if reference is None
                else replace(part.reference, path=folder / "needed" / reference),
            )
        )
    return replace(errand.task, parts=tuple(parts))


class Elsewhere:
    """A `Place` behind any executor.

    Args:
        executor: runs functions of this module.

    Raises:
        FarmError: what it runs them in has another version of aotpack, or none.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._digests: dict[tuple[Path, int], str] = {}
        self._started: list[Future[_Answer]] = []
        self._offers = self._ask()
        usable = [offer for offer in self._offers if offer.aotpack == VERSION]
        if not usable:
            found = ", ".join(sorted({offer.aotpack for offer in self._offers})) or "no worker"
            raise FarmError(
                "nobody there can do this build's jobs",
                where=executor,
                found=found,
                expected=f"aotpack {VERSION}",
                hint="install the same release everywhere",
            )
        self._usable = usable

    def offered(self) -> Mapping[str, Mapping[str, str]]:
        """Each toolchain that somebody there has, with the versions of the first who has it."""
        offered: dict[str, Mapping[str, str]] = {}
        for offer in self._usable:
            for name, versions in offer.toolchains.items():
                offered.setdefault(name, versions)
        return offered

    def submit(self, task: Task, folder: Path, begun: Callable[[], None]) -> Future[Done]:
        """As `Place.submit`."""
        errand, paths = self._errand(task)
        outer: Future[Done] = Future()

        def answered(inner: Future[_Answer]) -> None:
            try:
                answer = inner.result()
                if answer.missing:
                    sent = self._send({digest: paths[digest] for digest in answer.missing})
                    # Once only: whoever still lacks a file then has no place for it.
                    self._start(errand, *sent).add_done_callback(finished)
                else:
                    outer.set_result(_unpacked(answer, folder))
            except BaseException as error:
                outer.set_exception(error)

        def finished(inner: Future[_Answer]) -> None:
            try:
                outer.set_result(_unpacked(inner.result(), folder))
            except BaseException as error:
                outer.set_exception(error)

        begun()
        try:
            self._start(errand).add_done_callback(answered)
        except Exception as error:
            outer.set_exception(error)
        return outer

    def stop(self) -> None:
        """As `Place.stop`: what nobody has begun with is not begun."""
        for future in self._started:
            future.cancel()

    def close(self) -> None:
        """The executor is the caller's to shut down."""

    def _ask(self) -> list[Offer]:
        try:
            return [self._executor.submit(describe).result()]
        except Exception as error:
            raise FarmError("cannot run aotpack", where=self._executor, found=error) from error

    def _start(self, errand: Errand, *sent: object) -> Future[_Answer]:
        future = self._executor.submit(run_errand, errand, *sent)  # type: ignore[arg-type]
        self._started.append(future)
        return future

    def _send(self, paths: Mapping[str, Path]) -> Iterable[object]:
        return [{digest: path.read_bytes() for digest, path in paths.items()}]

    def _errand(self, task: Task) -> tuple[Errand, dict[str, Path]]:
        from aotpack.builder.model import external_data, read_graph

        paths: dict[str, Path] = {}
        files, references = [], []
        for part in task.parts:
            listed = []
            for name in (part.model.name, *external_data(read_graph(part.model).graph, part.model)):
                place = part.model.parent / name
                listed.append((name, self._digest(place)))
                paths[listed[-1][1]] = place
            files.append(tuple(listed))
            reference = part.reference.path
            references.append(self._digest(reference) if reference is not None else None)
            if reference is not None:
                paths[self._digest(reference)] = reference
        errand = Errand(aotpack=VERSION, task=task, files=tuple(files), references=tuple(references))
        return errand, paths

    def _digest(self, path: Path) -> str:
        key = (path, path.stat().st_mtime_ns)
        if key not in self._digests:
            with path.open("rb") as file:
                self._digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._digests[key]


def _unpacked(answer: _Answer, folder: Path) -> Done:
    """What was done, its files in `folder`, each as its sha256 says."""
    parts = []
    for index, part in enumerate(answer.done.parts):
        files = []
        for relative, digest in part.files:
            data = answer.files[digest]
            if hashlib.sha256(data).hexdigest() != digest:
                return Done(failure=f"{relative} was damaged on its way from {answer.done.machine}")
            place = folder / "answer" / str(index) / relative
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
            files.append((relative, str(place)))
        parts.append(part.model_copy(update={"files": tuple(files)}))
    return answer.done.model_copy(update={"parts": tuple(parts)})


def place_of(executor: Executor | str) -> Elsewhere:
    """The place that an executor is, or a cluster's address.

    Raises:
        FarmError: it cannot be reached, or nobody there can do this build's jobs.
        UsageError: the address is of no kind that is known.
    """
    if isinstance(executor, str):
        from aotpack.builder.dask_farm import connect

        return connect(executor)
    return Elsewhere(executor)
