"""Commands that are forked end as those that are started."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.command_line import ROOT, aotpack, environment, finish, start
from tests.command_server import CommandServer, forks_alike
from tests.conftest import BuiltPackage


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["buidl"],
        ["inspect", "vad.aotpack"],
        ["select", "vad.aotpack", "--json"],
        ["verify", "none.aotpack"],
        ["cache", "list", "--json"],
    ],
    ids=" ".join,
)
def test_a_forked_command_ends_as_one_that_is_started(
    arguments: list[str], vad: BuiltPackage, tmp_path: Path
) -> None:
    env = {"AOTPACK_CACHE": str(tmp_path / "cache"), "COLUMNS": "80"}
    folder = vad.path.parent
    assert aotpack(*arguments, env=env, cwd=folder) == finish(start(*arguments, env=env, cwd=folder))


def test_what_the_interpreter_reads_when_it_starts_is_not_forked() -> None:
    own = environment({})
    assert forks_alike(own, environment({"AOTPACK_VARIANT": "portable"}))
    assert not forks_alike(own, environment({"PYTHONOPTIMIZE": "1"}))
    assert not forks_alike(own, environment({"LC_ALL": "C.UTF-8.other"}))


def test_one_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    server = CommandServer(environment({}), ROOT)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            server.run(["inspect", "x.aotpack"], environment({}), tmp_path, timeout=0.0)
        status, out, _ = server.run(["--version"], environment({}), tmp_path, timeout=60)
    finally:
        server.close()
    assert (status, out[:7]) == (0, b"aotpack")
