"""A third party's toolchain that fails, in whatever way, costs its own variants and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aotpack.container.reader import PackageReader
from aotpack.container.writer import write
from aotpack.errors import ToolchainError
from aotpack.machine.profile import Machine
from aotpack.manifest.values import Compatibility
from aotpack.runtime.edit import stored
from aotpack.targets.catalogue import find
from aotpack.toolchains.base import Toolchain
from aotpack.toolchains.guarded import GuardedToolchain
from aotpack.toolchains.ort.toolchain import OrtToolchain
from tests.command_line import Done, aotpack, environment
from tests.repack import repack
from tests.toolchains.broken_toolchains import ATTRIBUTES, BUILDING, METHODS, SOURCES, ep_of, install, whole

#: These fail when a session is made, and not before.
AT_LOAD = ("add-provider-raises", "add-provider-blames-the-user")

#: Strange, and no fault.
FINE = ("asks-for-all",)

UNMAKEABLE = [name for name in (*SOURCES, *ATTRIBUTES) if name not in FINE]


@pytest.fixture(scope="module")
def package(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "small.aotpack"
    done = aotpack("build", small_model, "-o", path, "-t", "ort-cpu")
    assert done.status == 0, done.err
    return path


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to import all of them from."""
    folder = tmp_path_factory.mktemp("broken")
    install(folder, SOURCES | {name: whole(change) for name, change in (ATTRIBUTES | METHODS).items()})
    return folder


