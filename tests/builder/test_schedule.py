"""All jobs of a plan: each is done once, and what comes of it is in the plan's order."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aotpack.builder.jobs.job import Done, Reference, References, Task
from aotpack.builder.jobs.model_copies import ModelCopies
from aotpack.builder.jobs.pools import Here, jobs_at_once
from aotpack.builder.jobs.supervise import Workers
from aotpack.builder.plan import Plan, plan
from aotpack.builder.schedule import do_all
from aotpack.builder.sources import Sources
from aotpack.builder.spec import BuildSpec, ComponentSpec, Limits, TargetSpec
from aotpack.errors import FarmError
from aotpack.runtime.events import Event, EventCode
from aotpack.runtime.probing import probe
from aotpack.toolchains import toolchains

_T = TypeVar("_T")

TARGETS = ("ort-cpu", "qnn-htp-v69", "qnn-htp-v73", "qnn-htp-v75", "qnn-htp-v79", "qnn-htp-v81")


class Scattered:
    """A place where tasks end in any order, some of them in ways of their own."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.tasks: list[Task] = []
        self.references = 0
        self.stopped = 0

    def offered(self) -> None:
        return None

    def refer(self, make: Callable[[], _T]) -> Future[_T]:
        self.references += 1
        made: Future[_T] = Future()
        made.set_result(make())
        return made

    def submit(
        self, task: Task, references: References, folder: Path, begun: Callable[[], None]
    ) -> Future[Done]:
        assert list(folder.iterdir()) == []
        (reference,) = references()
        assert reference.path is not None
        self.tasks.append(task)
        future: Future[Done] = Future()
        ending = self._random.choice(
            (
                lambda: future.set_result(Done(failure="no")),
                lambda: future.set_exception(FarmError("lost")),
                lambda: future.set_exception(RuntimeError("strange")),
                lambda: future.cancel() and future.set_running_or_notify_cancel(),
            )
        )
        begun()
        threading.Timer(self._random.random() / 100, ending).start()
        return future

    def stop(self) -> None:
        self.stopped += 1

    def close(self) -> None:
        raise AssertionError("whoever made it closes it")


def unneeded() -> list[Reference]:
    return [Reference(path=None, failure="nobody compares")]


def planned(model: Path, targets: list[str], components: int = 1) -> Plan:
    spec = BuildSpec(
        name="p",
        output=Path("p.aotpack"),
        components=tuple(
            ComponentSpec(name=f"c{number}", model=model, shapes={}) for number in range(components)
        ),
        targets=tuple(TargetSpec(target=name) for name in targets),
    )
    return plan(spec, toolchains())


@pytest.fixture(scope="module")
def sources(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sources]:
    with Workers() as workers:
        yield Sources(
            planned(small_model, ["ort-cpu"], 2).components,
            tmp_path_factory.mktemp("sources"),
            workers,
            Limits(),
        )


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    targets=st.lists(st.sampled_from(TARGETS), unique=True, max_size=6),
    components=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_every_job_is_done_once_and_told_in_the_plans_order(
    small_model: Path,
    sources: Sources,
    tmp_path_factory: pytest.TempPathFactory,
    targets: list[str],
    components: int,
    seed: int,
) -> None:
    made, place = planned(small_model, targets, components), Scattered(seed)
    told: Counter[tuple[str, str | None, str | None]] = Counter()

    def tell(event: Event) -> None:
        ended = event.code in (EventCode.BUILT, EventCode.FAILED)
        assert (event.row is not None) == ended
        told["end" if ended else event.code.value, event.component, event.target] += 1

    finished = do_all(made, place, sources, None, tmp_path_factory.mktemp("scratch"), tell, None)
    jobs = [(job.target.name, job.components[0].name) for job in made.jobs]
    assert [(each.built.row.target, each.component.name) for each in finished] == jobs
    given_out = Counter((task.target.name, task.parts[0].component) for task in place.tasks)
    compiled = [job for job in jobs if job[0] != "portable"]
    assert given_out == Counter(compiled)
    for target, component in jobs:
        assert told["end", component, target] == 1
        for what in ("queued", "compiling"):
            assert told[what, component, target] == (target != "portable")
    states = {each.built.row.target: each.built.row.state for each in finished}
    assert states.pop("portable") == "built"
    assert set(states.values()) <= {"failed"}
    reasons = {each.built.row.reason for each in finished if each.built.row.target != "portable"}
    ways = ("lost", "RuntimeError: strange", "CancelledError:")
    assert reasons <= {"no", *(f"it was not done: {way}" for way in ways)}
    assert place.stopped == 0


