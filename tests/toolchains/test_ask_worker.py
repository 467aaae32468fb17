"""An EP whose check raises, crashes or hangs is asked once, elsewhere, and then its rules stand alone."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import onnx
import onnxruntime as ort
import psutil
import pytest
from onnxruntime.capi import _pybind_state

from aotpack.cache.variants import Cache
from aotpack.machine.profile import Ep, Machine, Npu
from aotpack.manifest.values import Compatibility, Component, Source, Variant
from aotpack.runtime.probing import probe
from aotpack.selection.select import Selection, select
from aotpack.selection.verdict import Code, Grade, Rules
from aotpack.toolchains import ask_worker as asking
from aotpack.toolchains import toolchains
from aotpack.toolchains.ask_worker import AskWorker
from aotpack.toolchains.kept_answers import MAX_ANSWERS, KnownAnswers
from aotpack.toolchains.openvino.toolchain import OpenVinoToolchain
from aotpack.toolchains.plugin import of_type
from aotpack.toolchains.qnn.string import EP, string_for
from aotpack.toolchains.qnn.toolchain import QnnToolchain
from aotpack.toolchains.rules import with_known_answers
from samples.made_models import cnn

QNN = QnnToolchain()
TEXT = string_for(73, 60, 8, "5.51.0")

#: The vendor's check segfaults in a process that has compiled.
COMPILES_FIRST = """
import os, pathlib, sys
if "aotpack.toolchains.ask_worker_main" in sys.orig_argv:
    from aotpack.targets.catalogue import find
    from aotpack.toolchains.qnn.toolchain import QnnToolchain
    folder, ask_here = pathlib.Path(__file__).parent, QnnToolchain.ask_here
    def compile_and_ask(self, *question):
        (folder / "compiled").mkdir()
        self.compile(find("qnn-htp-v73"), folder / "small.onnx", folder / "compiled")
        return ask_here(self, *question)
    QnnToolchain.ask_here = compile_and_ask
"""

HANGS = """
import sys, time
if "aotpack.toolchains.ask_worker_main" in sys.orig_argv:
    time.sleep(600)
"""

OTHERS: set[int] = set()

pytestmark = pytest.mark.skipif(QNN.version() is None, reason="the QNN EP is not installed")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def asked(cache: Path) -> Iterator[Callable[[], Rules]]:
    """Makes rules as another process would have them, with the answers that are kept in `cache`."""
    made: list[QnnToolchain] = []

    def make() -> Rules:
        made.append(QnnToolchain())
        return with_known_answers({"qnn": made[-1]}, cache, probe())["qnn"]

    yield make
    for toolchain in made:
        if toolchain._asking is not None:
            toolchain._asking.close()


@pytest.fixture
def worker() -> Iterator[AskWorker]:
    worker = AskWorker(QNN.name)
    yield worker
    worker.close()


@pytest.fixture(autouse=True)
def others() -> Iterator[None]:
    """What other tests of this process asked goes on in processes of theirs."""
    OTHERS.update(each.pid for each in processes())
    yield
    OTHERS.clear()


def starting_with(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every new interpreter run `code` before all else."""
    (folder / "sitecustomize.py").write_text(code, encoding="utf-8")
    path = filter(None, (str(folder), os.environ.get("PYTHONPATH")))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))


def processes() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if child.pid not in OTHERS
        and child.status() != psutil.STATUS_ZOMBIE
        and "aotpack.toolchains.ask_worker_main" in child.cmdline()
    ]


