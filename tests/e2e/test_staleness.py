"""What was measured or compiled on this machine is kept for it as it is, not for another release of an EP."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

import aotpack as api
from aotpack.builder.tune import tune
from aotpack.manifest.values import Variant
from aotpack.runtime.events import Event, EventCode
from aotpack.runtime.tuning import Measurement
from samples.made_models import cnn
from tests.command_line import aotpack, environment
from tests.hardware import compilable, needs
from tests.repack import repack, with_string
from tests.toolchains.venvs import python_with

#: Another release than the one that is required, and one that ONNX Runtime 1.32 loads.
OTHER_EP = "onnxruntime-qnn==2.6.0"


@pytest.fixture(scope="module")
def other() -> Path:
    """An interpreter that differs from this one by the release of one EP."""
    return python_with(OTHER_EP)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    onnx.save(cnn(layers=2, channels=4, size=8), folder / "small.onnx")
    targets = [f"--target={name}" for name in compilable("ort-cpu", "qnn-htp-v73")]
    done = aotpack("build", folder / "small.onnx", *targets, "-o", folder / "small.aotpack")
    assert done.status == 0, done.err
    return folder / "small.aotpack"


@pytest.fixture
def portable_only(package: Path, tmp_path: Path) -> Path:
    out = tmp_path / "portable.aotpack"
    assert aotpack("prune", package, "--keep", "portable", "-o", out).status == 0
    return out


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AOTPACK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


MEASURED = """
import sys
from pathlib import Path
from aotpack.runtime.probing import probe
from aotpack.runtime.package import open_package
from aotpack.runtime.tuning import TuningStore
with open_package(sys.argv[1]) as package:
    found = TuningStore(package.cache.root).read(package.digest, "main", probe())
print(*found)
"""


def measured(python: Path | str, package: Path) -> list[str]:
    done = subprocess.run(
        [python, "-c", MEASURED, package], env=environment({}), capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_measurements_are_not_those_of_another_release(package: Path, other: Path, cache: Path) -> None:
    tuned = aotpack("tune", package, "--json").document("tuning")
    ids = [item["variant"] for item in tuned["measurements"]]
    assert len(ids) >= 2
    assert measured(sys.executable, package) == ids
    assert measured(other, package) == []
    assert aotpack("tune", package, python=other).status == 0
    assert measured(sys.executable, package) == ids, "both are kept"


def run_compiling(package: Path, **how: Any) -> tuple[str, list[str]]:
    """The target that ran, and the codes of the events on the way."""
    done = aotpack("-v", "run", package, "--runs", 1, "--on-miss", "compile", "--json", **how)
    assert done.status == 0, done.err
    lines = [line for line in done.err.splitlines() if line.startswith("aotpack.load: ")]
    return done.document("run")["target"], [line.split(" [")[1].split("]")[0] for line in lines]


def test_what_was_compiled_here_is_compiled_anew_for_another_release(
    portable_only: Path, other: Path, cache: Path
) -> None:
    target, events = run_compiling(portable_only)
    assert target != "portable"
    assert [event.split(":")[0] for event in events] == ["recompiling", "recompiled", "loaded"]
    again, events = run_compiling(portable_only)
    assert (again, [event.split(":")[0] for event in events]) == (target, ["loaded"])
    _, events = run_compiling(portable_only, python=other)
    assert "recompiled" in events
    assert len(list((cache / "compiled").iterdir())) == 2
    _, events = run_compiling(portable_only)
    assert "recompiling" not in events, "the first one is still there"


def test_in_the_background_the_next_load_has_it(portable_only: Path, cache: Path) -> None:
    events: list[Event] = []
    with api.open(portable_only) as package:
        first = package.load_first(on_miss="compile-in-background", on_event=events.append)
        assert first.candidate.portable
        assert first.compiling is not None
        first.compiling.join(120)
        second = package.load_first(on_miss="compile-in-background", on_event=events.append)
    assert not second.candidate.portable
    assert second.compiling is None
    assert second.candidate.variant.target != "portable"
    of_thread = {EventCode.RECOMPILING, EventCode.RECOMPILED}
    assert [event.code for event in events if event.code in of_thread] == [
        EventCode.RECOMPILING,
        EventCode.RECOMPILED,
    ]
    of_loads = [event for event in events if event.code not in of_thread]
    assert [event.code for event in of_loads] == [
        EventCode.PORTABLE_ONLY,
        EventCode.LOADED,
        EventCode.LOADED,
    ]
    assert of_loads[-1].variant == second.candidate.id
    assert events.index(of_loads[-1]) > [event.code for event in events].index(EventCode.RECOMPILED)
    for session in (first.session, second.session):
        (value,) = session.get_inputs()
        assert value.shape == first.session.get_inputs()[0].shape


LEAVES = """
import sys, aotpack
with aotpack.open(sys.argv[1]) as package:
    loaded = package.load_first(on_miss="compile-in-background")