@pytest.fixture(scope="module")
def theirs(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`package` with two variants of each of them before its own."""
    output = tmp_path_factory.mktemp("theirs") / "theirs.aotpack"
    with PackageReader.open(package) as reader:
        (component,) = reader.manifest.components
        contents = stored(reader)
        optimised = component.variants[0]
        variants = [
            optimised.replace(
                id=f"{name}-{end}",
                target="theirs",
                toolchain=name,
                ep=ep_of(name),
                specificity=99,
                compatibility=Compatibility(ep_string=f"text {end}"),
            )
            for name in (*UNMAKEABLE, *METHODS)
            for end in ("first", "last")
        ]
        contents |= {("main", each.id): contents["main", optimised.id] for each in variants}
        both = component.replace(variants=(*variants, *component.variants))
        write(output, reader.manifest.replace(components=(both,)), contents)
    return output


LOAD = """
import json, logging, sys
warnings = []
class Keep(logging.Handler):
    def emit(self, record):
        warnings.append((record.getMessage(), record.exc_info is not None and record.exc_info[0] is not None))
logging.getLogger("aotpack").addHandler(Keep(logging.WARNING))
import aotpack
from aotpack.toolchains import failed_toolchains
events = []
ours, theirs = sys.argv[1:]
told = {"ours": aotpack.load(ours).get_providers()}
with aotpack.open(theirs) as package:
    for round in range(2):
        chosen = package.select()
        told[f"verdicts{round}"] = {
            each.id: (each.verdict.grade, each.verdict.code, each.verdict.reason)
            for each in chosen.candidates
        }
        loaded = package.load_first(on_event=lambda event: events.append((event.code, event.variant)))
        told[f"loaded{round}"] = loaded.candidate.variant.target
told["warnings"] = warnings
told["events"] = events
told["failures"] = [(each.distribution, each.failure or each.trouble) for each in failed_toolchains()]
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(package: Path, theirs: Path, broken: Path) -> dict[str, Any]:
    """What a process says that has all of them, loads a package of ours, and then one of theirs twice."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(package), str(theirs)],
        env=environment({}, (broken,)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def distribution(name: str) -> str:
    return f"acme-{name} 1.0"


def test_packages_are_loaded_with_all_of_them_installed(told: dict[str, Any]) -> None:
    assert told["ours"] == ["CPUExecutionProvider"]
    assert told["loaded0"] == told["loaded1"] == "ort-cpu"


@pytest.mark.parametrize("name", [*UNMAKEABLE, *METHODS])
def test_each_is_told_once_with_its_distribution(told: dict[str, Any], name: str) -> None:
    of_it = [
        text for text, _ in told["warnings"] if text.startswith("Toolchain") and distribution(name) in text
    ]
    assert len(of_it) == 1, of_it
    assert "[toolchain-failed]" in of_it[0]
    assert "\n" not in of_it[0]
    assert distribution(name) in [of for of, _ in told["failures"]]


def test_what_raised_is_in_the_log_with_its_traceback(told: dict[str, Any]) -> None:
    with_cause = [text for text, cause in told["warnings"] if cause]
    assert any(distribution("init-raises") in text for text in with_cause)
    assert any(distribution("judge-raises") in text for text in with_cause)


@pytest.mark.parametrize("name", [name for name in (*UNMAKEABLE, *METHODS) if name not in AT_LOAD])
def test_variants_of_one_that_failed_are_unknown_with_the_reason(told: dict[str, Any], name: str) -> None:
    for number in range(2):
        for end in ("first", "last"):
            grade, code, reason = told[f"verdicts{number}"][f"{name}-{end}"]
            if name == "name-of-ours":
                # It calls itself otherwise than its entry point, so that nobody knows of its variants.
                assert (grade, code) == ("UNKNOWN", "toolchain-unknown")
                continue
            assert (grade, code) == ("UNKNOWN", "toolchain-failed"), reason
            assert distribution(name) in reason


@pytest.mark.parametrize("name", AT_LOAD)
def test_one_that_fails_when_a_session_is_made_is_refused_each_time(told: dict[str, Any], name: str) -> None:
    """What failed with one package may do with the next; the warning comes once all the same."""
    for end in ("first", "last"):
        assert told["events"].count(["refused", f"{name}-{end}"]) == 2
        assert {told[f"verdicts{number}"][f"{name}-{end}"][1] for number in range(2)} == {"fits"}


def test_a_package_on_which_a_toolchain_fails_does_not_take_it_from_others(
    theirs: Path, broken: Path, tmp_path: Path
) -> None:
    name = "judge-raises-for-the-last"
    good = repack(
        theirs,
        tmp_path / "good.aotpack",
        lambda variant: variant if variant.id in (f"{name}-first",) or variant.target != "theirs" else None,
    )
    code = """
import sys, aotpack
for path in sys.argv[1:]:
    verdicts = {each.id: each.verdict.code.value for each in aotpack.select(path).candidates}
    print(verdicts["judge-raises-for-the-last-first"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(theirs), str(good)],
        env=environment({}, (broken,)),
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["toolchain-failed", "fits"], done.stderr


def test_the_command_line_goes_on(package: Path, theirs: Path, broken: Path) -> None:
    document = aotpack("select", theirs, "--json", path=(broken,)).document("selection")
    assert {each["code"] for each in document["candidates"]} >= {"toolchain-failed", "portable"}
    for verb in (("inspect", theirs), ("verify", theirs), ("coverage", package), ("machine",), ("targets",)):
        done = aotpack(*verb, path=(broken,))
        assert done.status == 0, (verb, done.err)
        assert "Traceback" not in done.err


def test_doctor_shows_those_that_failed(package: Path, broken: Path) -> None:
    done: Done = aotpack("doctor", package, "--json", path=(broken,))
    document = done.document("doctor")
    assert done.status == 0, done.err
    assert {each["distribution"] for each in document["failed_toolchains"]} >= {
        distribution(name)
        for name in (*SOURCES, *ATTRIBUTES, "version-raises", "identify-raises")
        if name not in FINE
    }
    text = aotpack("doctor", path=(broken,))
    assert text.status == 0
    assert "acme-no-import 1.0" in text.out
    assert all(len(line) <= 80 for line in text.out.splitlines())
    assert aotpack("doctor").out == "No installed toolchain failed.\n"


def test_a_build_goes_on_with_all_of_them_installed(small_model: Path, broken: Path, tmp_path: Path) -> None:
    output = tmp_path / "p.aotpack"
    done = aotpack("build", small_model, "-o", output, "-t", "ort-cpu", "--no-reuse", path=(broken,))
    assert done.status == 0, done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("name", BUILDING)
def test_what_building_asks_is_one_line_and_the_toolchain_goes_on(name: str) -> None:
    change, said = BUILDING[name]
    scope: dict[str, Any] = {}
    exec(whole(change).replace("NAME", name), scope)
    toolchain = GuardedToolchain(name, "acme 1.0")
    toolchain.hold(scope["Made"]())
    target = find("ort-cpu")
    asked: dict[str, Callable[[], object]] = {
        "requirements": lambda: toolchain.requirements(target),
        "settings": lambda: toolchain.session_settings(target),
        "built": toolchain.built_with,
        "precision": lambda: toolchain.with_precision(target, "f16"),
        "widened": lambda: toolchain.widened(["INT4"]),
        "option": lambda: toolchain.option_issue("a", "b"),
        "remarks": lambda: toolchain.remarks(""),
        "capabilities": lambda: toolchain.flex_capabilities(target),
        "why": lambda: toolchain.why_not_compile(target, Machine()),
        "how": lambda: toolchain.how_to_run(target, Machine()).why,
    }
    ask = asked[name.partition("-")[0]]
    if name.startswith(("why", "how")):
        assert said in str(ask())
    else:
        with pytest.raises(ToolchainError, match=re.escape(said)) as caught:
            ask()
        assert f"toolchain {name} of acme 1.0" in str(caught.value)
    assert toolchain.failure is None, "what it cannot build for one target it may for another"


def test_what_building_asks_does_not_keep_others_from_being_looked_at(package: Path, tmp_path: Path) -> None:
    with_target = """
    def targets(self):
        return (Target(name="NAME-cpu", toolchain="NAME", ep=self.ep, device="cpu", title="Any"),)
"""
    install(tmp_path, {name: whole(change) + with_target for name, (change, _) in BUILDING.items()})
    for verb in (("targets",), ("coverage", package), ("doctor", package)):
        done = aotpack(*verb, path=(tmp_path,))
        assert done.status == 0, (verb, done.err)
        assert "Traceback" not in done.err


@pytest.mark.parametrize("points_to", ["", "no such thing", "tests:", "os.path"])
def test_entry_points_that_name_no_toolchain_are_told(tmp_path: Path, points_to: str) -> None:
    install(tmp_path, {"lost": ""}, points_to=points_to)
    assert "acme-lost 1.0" in " ".join(aotpack("doctor", path=(tmp_path,)).out.split())


def test_a_toolchain_that_lacks_what_it_must_have_cannot_be_made() -> None:
    class Little(OrtToolchain):
        name = "little"

    assert Little().targets() == ()
    assert Toolchain.__abstractmethods__ == {
        "add_provider",
        "compile",
        "ep",
        "how_to_run",
        "judge",
        "name",
        "pip_command",
        "version",
    }
    with pytest.raises(TypeError, match="abstract"):
        Toolchain()  # type: ignore[abstract]
