"""What `--help` says fits the terminal, every verb has its line, and its examples are right."""

from __future__ import annotations

import shlex
import subprocess
import sys
from typing import Any

import pytest
import typer

from aotpack.cli import _VERBS, app
from aotpack.version import VERSION
from tests.command_line import aotpack, environment

NARROW = {"COLUMNS": "80", "TERM": "dumb"}
GROUPS = ("cache", "flex")


def verbs(*group: str) -> list[str]:
    listed = aotpack(*group, "--help", env=NARROW).out.split("Commands:\n")[1].split("\n\n")[0]
    return [line.split()[0] for line in listed.splitlines() if line.strip()]


COMMANDS = [*((verb,) for verb in verbs()), *((group, verb) for group in GROUPS for verb in verbs(group))]


@pytest.mark.parametrize("group", [(), *((name,) for name in GROUPS)], ids=" ".join)
def test_no_summary_of_a_verb_is_cut(group: tuple[str, ...]) -> None:
    out = aotpack(*group, "--help", env=NARROW).out
    assert len(verbs(*group)) >= (2 if group else 19)
    assert "..." not in out.split("Commands:\n")[1]
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_help_of_a_verb_fits_the_terminal_and_shows_what_can_be_typed(command: tuple[str, ...]) -> None:
    done = aotpack(*command, "--help", env=NARROW)
    assert done.status == 0
    assert max(map(len, done.out.splitlines())) <= 80
    for example in done.out.split("Examples:\n")[1].splitlines():
        words = shlex.split(example.split(">")[0])
        assert words[: 1 + len(command)] == ["aotpack", *command]
        parse(words)


def parse(words: list[str]) -> None:
    """Raise what is wrong with the names of verbs and options, or missing."""
    command, context = typer.main.get_command(app), None
    while words:
        context = command.make_context(words[0], words[1:], parent=context)
        if not hasattr(command, "resolve_command"):
            return
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        words = [name, *rest]


def test_summaries_are_those_of_the_verbs() -> None:
    """They stand in a table, so that no verb has to be imported to list them."""
    group: Any = typer.main.get_command(app)
    context = typer.Context(group)
    for verb, summary in _VERBS.items():
        command = group.get_command(context, verb)
        assert command.help.split("\n")[0] == summary, verb


#: Runs the command line, and prints all modules that it has loaded when it ends.
_TELL_MODULES = """
import atexit, os, runpy, sys
leave = os._exit
def tell(status=None):
    print(*sorted(sys.modules), file=sys.stderr)
    leave(status or 0)
os._exit = tell
atexit.register(tell)
runpy.run_module("aotpack", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_no_verb(option: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _TELL_MODULES, option],
        env=environment({}),
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stderr.split())
    assert not loaded & {f"aotpack.cli.{verb}" for verb in _VERBS}
    assert not loaded & {"pydantic", "onnx", "onnxruntime", "numpy", "rich"}
    assert ("typer" in loaded) == (option == "--help")


def test_the_release_is_said() -> None:
    assert aotpack("--version").out == f"aotpack {VERSION}\n"


def test_a_shell_completes_verbs_and_options() -> None:
    verb = {"COMP_WORDS": "aotpack insp", "COMP_CWORD": "1", "_AOTPACK_COMPLETE": "complete_bash"}
    assert aotpack(env=verb).out.split() == ["inspect"]
    option = verb | {"COMP_WORDS": "aotpack select --mach", "COMP_CWORD": "2"}
    assert aotpack(env=option).out.split() == ["--machine"]