def test_what_goes_wrong_here_stops_the_place(small_model: Path, sources: Sources, tmp_path: Path) -> None:
    place = Scattered(0)

    def tell(event: Event) -> None:
        if event.code is EventCode.COMPILING and event.target == "qnn-htp-v75":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do_all(planned(small_model, list(TARGETS)), place, sources, None, tmp_path, tell, None)
    assert place.stopped == 1


@given(
    sizes=st.lists(st.integers(0, 10**10), max_size=20),
    available=st.integers(0, 10**12),
    cores=st.integers(1, 256),
)
def test_never_more_at_once_than_cores_memory_and_jobs_allow(
    sizes: list[int], available: int, cores: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aotpack.builder.jobs.pools.memory_left", lambda: available)
        patch.setattr("aotpack.builder.jobs.pools.cores", lambda: cores)
        found = jobs_at_once(sizes)
        assert jobs_at_once(sizes, 7) == 7, "who says how many gets as many"
    assert 1 <= found <= max(1, min(cores, len(sizes)))
    # One is always done: it may fit after all, and there is its limit.
    assert found == 1 or found * (512 * 1024**2 + 10 * max(sizes)) <= available
    if sizes and found < min(cores, len(sizes)):
        assert (found + 1) * (512 * 1024**2 + 10 * max(sizes)) > available


def test_here_no_more_than_were_allowed_are_done_at_once(
    small_model: Path, sources: Sources, tmp_path: Path
) -> None:
    (job, _) = planned(small_model, ["ort-cpu"]).jobs
    task = sources.task(job)
    running, most, lock = 0, 0, threading.Lock()

    def begun() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)

    def ended(future: Future[Done]) -> None:
        nonlocal running
        with lock:
            running -= 1

    with Workers() as workers:
        place = Here(workers, probe(), 2, ModelCopies())
        futures = []
        for number in range(5):
            (tmp_path / str(number)).mkdir()
            futures.append(place.submit(task, unneeded, tmp_path / str(number), begun))
            futures[-1].add_done_callback(ended)
        assert [future.result().failure for future in futures] == [None] * 5
        place.close()
    assert most == 2


def test_here_what_runs_is_ended_when_nobody_wants_it_any_more(
    small_model: Path, sources: Sources, tmp_path: Path
) -> None:
    (job, _) = planned(small_model, ["ort-cpu"]).jobs
    task = sources.task(job)
    with Workers() as workers:
        place = Here(workers, probe(), 1, ModelCopies())
        futures, begun = [], threading.Event()
        for number in range(3):
            (tmp_path / str(number)).mkdir()
            futures.append(place.submit(task, unneeded, tmp_path / str(number), begun.set))
        # What has not begun is cancelled, and says nothing.
        assert begun.wait(60)
        started = time.monotonic()
        place.stop()
        place.close()
        assert time.monotonic() - started < 5
        ends = [None if future.cancelled() else future.result().failure for future in futures]
    assert set(ends) <= {None, "the build was stopped"}
    assert ends[0] == "the build was stopped"


def test_here_a_reference_is_made_beside_the_first_task_and_waited_for(
    small_model: Path, sources: Sources, tmp_path: Path
) -> None:
    (job, _) = planned(small_model, ["ort-cpu"]).jobs
    made = threading.Event()

    def make() -> Reference:
        assert made.wait(60)
        return Reference(path=None, failure="made late")

    with Workers() as workers:
        place = Here(workers, probe(), 2, ModelCopies())
        reference = place.refer(make)
        done = place.submit(sources.task(job), lambda: [reference.result()], tmp_path, made.set).result()
        place.close()
    assert done.failure is None
    assert done.parts[0].unchecked == "Not compared: made late."


def test_a_stopped_build_has_compared_nothing_wrong(
    small_model: Path, sources: Sources, tmp_path: Path
) -> None:
    """What was compiled when the build was stopped has not failed to run: nobody ran it."""
    (job, _) = planned(small_model, ["ort-cpu"]).jobs
    with Workers() as workers:
        place = Here(workers, probe(), 1, ModelCopies())

        def stopped() -> list[Reference]:
            place.stop()
            return [Reference(path=tmp_path / "reference.npz")]

        done = place.submit(sources.task(job), stopped, tmp_path, lambda: None).result()
        place.close()
    assert done.failure == "the build was stopped"
