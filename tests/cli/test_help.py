"""What `--help` says fits the terminal, and every verb has its line."""

from __future__ import annotations

import pytest

from tests.command_line import aotpack

NARROW = {"COLUMNS": "80", "TERM": "dumb"}


def verbs(*group: str) -> list[str]:
    lines = aotpack(*group, "--help", env=NARROW).out.split("Commands:\n")[1].splitlines()
    return [line.split()[0] for line in lines if line.strip()]


def test_no_summary_of_a_verb_is_cut() -> None:
    out = aotpack("--help", env=NARROW).out
    assert len(verbs()) >= 19
    assert "..." not in out.split("Commands:\n")[1]
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("verb", verbs())
def test_the_help_of_a_verb_fits_the_terminal(verb: str) -> None:
    done = aotpack(verb, "--help", env=NARROW)
    assert done.status == 0
    assert max(map(len, done.out.splitlines())) <= 80
