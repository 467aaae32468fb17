"""Where the command line prints, whatever its streams are: closed, full, narrow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import aotpack, environment
from tests.conftest import BuiltPackage


def in_a_shell(arguments: str, *, path: tuple[Path, ...] = ()) -> subprocess.CompletedProcess[str]:
    """What ``aotpack ARGUMENTS`` does, with its status at the end of the standard error."""
    line = f'{sys.executable} -m aotpack {arguments}; echo "= ${{PIPESTATUS[0]}}" >&2'
    return subprocess.run(
        ["bash", "-c", line], env=environment({}, path), capture_output=True, text=True, check=False
    )


def test_a_pipe_that_closes_early_is_no_failure(vad: BuiltPackage) -> None:
    assert in_a_shell(f"inspect {vad.path} | true").stderr == "= 0\n"


def test_a_failure_stays_one_when_nobody_reads_it(small_model: Path, tmp_path: Path) -> None:
    build = f"build {small_model} -o {tmp_path}/m.aotpack -t migraphx"
    assert in_a_shell(f"{build} | true").stderr.endswith("= 1\n")
    assert in_a_shell(f"{build} 2>&1 | true").stderr == "= 1\n"


@pytest.mark.parametrize("how", ["", "--json"])
def test_a_full_disk_behind_the_output_is_one_line(vad: BuiltPackage, how: str) -> None:
    done = in_a_shell(f"inspect {vad.path} {how} > /dev/full")
    assert done.stderr == "error: No space left on device\n= 1\n"


def test_closed_streams_take_nothing_and_break_nothing(vad: BuiltPackage, tmp_path: Path) -> None:
    assert in_a_shell(f"run {vad.path} --runs 1 >&-").stderr.endswith("= 0\n")
    assert in_a_shell(f"inspect {tmp_path}/none >&-").stderr.splitlines()[1:] == ["= 1"]
    silent = in_a_shell(f"inspect {tmp_path}/none 2>&-")
    assert (silent.stdout, silent.stderr) == ("", "= 1\n")
    assert in_a_shell(f"verify {vad.path} <&- >&- 2>&-").stderr == "= 0\n"


@pytest.mark.parametrize("columns", ["", "0", "abc", "-5"])
def test_a_width_that_is_none_is_80_columns(vad: BuiltPackage, columns: str) -> None:
    out = aotpack("select", vad.path, "--devices", "cpu", env={"COLUMNS": columns}).out
    assert out == aotpack("select", vad.path, "--devices", "cpu", env={"COLUMNS": "80"}).out


def test_no_word_becomes_a_column_of_letters(vad: BuiltPackage) -> None:
    out = aotpack("inspect", vad.path, env={"COLUMNS": "10"}).out
    assert any(line.startswith("portable-") and "host" in line for line in out.splitlines())


def test_an_interrupt_while_modules_are_imported_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    assert in_a_shell("targets", path=(tmp_path,)).stderr == "interrupted\n= 130\n"
