"""What `--help` says fits the terminal, every verb has its line, and its examples are right."""

from __future__ import annotations

import shlex

import pytest
import typer

from aotpack.cli import app
from aotpack.version import VERSION
from tests.command_line import aotpack

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


def test_the_release_is_said() -> None:
    assert aotpack("--version").out == f"aotpack {VERSION}\n"


def test_a_shell_completes_verbs_and_options() -> None:
    verb = {"COMP_WORDS": "aotpack insp", "COMP_CWORD": "1", "_AOTPACK_COMPLETE": "complete_bash"}
    assert aotpack(env=verb).out.split() == ["inspect"]
    option = verb | {"COMP_WORDS": "aotpack select --mach", "COMP_CWORD": "2"}
    assert aotpack(env=option).out.split() == ["--machine"]
