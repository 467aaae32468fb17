"""Tasks sent to other processes: what travels, and what is believed of an answer."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import aotpack
from aotpack.builder.jobs import executor_pool as elsewhere
from aotpack.builder.jobs.job import Done
from aotpack.builder.jobs.remote_task import Answer, RemoteTask, describe, received, run_remote_task
from aotpack.builder.report import BuildReport, Row
from aotpack.cache.variants import Cache
from aotpack.errors import BuildFailed, FarmError
from aotpack.version import VERSION
from samples.made_models import cnn

Change = Callable[[Answer], Any]


class Through(Executor):
    """Does what it is given in a thread, notes what is sent with remote tasks, and may change the answers."""

    def __init__(self, change: Change = lambda answer: answer, says: Callable[[], object] = describe) -> None:
        self._pool = ThreadPoolExecutor(2)
        self._change = change
        self._says = says
        self.sent: list[str] = []
        self.remote_tasks = 0

    def submit(self, function: Any, /, *arguments: Any, **keywords: Any) -> Future[Any]:
        if function is describe:
            return self._pool.submit(self._says)
        assert function is run_remote_task
        self.remote_tasks += 1
        self.sent += arguments[1]
        return self._pool.submit(lambda: self._change(run_remote_task(*arguments)))

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown()


@pytest.fixture
def far_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One that has nothing yet; here both sides have the same."""
    monkeypatch.setenv("AOTPACK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def built(model: Path, folder: Path, executor: Executor, *targets: str) -> BuildReport:
    return aotpack.build(
        model,
        targets=targets or ["ort-cpu"],
        output=folder / "x.aotpack",
        executor=executor,
        reuse=False,
        keep_going=True,
    )


def row(model: Path, folder: Path, change: Change) -> Row:
    """Of a target whose answers are changed on their way."""
    (folder / "out").mkdir()
    with Through(change) as executor:
        report = built(model, folder / "out", executor)
    assert [path.name for path in (folder / "out").iterdir()] == ["x.aotpack"]
    assert {each.target: each.state for each in report.rows}["portable"] == "built"
    return report.rows[0]


def test_a_model_travels_once_and_its_data_with_it(tmp_path: Path, far_cache: Path) -> None:
    (tmp_path / "m").mkdir()
    path = tmp_path / "m" / "m.onnx"
    onnx.save_model(
        cnn(layers=2, channels=64, size=8), path, save_as_external_data=True, location="w", size_threshold=0
    )
    with Through() as executor:
        report = built(path, tmp_path, executor, "ort-cpu", "qnn-htp-v73")
        assert [each.state for each in report.rows] == ["built"] * 3, report.rows
        # Two jobs may ask at the same time; afterwards nobody asks again.
        assert set(map(executor.sent.count, executor.sent)) <= {1, 2}
        first = set(executor.sent)
        # What travels is what the build has made of the user's model: its graph, its weights, a reference.
        assert len(first) == 3
        sent = [(Cache().root / "sent" / digest).read_bytes() for digest in first]
        assert sum(len(data) >= path.with_name("w").stat().st_size for data in sent) == 1, "the weights"
        before = len(executor.sent)
        built(path, tmp_path, executor, "ort-cpu", "qnn-htp-v75")
        # A reference is a zip file, which may have the time in it.
        assert not first & set(executor.sent[before:])
        assert len(set(executor.sent[before:])) <= 1


def test_what_comes_back_is_what_was_made(small_model: Path, tmp_path: Path, far_cache: Path) -> None:
    with Through() as executor:
        report = built(small_model, tmp_path, executor)
    (far, _) = report.rows
    assert far.state == "built"
    assert far.machine
    assert far.numerics is not None
    assert far.numerics.error is not None
    assert far.numerics.error <= 1e-5
    with aotpack.open(tmp_path / "x.aotpack") as package:
        session = package.load()
    image = np.zeros((1, 3, 8, 8), np.float32)
    assert session.run(None, {"image": image})[0].shape == (1, 4)


def with_done(change: Callable[[dict[str, Any]], None]) -> Change:
    """Answers whose report is changed, where there is one."""

    def changed(answer: Answer) -> Answer:
        text, files, missing = answer
        done = json.loads(text)
        if not missing:
            change(done)
        return json.dumps(done), files, missing

    return changed


def first_file(done: dict[str, Any], **changes: str) -> None:
    name, digest = done["parts"][0]["files"][0]
    done["parts"][0]["files"][0] = [changes.get("name", name), changes.get("digest", digest)]


def with_files(change: Callable[[bytes], Any]) -> Change:
    return lambda answer: (answer[0], {key: change(data) for key, data in answer[1].items()}, answer[2])


LIES: dict[str, tuple[Change, str]] = {
    "other bytes": (with_files(lambda data: data[:-1] + b"!"), "was damaged on its way, or is missing"),
    "no bytes": (lambda answer: (answer[0], {}, answer[2]), "was damaged on its way, or is missing"),
    "bytes that are none": (with_files(lambda data: data.decode("latin1")), "was damaged on its way"),
    "a path outside": (with_done(lambda done: first_file(done, name="../../x.onnx")), "leaves its folder"),
    "an absolute path": (with_done(lambda done: first_file(done, name="/tmp/x.onnx")), "a file's name"),
    "another digest": (with_done(lambda done: first_file(done, digest="0" * 64)), "was damaged on its way"),
    "no files": (with_done(lambda done: done["parts"][0].update(files=[])), "gave a variant without files"),
    "no parts": (with_done(lambda done: done.update(parts=[])), "gave an answer to another task"),
    "another component": (
        with_done(lambda done: done["parts"][0].update(component="other")),
        "gave an answer to another task; expected main",
    ),
    "other versions": (
        with_done(lambda done: done.update(built_with={"onnxruntime": "1.0"})),
        "compiled with other versions than it offered; found onnxruntime 1.0; expected onnxruntime 1.",
    ),
    "a field that is none": (with_done(lambda done: done.update(more=1)), "cannot be read"),
    "no JSON": (lambda answer: ("{", *answer[1:]), "cannot be read"),
    "no answer": (lambda answer: None, "gave something that is no answer; found NoneType"),
    "half an answer": (lambda answer: answer[:2], "gave something that is no answer; found tuple"),
    "files of others": (lambda answer: (answer[0], {}, ("0" * 64,)), "asks for files that are none of its"),
}


@pytest.fixture(scope="module")
def honest(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RemoteTask, Answer]:
    """A remote task, and what comes of it."""
    kept: list[tuple[RemoteTask, Answer]] = []

    class Keeps(Through):
        def submit(self, function: Any, /, *arguments: Any, **keywords: Any) -> Future[Any]:
            future = super().submit(function, *arguments, **keywords)
            if function is run_remote_task:
                kept.append((arguments[0], future.result()))
            return future

    with Keeps() as executor:
        built(small_model, tmp_path_factory.mktemp("honest"), executor)
    return kept[-1]


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_refused_and_leaves_nothing(
    honest: tuple[RemoteTask, Answer], tmp_path: Path, lie: str
) -> None:
    remote_task, answer = honest
    folder = tmp_path / "a" / "b" / "c"
    assert isinstance(received(answer, remote_task, folder / "honest"), Done)
    change, says = LIES[lie]
    with pytest.raises(FarmError, match=re.escape(says)):
        received(change(answer), remote_task, folder / "lie")
    assert {path.relative_to(folder).parts[0] for path in folder.rglob("*")} == {"honest"}
    assert [path.name for path in tmp_path.rglob("*.onnx")] == ["model.onnx"]


def test_a_lie_costs_its_own_row(small_model: Path, tmp_path: Path, far_cache: Path) -> None:
    change, says = LIES["a path outside"]
    failed = row(small_model, tmp_path, change)
    assert failed.state == "failed"
    assert failed.reason is not None
    assert failed.reason.startswith("it was not done: ")
    assert says in failed.reason


def test_what_this_machine_knows_or_finds_out_is_not_believed(
    small_model: Path, tmp_path: Path, far_cache: Path
) -> None:
    def lies(done: dict[str, Any]) -> None:
        done["session"] = {"config": {"session.collect_node_memory_stats_to_file": "/tmp/x"}}
        done["requires"] = {"onnxruntime": ">=99"}
        part = done["parts"][0]
        part["ep_string"] = "s" * 70_000
        part["coverage"] = {"nodes": 2**53 - 1, "compiled": 2**53 - 1, "partitions": 1}
        part["checked"] = {
            "compared": {"samples": 99, "inputs": "given", "outputs": []},
            "ran_on": "emulator",
        }

    honest = tmp_path / "honest"
    honest.mkdir()
    with Through() as executor:
        built(small_model, honest, executor)
    assert row(small_model, tmp_path, with_done(lies)).state == "built"
    with aotpack.open(tmp_path / "out" / "x.aotpack") as one, aotpack.open(honest / "x.aotpack") as other:
        assert one.manifest.components[0].variants == other.manifest.components[0].variants


def test_a_difference_that_was_not_measured_there_is_measured_here(
    small_model: Path, tmp_path: Path, far_cache: Path
) -> None:
    """The answer has other weights and says that nothing differs."""

    def other_weights(answer: Answer) -> Answer:
        text, files, missing = answer
        done = json.loads(text)
        if not missing:
            name, digest = done["parts"][0]["files"][0]
            model = onnx.load_model_from_string(files[digest])
            for tensor in model.graph.initializer:
                if tensor.data_type == onnx.TensorProto.FLOAT:
                    tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), tensor.name))
            data = model.SerializeToString()
            changed = hashlib.sha256(data).hexdigest()
            done["parts"][0]["files"][0] = [name, changed]
            done["parts"][0]["checked"] = {
                "compared": {"samples": 1, "inputs": "made", "outputs": []},
                "ran_on": "host",
            }
            files = {**files, changed: data}
        return json.dumps(done), files, missing

    failed = row(small_model, tmp_path, other_weights)
    assert failed.state == "failed"
    assert "its numbers are off" in (failed.reason or "")


