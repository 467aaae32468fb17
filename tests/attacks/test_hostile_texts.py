"""Hostile texts through the command line: one line of error, within bounds, and nothing a terminal obeys."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

# What the verbs import, once and not in each of the processes below.
from aotpack import cli
from tests.attacks.forge import honest
from tests.attacks.hostile_texts import BUILD_FILES, ENVIRONMENTS, PROFILES, SAYINGS

#: What a verb may take beside what this process has, and how long.
MEMORY = 1024 * 1024 * 1024
SECONDS = 20

#: All that a terminal obeys, that changes the order of letters or ends a line.
_OBEYED = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]"
)


NAMES = ["\x1b[31mx\u202e", "\udcff", "x" * 300, "@file", "-", "a\nb", "\u6a21\u578b"]


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str


def run(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> Ended:
    """``aotpack *arguments`` in a process that was forked, under limits."""
    out, err = folder / "stdout", folder / "stderr"
    child = os.fork()
    if not child:
        _be_the_command(out, err, arguments, env or {})
    _, status = os.waitpid(child, 0)
    return Ended(
        os.waitstatus_to_exitcode(status), out.read_text("utf-8"), err.read_text("utf-8", "surrogateescape")
    )


def _be_the_command(out: Path, err: Path, arguments: Sequence[str], env: dict[str, str]) -> None:
    try:
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        signal.alarm(3 * SECONDS)
        for descriptor, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), descriptor)
        sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), encoding="utf-8")
        sys.stderr = io.TextIOWrapper(
            os.fdopen(2, "wb", closefd=False), encoding="utf-8", errors="backslashreplace", write_through=True
        )
        os.environ.update(env)
        sys.argv = ["aotpack", *arguments]
        cli.main()
    except BaseException:
        import traceback

        os.write(2, traceback.format_exc().encode("utf-8", "backslashreplace"))
    os._exit(99)


def refused(ended: Ended, says: str) -> None:
    assert ended.status in (1, 2), ended
    assert ended.out == ""
    lines = ended.err.splitlines()
    assert len(lines) == 1, ended.err[-2000:]
    assert lines[0].startswith("error: ")
    assert re.search(says, lines[0]), lines[0]
    assert len(lines[0]) < 10_000
    assert not _OBEYED.search(ended.err)


@pytest.mark.parametrize("name", BUILD_FILES)
def test_a_build_file_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    text, says = BUILD_FILES[name]
    path = tmp_path / "build.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    before = path.read_bytes()
    refused(run(tmp_path, "build", str(path)), says)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*.aotpack"))


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    text, says = PROFILES[name]
    path = tmp_path / "me.json"
    path.write_bytes(text)
    package = honest().write(tmp_path / "x.aotpack")
    refused(run(tmp_path, "select", str(package), "--machine", str(path)), says)


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
@pytest.mark.parametrize("verb", ["build", "select"])
def test_what_is_no_file_is_neither_waited_for_nor_read(
    verb: str, make: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / ("x.toml" if verb == "build" else "x.json")
    make(path)
    package = honest().write(tmp_path / "x.aotpack")
    arguments = ["build", str(path)] if verb == "build" else ["select", str(package), "--machine", str(path)]
    refused(run(tmp_path, *arguments), "is not a file; expected a (build file|machine profile)")


@pytest.mark.parametrize("saying", SAYINGS, ids=ascii)
def test_what_a_package_says_commands_no_terminal(saying: str, tmp_path: Path) -> None:
    forged = honest()
    forged.manifest |= {"version": saying, "license": saying}
    component = forged.manifest["components"][0]
    component["source"]["opsets"] = {saying: 1}
    component["inputs"] = [{"name": saying, "dtype": saying, "shape": [saying, 1]}]
    forged.variant.update(
        {
            "ep": saying,
            "built_with": {saying: saying},
            "compatibility": {
                "ep_string": saying,
                "requires": {"arch": saying, "isa": [saying], "ep": saying},
            },
            "coverage": {"nodes": 2, "compiled": 1, "partitions": 1, "left_on_cpu": {saying: 1}},
            "numerics": {"max_abs": 0.0, "error": 0.0, "tolerance": 0.0, "ran_on": saying},
        }
    )
    package = forged.write(tmp_path / "said.aotpack")
    other = honest().write(tmp_path / "other.aotpack")
    for arguments in (
        ("inspect", package),
        ("select", package, "--compared", "--machine", "avx2-desktop"),
        ("coverage", package),
        ("diff", package, other),
        ("verify", package),
    ):
        for json_too in ((), ("--json",)):
            ended = run(tmp_path, *map(str, arguments), *json_too)
            assert ended.status in (0, 1, 3), ended.err
            assert "Traceback" not in ended.err
            assert not _OBEYED.search(ended.out + ended.err), arguments
            if json_too and ended.status == 0:
                said = json.loads(ended.out)
                if arguments[0] == "inspect":
                    assert said["version"] == saying, "JSON says the same, escaped"
            elif arguments[0] == "inspect" and saying.startswith(":boom:"):
                assert ":boom: [red]markup[/red] <script>" in ended.out


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_environment_variable_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    variable, value, says = ENVIRONMENTS[name]
    package = honest().write(tmp_path / "x.aotpack")
    verb = "cache" if variable == "AOTPACK_CACHE_LIMIT" else "run"
    arguments = ["cache", "prune"] if verb == "cache" else ["run", str(package)]
    env = {"AOTPACK_CACHE": str(tmp_path / "cache"), variable: value}
    refused(run(tmp_path, *arguments, env=env), says)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("verb", ["inspect", "verify", "select", "build"])
def test_a_name_on_the_command_line_is_told_in_one_line(verb: str, name: str, tmp_path: Path) -> None:
    suffix = ".onnx" if verb == "build" else ".aotpack"
    more = ("-o", str(tmp_path / "o.aotpack"), "-t", "ort-cpu") if verb == "build" else ()
    refused(run(tmp_path, verb, str(tmp_path / f"{name}{suffix}"), *more), "such|too long|name")
