"""Where tasks are done: here, as many at once as cores and memory allow, or elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from aotpack.builder.jobs.carry_out import carry_out
from aotpack.builder.jobs.job import Done, References, Task
from aotpack.builder.jobs.model_copies import ModelCopies
from aotpack.builder.jobs.resources import cores, memory_left
from aotpack.builder.jobs.supervise import Workers
from aotpack.machine.profile import Machine

__all__ = ["Here", "Place", "jobs_at_once"]

#: Bytes that a worker takes with the vendor's library and a model of no size (measured: 0.25 to 0.5 GB).
_MEMORY_OF_A_LIBRARY = 512 * 1024**2
#: Bytes that compiling takes for each byte of a model (measured on a 75 MB transformer: 4 to 9).
_MEMORY_BY_SIZE = 10


_T = TypeVar("_T")


class Place(Protocol):
    """Where tasks are done."""

    def offered(self) -> Mapping[str, Mapping[str, str]] | None:
        """Toolchain to the versions that compile there; None: those of this machine."""

    def refer(self, make: Callable[[], _T]) -> Future[_T]:
        """Do on this machine what later tasks wait for, such as a reference."""

    def submit(
        self, task: Task, references: References, folder: Path, begun: Callable[[], None]
    ) -> Future[Done]:
        """Do a task.

        Args:
            task: what to do. What goes wrong with it is in its `Done`.
            references: what `refer` makes for its parts.
            folder: an empty one, which has the files when it is done.
            begun: called when somebody has begun with it.
        """

    def stop(self) -> None:
        """Have what has begun ended as soon as can be, for nobody wants it any more."""

    def close(self) -> None:
        """Wait for what has begun, and begin nothing more."""


class Here:
    """This machine.

    Args:
        workers: start the processes that load vendors' libraries.
        machine: this one.
        at_once: tasks at the same time.
        copies: make the copies of models that compilers get.
    """

    def __init__(self, workers: Workers, machine: Machine, at_once: int, copies: ModelCopies) -> None:
        self._workers = workers
        self._machine = machine
        self._copies = copies
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="aotpack-job")

    def offered(self) -> None:
        """Those of this machine."""
        return

    def refer(self, make: Callable[[], _T]) -> Future[_T]:
        """As `Place.refer`: beside the first tasks, if more than one are done at the same time."""
        return self._pool.submit(make)

    def submit(
        self, task: Task, references: References, folder: Path, begun: Callable[[], None]
    ) -> Future[Done]:
        """As `Place.submit`."""

        def do() -> Done:
            begun()
            return carry_out(task, references, folder, self._workers, self._machine, self._copies)

        return self._pool.submit(do)

    def stop(self) -> None:
        """As `Place.stop`: the workers are killed."""
        self._workers.stop()

    def close(self) -> None:
        """As `Place.close`."""
        self._pool.shutdown(cancel_futures=True)


def jobs_at_once(model_sizes: Iterable[int], wanted: int | None = None) -> int:
    """How many tasks this machine does at the same time.

    Args:
        model_sizes: of each task, in bytes.
        wanted: by the user; None: as many as cores and available memory allow.
    """
    sizes = list(model_sizes)
    if wanted is not None or not sizes:
        return wanted or 1
    # By the largest, since nobody knows which ones will meet.
    each = _MEMORY_OF_A_LIBRARY + _MEMORY_BY_SIZE * max(sizes)
    return max(1, min(cores(), memory_left() // each, len(sizes)))