print(loaded.candidate.variant.target, loaded.compiling.is_alive())
"""


def test_who_leaves_while_it_compiles_leaves_nothing_half_done(portable_only: Path, cache: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAVES, portable_only], env=environment({}), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["portable", "True"]
    kept = list((cache / "compiled").glob("*.json"))
    assert not kept, "it left before that"
    target, events = run_compiling(portable_only)
    assert target != "portable"
    assert "recompiled" in events


def states(package: Path, python: Path | str) -> dict[str, tuple[str, str | None]]:
    findings = aotpack("doctor", package, "--json", python=python).document("doctor")["findings"]
    return {each["target"]: (each["state"], each["code"]) for each in findings}


@needs("qnn-htp-v73")
def test_a_runtime_refuses_what_a_newer_one_compiled_and_refresh_compiles_it_anew(
    package: Path, other: Path, tmp_path: Path
) -> None:
    """The older release stands for the one that is here, so that both are real."""
    assert states(package, sys.executable)["qnn-htp-v73"] == ("fresh", None)
    assert states(package, other) == {"ort-cpu": ("fresh", None), "qnn-htp-v73": ("stale", "runtime-version")}
    new = tmp_path / "new.aotpack"
    done = aotpack("refresh", package, "-o", new, "--json", python=other)
    assert done.status == 0, done.err
    assert [row["target"] for row in done.document("build-report")["rows"]] == ["qnn-htp-v73"]
    # Blobs of an older runtime load on a newer one, too.
    for python in (other, sys.executable):
        assert states(new, python)["qnn-htp-v73"] == ("fresh", None)
    run = aotpack("run", new, "--emulate", "--runs", 1, "--json", python=other).document("run")
    assert run["target"] == "qnn-htp-v73"


#: A target with a name and options of its own, and one with options alone, as build files have them.
CHANGED = """
name = "small"
[[component]]
name = "main"
model = "small.onnx"
[[target]]
target = "qnn-htp-v73"
name = "small-vtcm"
options = { vtcm_mb = 4 }
[[target]]
target = "qnn-htp-v75"
options = { vtcm_mb = 2 }
[[target]]
target = "ort-cpu"
"""


@needs("qnn-htp-v73")
def test_refreshing_keeps_what_a_build_file_said_of_a_target_and_the_order(tmp_path: Path) -> None:
    onnx.save(cnn(layers=2, channels=4, size=8), tmp_path / "small.onnx")
    (tmp_path / "spec.toml").write_text(CHANGED, encoding="utf-8")
    built = tmp_path / "small.aotpack"
    assert aotpack("build", tmp_path / "spec.toml", "-o", built).status == 0

    def aged(variant: Variant) -> Variant:
        text = variant.compatibility.ep_string
        return with_string(variant, text.replace(":5.51.0:", ":9.99.0:")) if text else variant

    def told(path: Path) -> list[tuple[str, str | None, dict[str, str]]]:
        with api.open(path) as package:
            return [
                (each.target, each.compatibility.ep_string, each.session.provider_options)
                for each in package.component().variants
            ]

    done = aotpack("refresh", repack(built, tmp_path / "aged.aotpack", aged), "-o", tmp_path / "new.aotpack")
    assert done.status == 0, done.err
    assert told(tmp_path / "new.aotpack") == told(built)
    assert aotpack("verify", tmp_path / "new.aotpack").status == 0

    def of_nobody(variant: Variant) -> Variant:
        named = variant.target == "small-vtcm"
        return aged(variant).replace(**{"specificity": 1} if named else {})

    other = repack(built, tmp_path / "other.aotpack", of_nobody)
    done = aotpack("refresh", other, "-o", tmp_path / "newer.aotpack", "--json")
    rows = {row["target"]: row for row in done.document("build-report")["rows"]}
    assert (rows["small-vtcm"]["state"], rows["qnn-htp-v75"]["state"]) == ("failed", "built")
    assert "its target is none that is known here" in rows["small-vtcm"]["reason"]
    kept, renewed, *_ = told(tmp_path / "newer.aotpack")
    assert kept == told(other)[0]
    assert renewed == told(built)[1]


SHARING = """
name = "pair"
[[component]]
name = "one"
model = "one.onnx"
[[component]]
name = "two"
model = "two.onnx"
[[target]]
target = "qnn-htp-v73"
share_weights = true
"""


@needs("qnn-htp-v73")
def test_refreshing_says_that_components_share_no_weights_any_more(other: Path, tmp_path: Path) -> None:
    for layers, name in enumerate(("one", "two"), start=2):
        onnx.save(cnn(layers=layers, channels=4, size=8), tmp_path / f"{name}.onnx")
    (tmp_path / "spec.toml").write_text(SHARING, encoding="utf-8")
    assert aotpack("build", tmp_path / "spec.toml", "-o", tmp_path / "pair.aotpack").status == 0
    new = tmp_path / "new.aotpack"
    done = aotpack("refresh", tmp_path / "pair.aotpack", "-o", new, "--json", python=other)
    assert done.status == 0, done.err
    rows = done.document("build-report")["rows"]
    assert [(row["component"], row["state"]) for row in rows] == [("one", "built"), ("two", "built")]
    assert all("shares no weights with other components any more" in row["reason"] for row in rows)
    run = aotpack("run", new, "--component", "two", "--emulate", "--runs", 1, "--json", python=other)
    assert run.document("run")["target"] == "qnn-htp-v73"


SHARED = """
import os, sys
from pathlib import Path
from aotpack.targets.catalogue import find
from aotpack.toolchains import toolchains
models = [Path(each) for each in sys.argv[1:]]
folders = [each.with_suffix("") for each in models]
for each in folders:
    each.mkdir()
