"""The command line: one file a verb, each thin: parse, call, render.

The examples in the docstring of a verb's module are those that its ``--help`` ends with.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from importlib import import_module
from typing import Any, TypeVar

import typer
from typer.core import TyperGroup

from aotpack._text import printable
from aotpack.cli import output
from aotpack.errors import AotpackError
from aotpack.version import VERSION

__all__ = ["app", "main"]

_Error = TypeVar("_Error", bound=BaseException)

#: The verbs with their summaries, in the order of ``aotpack --help``. Each is a module here with a function,
#: or a group of verbs, of that name. The summaries are those that the verbs have themselves
#: (tests/cli/test_help.py): no verb is imported before it is called.
_VERBS = {
    "build": "Compile a model, or what a build file says, for each target.",
    "init": "Write a build file for a model, with sizes that it runs with.",
    "add": "Compile a package's portable ONNX for more targets.",
    "inspect": "Show what is in a package; only its manifest is read.",
    "select": "Show every variant's verdict on a machine, the winner first.",
    "coverage": "Show what each machine of a fleet gets, and what would help.",
    "check": "Run variants on this machine, and compare their numbers.",
    "tune": "Measure every variant that fits here, for `select --measured`.",
    "run": "Load the best variant of each component, and run it.",
    "verify": "Check every byte of a package against its digest.",
    "extract": "Write the files of one variant into a folder, checked.",
    "merge": "Make one package of several, and add what machines found.",
    "prune": "Write a package with those variants of another that you need.",
    "diff": "Show how two packages differ: targets, strings, sizes, bytes.",
    "flex": "FlexAttention: packages of one attention, and pictures of masks.",
    "doctor": "Say which variants the installed runtimes are too new for.",
    "refresh": "Compile the stale variants of a package anew (`aotpack doctor`).",
    "cache": "List, prune or verify the local cache of loaded variants.",
    "targets": "List the targets, and which can be compiled and run here.",
    "machine": "Print the profile of this computer, or of a machine by name.",
}


class _Verbs(TyperGroup):
    """The verbs, each imported when it is called or completed."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in _VERBS:
            return None
        if cmd_name not in self.commands:
            self.commands[cmd_name] = _command(cmd_name)
        return self.commands[cmd_name]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_VERBS.items()))


def _command(verb: str) -> Any:
    """Import a verb."""
    module = import_module(f"aotpack.cli.{verb}")
    found = getattr(module, verb)
    parent = typer.Typer(rich_markup_mode=None)
    if isinstance(found, typer.Typer):
        for command in found.registered_commands:
            name = command.name or getattr(command.callback, "__name__", "")
            command.epilog = _examples(module.__doc__, f"{verb} {name}")
        parent.add_typer(found, name=verb, epilog=_examples(module.__doc__, verb))
    else:
        parent.command(verb, epilog=_examples(module.__doc__, verb))(found)
    return typer.main.get_group(parent).commands[verb]


def _examples(docstring: str | None, command: str) -> str | None:
    """The lines of a module's docstring that show `command`, as the end of what ``--help`` says."""
    lines = [line.strip() for line in (docstring or "").splitlines()]
    shown = [line for line in lines if line.startswith(f"aotpack {command}")]
    # \b keeps lines from being filled.
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in shown)]) if shown else None


#: The typer application that `main` runs.
app = typer.Typer(
    cls=_Verbs,
    name="aotpack",
    help="Packages of ahead-of-time compiled ONNX models: build for many targets, load what fits.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _Printable(logging.Formatter):
    """Log lines that hold what packages and vendors' libraries say."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _say_version(asked: bool) -> None:
    if asked:
        output.print_text(f"aotpack {VERSION}")
        raise typer.Exit


@app.callback()
def _common(
    verbose: int = typer.Option(
        0, "--verbose", "-v", count=True, show_default=False, help="Say more; twice: everything."
    ),
    version: bool = typer.Option(
        False, "--version", callback=_say_version, is_eager=True, help="Say which release this is."
    ),
) -> None:
    level = (logging.ERROR, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable("%(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


def main() -> None:
    """Run the command line.

    Exit status: 0 done, 1 failed, 2 wrong usage, 3 the answer of a check is no, 130 interrupted.
    """
    # Vendors' libraries print to the standard output as they like; what is ours goes to the real one.
    output.keep_stdout_to_ourselves()
    try:
        app(prog_name="aotpack")
        status = 0
    except BaseException as error:
        status = _told(error)
    _leave(status)


def _told(error: BaseException) -> int:
    """Say what ended a verb, in one line; give the exit status.

    typer makes an exit of a Ctrl-C and rich of a pipe that was closed, so where an exit came from counts.
    """
    if (interrupt := _cause(error, KeyboardInterrupt)) is not None:
        output.note(": ".join(["interrupted", *map(str, interrupt.args)]))
        return 130
    is_unread = _cause(error, BrokenPipeError) is not None
    failure = _cause(error, AotpackError) if is_unread else error
    if isinstance(failure, AotpackError):
        output.note(f"error: {failure}")
        return failure.exit_status
    if is_unread:
        # Whoever read our output has seen enough.
        return 0
    if isinstance(error, SystemExit):
        # Help, and what typer itself found wrong with the arguments.
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, OSError):
        # Nothing of ours knows more of it: a full disk behind the standard output, say.
        what = error.strerror or str(error)
        output.note(f"error: {what}" if error.filename is None else f"error: {error.filename}: {what}")
        return 1
    raise error


def _cause(error: BaseException | None, kind: type[_Error]) -> _Error | None:
    """The error of that kind which `error` is or came from."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error


def _leave(status: int) -> None:
    try:
        output.flush()
    except OSError as error:
        if status == 0:
            status = _told(error)
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    # Some vendors' libraries abort when the interpreter tears them down; our work is done.
    os._exit(status)
