"""A task on its way to another process and back: what travels, and what is believed of it.

A task goes as a `RemoteTask`: files by their sha256, first by name alone and, where the other side does not
have them, with their bytes. It keeps them, so that a model travels to it once. What comes back is plain JSON
and bytes, and is held to what was asked for: a machine that is wrong, or worse, costs its own row.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from msgspec import DecodeError

from aotpack._text import printable
from aotpack.builder.jobs.carry_out import carry_out
from aotpack.builder.jobs.job import Done, PartDone, Reference, Task, TaskPart
from aotpack.builder.jobs.manifest_rules import check_variant
from aotpack.builder.jobs.model_copies import ModelCopies
from aotpack.builder.jobs.store import Store
from aotpack.builder.jobs.supervise import Workers
from aotpack.cache.variants import Cache
from aotpack.common.field_errors import explain
from aotpack.common.paths import path_issue
from aotpack.common.values import Value
from aotpack.errors import FarmError
from aotpack.files.scratch import scratch_folder
from aotpack.manifest.values import SessionSettings, Variant
from aotpack.version import VERSION

__all__ = ["Answer", "Offer", "RemoteTask", "describe", "received", "run_remote_task"]

#: Of a `Done` as JSON, in bytes: all of it but the end of a log is far below.
_MAX_ANSWER = 64 * 1024 * 1024
#: Characters of a reason, of the name of a machine and of a log, and how many remarks there are: as much as a
#: job that is done here gives.
_MAX_FAILURE = 10_000
_MAX_NAME = 255
_MAX_LOG = 4 * 1024 * 1024
_MAX_REMARKS = 5

#: A `Done` as JSON, in which sha256 stand for the paths; the bytes of its files by sha256; and the sha256 of
#: what has to be sent along, if anything has. Plain values, which mean the same to every release.
Answer = tuple[str, Mapping[str, bytes], tuple[str, ...]]


class Offer(Value, kw_only=True):
    """What a process that does tasks has."""

    #: Its version of aotpack.
    aotpack: str
    machine: str
    #: Each toolchain that can compile some target there, with the versions that compile.
    toolchains: dict[str, dict[str, str]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteTask:
    """A task, and the files that it needs: those of its paths mean nothing to whoever does it."""

    aotpack: str
    task: Task
    #: For each part, its files as (path relative to the model's folder, sha256), the model first.
    files: tuple[tuple[tuple[str, str], ...], ...]
    #: For each part.
    references: tuple[Reference, ...]
    #: Of the references' files.
    reference_digests: tuple[str | None, ...]
    #: The versions that compile, as the build was planned with.
    built_with: Mapping[str, str]

    def needed(self) -> frozenset[str]:
        """sha256 of each file."""
        own = {digest for files in self.files for _, digest in files}
        return frozenset(own | {digest for digest in self.reference_digests if digest is not None})


def describe() -> str:
    """On the far side: what this process has, an `Offer` as JSON."""
    from aotpack.runtime.probing import probe
    from aotpack.targets.catalogue import catalogue
    from aotpack.toolchains import toolchains

    machine, known = probe(), toolchains()
    targets = catalogue(target for toolchain in known.values() for target in toolchain.targets()).values()
    offered: dict[str, dict[str, str]] = {}
    for target in targets:
        toolchain = known[target.toolchain]
        # One that cannot say what it has offers nothing; the others are none the worse.
        with contextlib.suppress(Exception):
            if target.toolchain not in offered and toolchain.why_not_compile(target, machine) is None:
                offered[target.toolchain] = dict(toolchain.built_with())
    return Offer(aotpack=VERSION, machine=platform.node(), toolchains=offered).to_json()


@functools.cache
def _workers() -> Workers:
    # Kept for the next remote task. What it starts ends with this process.
    return Workers()


def run_remote_task(remote_task: RemoteTask, *sent: Mapping[str, bytes]) -> Answer:
    """On the far side: do a task.

    Args:
        remote_task: what to do.
        sent: the bytes of files, by sha256.
    """
    name = platform.node()
    if remote_task.aotpack != VERSION:
        failure = f"{name} has aotpack {VERSION}; the build is done by {remote_task.aotpack}"
        return _answer(Done(failure=failure, machine=name))
    # The process of a farm has an environment of its own, and is where a cache is chosen for what follows.
    return _done(remote_task, sent, name, Store(Cache()))


def _done(remote_task: RemoteTask, sent: Iterable[Mapping[str, bytes]], name: str, store: Store) -> Answer:
    """A task that is done, on the machine of that name."""
    from aotpack.runtime.probing import probe

    for files in sent:
        for digest, data in files.items():
            store.put(digest, data)
    with scratch_folder("task") as folder:
        missing = tuple(
            digest
            for digest in sorted(remote_task.needed())
            if not store.link(digest, folder / "needed" / digest)
        )
        if missing:
            return _answer(Done(failure=f"{name} lacks files of the model", machine=name), missing=missing)
        task, references = _localised(remote_task, folder)
        # The files belong to this task alone, so its compiler may have them as they are.
        copies = ModelCopies(linked=True)
        done = carry_out(task, lambda: references, folder / "task", _workers(), probe(), copies)
        contents: dict[str, bytes] = {}
        parts = []
        for part in done.parts:
            listed = []
            for path, place in part.files:
                data = Path(place).read_bytes()
                digest = hashlib.sha256(data).hexdigest()
                contents[digest] = data
                listed.append((path, digest))
            parts.append(part.replace(files=tuple(listed)))
        store.trim()
        return _answer(done.replace(parts=tuple(parts), machine=name), contents)


def _answer(done: Done, files: Mapping[str, bytes] | None = None, missing: tuple[str, ...] = ()) -> Answer:
    return done.to_json(), files or {}, missing


def _localised(remote_task: RemoteTask, folder: Path) -> tuple[Task, tuple[Reference, ...]]:
    """The task and its references, with their files laid out in `folder`."""
    (folder / "task").mkdir()
    parts = []
    for index, (part, files) in enumerate(zip(remote_task.task.parts, remote_task.files, strict=True)):
        for relative, digest in files:
            place = folder / f"model-{index}" / relative
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(folder / "needed" / digest, place)
        parts.append(
            replace(
                part,
                model=folder / f"model-{index}" / files[0][0],
                data=tuple(relative for relative, _ in files[1:]),
            )
        )
    references = tuple(
        reference if digest is None else replace(reference, path=folder / "needed" / digest)
        for reference, digest in zip(remote_task.references, remote_task.reference_digests, strict=True)
    )
    return replace(remote_task.task, parts=tuple(parts)), references


def received(answer: object, remote_task: RemoteTask, folder: Path) -> Done | frozenset[str]:
    """On the near side: what was done, its files in `folder`; or what has to be sent along.

    Args:
        answer: an `Answer`, or whatever else the other side gave.
        remote_task: what was asked for.
        folder: takes the files.

    Raises:
        FarmError: it is no answer to the remote task.
    """
    text, contents, missing = _well_formed(answer)
    if missing:
        if not missing <= remote_task.needed():
            raise FarmError("asks for files that are none of its task's")
        return missing
    try:
        done = Done.from_json(text)
    except DecodeError as error:
        raise FarmError("gave an answer that cannot be read", found=explain(error)) from None
    done = _believed(done)
    if done.failure is not None:
        return done
    asked = [part.component for part in remote_task.task.parts]
    if [part.component for part in done.parts] != asked:
        raise FarmError("gave an answer to another task", expected=", ".join(asked))
    if done.built_with != dict(remote_task.built_with):
        raise FarmError(
            "compiled with other versions than it offered",
            found=_versions(done.built_with),
            expected=_versions(remote_task.built_with),
        )
    parts = tuple(
        _kept(remote_task.task, asked, part, contents, folder / "answer" / str(index))
        for index, (asked, part) in enumerate(zip(remote_task.task.parts, done.parts, strict=True))
    )
    return done.replace(parts=parts)


def _well_formed(answer: object) -> tuple[str, Mapping[str, bytes], frozenset[str]]:
    if type(answer) is tuple and len(answer) == 3:
        text, contents, missing = answer
        # Not `isinstance`: a class of its own may do anything when it is asked for a key.
        if (
            type(text) is str
            and len(text) <= _MAX_ANSWER
            and type(contents) is dict
            and all(type(digest) is str for digest in contents)
            and type(missing) is tuple
            and all(type(digest) is str for digest in missing)
        ):
            return text, contents, frozenset(missing)
    raise FarmError("gave something that is no answer", found=type(answer).__name__)


def _believed(done: Done) -> Done:
    """`done` without the settings of a session, which are known here, its texts bounded and printable."""
    return done.replace(
        failure=None if done.failure is None else printable(done.failure[:_MAX_FAILURE]),
        parts=() if done.failure is not None else done.parts,
        session=SessionSettings(),
        machine=None if done.machine is None else printable(done.machine[:_MAX_NAME]),
        remarks=tuple(printable(remark[:_MAX_FAILURE]) for remark in done.remarks[:_MAX_REMARKS]),
        log=done.log[-_MAX_LOG:],
    )


def _kept(
    task: Task, asked: TaskPart, part: PartDone, contents: Mapping[str, bytes], folder: Path
) -> PartDone:
    """`part` with its files in `folder`, each what its sha256 says."""
    if not part.files:
        raise FarmError("gave a variant without files", where=part.component)
    for relative, _ in part.files:
        if issue := path_issue(relative):
            raise FarmError(f"a file's name {issue}", where=part.component)
    target = task.target
    variant = Variant(
        id=asked.variant,
        target=target.name,
        toolchain=task.toolchain,
        ep=target.ep,
        device=target.device,
    )
    check_variant(variant, [relative for relative, _ in part.files])
    files = []
    for relative, digest in part.files:
        data = contents.get(digest)
        if type(data) is not bytes or hashlib.sha256(data).hexdigest() != digest:
            raise FarmError("was damaged on its way, or is missing", where=f"{part.component}, {relative}")
        place = folder / relative
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        files.append((relative, str(place)))
    return part.replace(files=tuple(files))


def _versions(built_with: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(built_with.items())) or "none"