toolchains()["qnn"].compile_together(find("qnn-htp-v73"), models, folders)
os._exit(0)
"""


@pytest.fixture
def crashing(package: Path, tmp_path: Path) -> Path:
    """A package with a blob that its EP segfaults on: one that models share, without the option to share."""
    models = [tmp_path / "one.onnx", tmp_path / "two.onnx"]
    for layers, model in enumerate(models, start=2):
        onnx.save(cnn(layers=layers, channels=4, size=8), model)
    command = [sys.executable, "-c", SHARED, *map(str, models)]
    subprocess.run(command, env=environment({}), check=True, capture_output=True)
    return repack(
        package,
        tmp_path / "crashing.aotpack",
        lambda variant: variant,
        files=lambda variant, path: tmp_path / "one" / path if variant.device == "npu" else None,
    )


@needs("qnn-htp-v73")
def test_a_variant_that_crashes_is_remembered_and_left_out_with_the_reason(
    crashing: Path, cache: Path
) -> None:
    def candidates(*options: str) -> dict[str, dict[str, object]]:
        document = aotpack("select", crashing, "--emulate", *options, "--json").document("selection")
        return {each["target"]: each for each in document["candidates"]}

    assert candidates()["qnn-htp-v73"]["accepted"] is True
    taken = aotpack("run", crashing, "--emulate", "--runs", 1)
    assert taken.status < 0, "it takes the process down, which is why it is measured elsewhere"
    done = aotpack("tune", crashing, "--emulate", "--json")
    assert done.status == 0, done.err
    measurements = {item["target"]: item for item in done.document("tuning")["measurements"]}
    assert "SIGSEGV" in measurements["qnn-htp-v73"]["failure"]
    assert measurements["portable"]["run_seconds"] > 0
    for options in ((), ("--measured",)):
        row = candidates(*options)["qnn-htp-v73"]
        assert (row["accepted"], row["code"]) == (False, "crashed")
        assert "SIGSEGV" in str(row["reason"])
    run = aotpack("run", crashing, "--emulate", "--runs", 1, "--json").document("run")
    assert run["target"] == "ort-cpu"
    shown = aotpack("tune", crashing, "--emulate", "--runs", 3).out.splitlines()
    assert max(map(len, shown)) <= 80
    (told,) = [line for line in shown if line.startswith(f"{measurements['qnn-htp-v73']['variant']}: ")]
    assert "SIGSEGV" in " ".join(shown[shown.index(told) :])
    # Measuring some of them anew forgets nothing of the others.
    again = aotpack("tune", crashing, "--emulate", "--devices", "cpu", "--runs", 3, "--json")
    kept = {item["target"]: item for item in again.document("tuning")["measurements"]}
    assert "SIGSEGV" in kept["qnn-htp-v73"]["failure"]
    assert kept["portable"] != measurements["portable"]
    assert candidates()["qnn-htp-v73"]["code"] == "crashed"


def test_who_is_stopped_while_measuring_keeps_what_was_measured(package: Path, cache: Path) -> None:
    with api.open(package) as opened:
        first, *others = [item.id for item in opened.select().accepted]

        def stop(measurement: Measurement) -> None:
            raise KeyboardInterrupt(measurement.variant)

        with pytest.raises(KeyboardInterrupt, match=first):
            tune(opened, runs=3, on_measured=stop)
    assert others
    assert measured(sys.executable, package) == [first]


def test_every_event_is_a_line_of_the_log(
    portable_only: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="aotpack.load")
    events: list[Event] = []
    with api.open(portable_only) as package:
        package.load_first(on_miss="compile", on_event=events.append)
    assert [record.message for record in caplog.records] == [str(event) for event in events]
    assert f"[{EventCode.RECOMPILED}]" in caplog.text