@pytest.mark.parametrize("stop", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_what_ends_a_process_there_is_a_row_here(
    small_model: Path, tmp_path: Path, far_cache: Path, stop: BaseException
) -> None:
    def ended(answer: Answer) -> Answer:
        raise stop

    failed = row(small_model, tmp_path, ended)
    assert failed.state == "failed"
    assert f"the process that did it was ended; found {type(stop).__name__}" in (failed.reason or "")


def test_an_executor_that_never_answers_is_given_up(
    small_model: Path, tmp_path: Path, far_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Silent(Through):
        def submit(self, function: Any, /, *arguments: Any, **keywords: Any) -> Future[Any]:
            return super().submit(function) if function is describe else Future()

    monkeypatch.setattr(elsewhere, "_UNTIL_SENT", 1.0)
    with Silent() as executor:
        report = aotpack.build(
            small_model,
            targets=["ort-cpu"],
            output=tmp_path / "x.aotpack",
            executor=executor,
            time_limit=1,
            reuse=False,
            keep_going=True,
        )
    assert [each.state for each in report.rows] == ["failed", "built"]
    assert "no answer came for" in (report.rows[0].reason or "")


def test_a_failure_needs_no_files_and_brings_none(honest: tuple[RemoteTask, Answer], tmp_path: Path) -> None:
    remote_task, answer = honest
    failed = with_done(lambda done: done.update(failure="no"))(answer)
    done = received(failed, remote_task, tmp_path)
    assert isinstance(done, Done)
    assert (done.failure, done.parts) == ("no", ())
    assert list(tmp_path.iterdir()) == []


def test_a_machine_that_keeps_nothing_is_given_up(small_model: Path, tmp_path: Path, far_cache: Path) -> None:
    asked: list[tuple[str, ...]] = []

    def forgetful(answer: Answer) -> Answer:
        asked.append(answer[2] or asked[0])
        return answer[0], {}, asked[-1]

    failed = row(small_model, tmp_path, forgetful)
    assert failed.reason == "it was not done: still lacks files of the model after they were sent"
    assert len(asked) == 3


def test_a_task_that_comes_to_another_machine_than_was_sent_its_files_gets_all_of_them(
    small_model: Path, tmp_path: Path, far_cache: Path
) -> None:
    """The first one lacks the reference alone; the second one has nothing at all."""
    answers = 0

    def lacks(answer: Answer) -> Answer:
        nonlocal answers
        answers += 1
        wanted = {1: answer[2][:1], 2: answer[2]}.get(answers, answer[2])
        return answer[0], answer[1], wanted

    assert row(small_model, tmp_path, lacks).state == "built"
    assert answers == 3


@pytest.mark.parametrize(
    ("says", "found"),
    [
        (lambda: json.dumps({"aotpack": "9.9.9", "and": "more"}), "found aotpack 9.9.9"),
        (lambda: json.dumps({"aotpack": VERSION, "machine": 1}), "found "),
        (lambda: ModuleNotFoundError("No module named 'aotpack'"), "No module named 'aotpack'"),
    ],
)
def test_who_cannot_do_the_jobs_is_refused_before_anything_is_done(
    small_model: Path, tmp_path: Path, says: Callable[[], object], found: str
) -> None:
    with Through(says=says) as executor, pytest.raises(FarmError, match="nobody there can do") as caught:
        built(small_model, tmp_path, executor)
    assert found in str(caught.value)
    assert f"expected aotpack {VERSION}" in str(caught.value)
    assert executor.remote_tasks == 0
    assert list(tmp_path.iterdir()) == []


def test_an_executor_that_does_not_run_anything_is_an_error(small_model: Path, tmp_path: Path) -> None:
    def broken() -> str:
        raise OSError("no such machine")

    with (
        Through(says=broken) as executor,
        pytest.raises(FarmError, match="cannot run aotpack; found no such"),
    ):
        built(small_model, tmp_path, executor)


def test_a_pool_whose_process_dies_fails_the_rows_that_it_had(small_model: Path, tmp_path: Path) -> None:
    """A real pool breaks for good when one of its processes is gone."""

    class Breaks(Executor):
        def submit(self, function: Any, /, *arguments: Any, **keywords: Any) -> Future[Any]:
            return pool.submit(describe) if function is describe else pool.submit(os._exit, 1)

    # Not forked: this process has threads.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        report = built(small_model, tmp_path, Breaks())
    assert [each.state for each in report.rows] == ["failed", "built"]
    assert "it was not done: BrokenProcessPool" in (report.rows[0].reason or "")


def test_without_going_on_the_error_has_the_report(
    small_model: Path, tmp_path: Path, far_cache: Path
) -> None:
    with Through(lambda answer: None) as executor, pytest.raises(BuildFailed, match="1 of 2") as caught:
        aotpack.build(small_model, targets=["ort-cpu"], output=tmp_path / "x", executor=executor, reuse=False)
    assert "gave something that is no answer" in str(caught.value)
    assert caught.value.report.failed[0].target == "ort-cpu"


def test_what_was_sent_and_damaged_since_is_asked_for_again(
    small_model: Path, tmp_path: Path, far_cache: Path
) -> None:
    digest = hashlib.sha256(small_model.read_bytes()).hexdigest()
    with Through() as executor:
        built(small_model, tmp_path, executor)
        kept = Cache().root / "sent" / digest
        kept.chmod(0o644)
        kept.write_bytes(numpy_helper.from_array(np.zeros(1)).SerializeToString())
        assert built(small_model, tmp_path, executor).rows[0].state == "built"
        assert executor.sent.count(digest) == 2