def test_a_check_that_crashes_is_no_answer_and_is_not_asked_twice(
    asked: Callable[[], Rules],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    onnx.save(cnn(layers=2, channels=4, size=8), tmp_path / "small.onnx")
    starting_with(COMPILES_FIRST, tmp_path, monkeypatch)
    assert asked().ask(TEXT, "npu") is None
    (said,) = [record.message for record in caplog.records if "[ask-crashed]" in record.message]
    assert re.search(r"status -\d+", said)
    assert (tmp_path / "compiled" / "model.onnx").exists(), "it compiled before it crashed"
    assert not processes()
    caplog.clear()
    assert asked().ask(TEXT, "npu") is None
    assert not processes(), "what is known needs no process"
    assert not caplog.records


def test_a_check_that_raises_is_no_answer_and_keeps_its_process(worker: AskWorker) -> None:
    # There is no NPU here, and the EP raises rather than say so.
    if any(npu.vendor == "qualcomm" for npu in probe().npus or ()):
        pytest.skip("there is a Hexagon NPU here")
    assert worker.ask(TEXT, "npu") is None
    (process,) = processes()
    assert worker.ask("junk", "npu") is None
    assert processes() == [process]


def test_a_check_imports_nothing_from_the_folder_of_the_user(
    worker: AskWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cloned model repository may hold modules of its own."""
    for name in ("aotpack", "json", "numpy", "onnxruntime", "psutil", "pydantic"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})")
    monkeypatch.chdir(tmp_path)
    worker.ask("junk", "npu")
    assert processes(), "it was asked"
    assert not (tmp_path / "ran").exists()


def test_a_check_that_hangs_is_ended(
    worker: AskWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting_with(HANGS, tmp_path, monkeypatch)
    monkeypatch.setattr(asking, "TIMEOUT", 1.0)
    assert worker.ask(TEXT, "npu") is None
    assert not processes()


def test_what_was_answered_counts_for_this_release_and_environment_alone(cache: Path) -> None:
    machine = probe()
    KnownAnswers(cache, "qnn", machine).add("npu text", Grade.OPTIMAL)
    KnownAnswers(cache, "qnn", machine).add("npu other", None)
    assert KnownAnswers(cache, "qnn", machine).read() == {"npu text": Grade.OPTIMAL, "npu other": None}
    newer = {**(machine.eps or {}), EP: Ep(version="9.9.9")}
    for other in (
        machine.replace(eps=newer),
        machine.replace(onnxruntime="9.9.9"),
        machine.replace(environment={"SOME": "thing"}),
    ):
        assert KnownAnswers(cache, "qnn", other).read() == {}
    assert KnownAnswers(cache, "openvino", machine).read() == {}


@pytest.mark.parametrize("content", [b"", b"{", b'{"answers": {"npu text": "FINE"}}', b'{"answers": []}'])
def test_answers_that_cannot_be_read_are_asked_again(cache: Path, content: bytes) -> None:
    known = KnownAnswers(cache, "qnn", probe())
    known.add("npu text", Grade.OPTIMAL)
    (path,) = (cache / "answers").iterdir()
    path.write_bytes(content)
    assert known.read() == {}
    known.add("npu text", Grade.UNSUPPORTED)
    assert known.read() == {"npu text": Grade.UNSUPPORTED}


def test_a_cache_that_cannot_be_written_costs_the_memory_alone(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    known = KnownAnswers(tmp_path / "cache", "qnn", probe())
    known.add("npu text", Grade.OPTIMAL)
    assert known.read() == {}


def test_the_answers_that_are_kept_have_a_limit(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_ANSWERS >= 1000
    monkeypatch.setattr("aotpack.toolchains.kept_answers.MAX_ANSWERS", 3)
    known = KnownAnswers(cache, "qnn", probe())
    for number in range(10):
        known.add(f"npu {number}", None)
        assert len(known.read()) <= 3
        assert f"npu {number}" in known.read()


def choose(machine: Machine) -> Selection:
    variant = Variant(
        id="v73",
        target="qnn-htp-v73",
        toolchain="qnn",
        ep=EP,
        device="npu",
        compatibility=Compatibility(ep_string=TEXT),
    )
    source = Source(sha256="a" * 64, size=1, opsets={"": 17})
    component = Component(name="main", source=source, inputs=(), outputs=(), variants=(variant,))
    return select(component, machine, toolchains(), here=True)


def test_where_the_check_gives_no_answer_the_rules_decide_and_the_explanation_says_so() -> None:
    """As on a machine with an NPU; this one has none, so that the EP raises."""
    npu = Npu(vendor="qualcomm", architecture="v73", vtcm_mb=8)
    selection = choose(probe().replace(npus=(npu,)))
    (candidate,) = selection.accepted
    assert (candidate.verdict.code, candidate.verdict.by) == (Code.FITS, "rules")
    assert "? the EP's own check: not known | needs an answer" in selection.explain()


@dataclass(eq=False)
class Listed:
    device: SimpleNamespace


def listed(*types: str) -> list[Listed]:
    return [Listed(SimpleNamespace(type=SimpleNamespace(name=each))) for each in types]


@pytest.mark.parametrize(
    ("types", "device", "chosen"),
    [
        (("CPU", "GPU", "NPU"), "npu", "NPU"),
        (("NPU", "GPU", "CPU"), "cpu", "CPU"),
        (("GPU", "CPU", "GPU"), "gpu", "GPU"),
        # An emulator runs on the CPU.
        (("CPU",), "npu", "CPU"),
        # A blob for CPUs is for nothing else.
        (("GPU", "NPU"), "cpu", None),
        ((), "gpu", None),
    ],
)
def test_a_blob_goes_to_a_device_of_its_type(types: tuple[str, ...], device: str, chosen: str | None) -> None:
    """As EPs list their devices where there are several; this machine has none but a CPU."""
    found = of_type(listed(*types), device)
    assert [each.device.type.name for each in found][:1] == ([chosen] if chosen else [])
    assert {each.device.type.name for each in found} <= {chosen}


class Options:
    """Session options that remember their devices."""

    def add_provider_for_devices(self, devices: list[Listed], options: dict[str, str]) -> None:
        self.devices = devices


@pytest.mark.parametrize(
    ("answers", "grade", "at"),
    [
        (["EP_UNSUPPORTED", "EP_SUPPORTED_OPTIMAL"], Grade.OPTIMAL, 1),
        (["EP_SUPPORTED_PREFER_RECOMPILATION", "EP_SUPPORTED_OPTIMAL"], Grade.OPTIMAL, 1),
        (["EP_SUPPORTED_OPTIMAL", "EP_SUPPORTED_OPTIMAL"], Grade.OPTIMAL, 0),
        (["EP_NOT_APPLICABLE", "EP_UNSUPPORTED"], Grade.UNSUPPORTED, 0),
        (["raises", "EP_SUPPORTED_OPTIMAL"], None, 0),
    ],
)
def test_of_several_gpus_the_one_that_takes_a_blob_best_is_asked_and_loads_it(
    answers: list[str], grade: Grade | None, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine has no GPU: the answers are made up, and what is done with them is not."""
    gpus = listed(*("GPU" for _ in answers))
    toolchain = OpenVinoToolchain()
    monkeypatch.setattr(toolchain, "devices", lambda: [*listed("CPU"), *gpus])

    def check(devices: list[Listed], text: str) -> object:
        (each,) = devices
        return _pybind_state.OrtCompiledModelCompatibility.__members__[answers[gpus.index(each)]]

    monkeypatch.setattr(_pybind_state, "get_model_compatibility_for_ep_devices", check)
    monkeypatch.setattr(ort, "SessionOptions", Options)
    assert toolchain.ask("text", "gpu") is grade
    variant = Variant(
        id="gpu",
        target="t",
        toolchain="openvino",
        ep=toolchain.ep,
        device="gpu",
        compatibility=Compatibility(ep_string="text"),
    )
    options = Options()
    toolchain.add_provider(options, variant, emulate=False)
    assert [each is gpus[at] for each in options.devices] == [True]


def test_answers_count_towards_the_caches_limit_and_go_when_room_is_needed(cache: Path) -> None:
    known = KnownAnswers(cache, "qnn", probe())
    known.add("npu text", Grade.OPTIMAL)
    assert Cache(cache).size() > 0
    Cache(cache).prune(0)
    assert Cache(cache).size() == 0
    assert known.read() == {}
