"""The command line: one file a verb, each thin: parse, call, render.

The examples in the docstring of a verb's module are those that its ``--help`` ends with.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from importlib import import_module
from typing import TypeVar

import typer

from aotpack._text import printable
from aotpack.cli import output
from aotpack.errors import AotpackError
from aotpack.version import VERSION

__all__ = ["app", "main"]

_Error = TypeVar("_Error", bound=BaseException)

#: The typer application that `main` runs.
app = typer.Typer(
    name="aotpack",
    help="Packages of ahead-of-time compiled ONNX models: build for many targets, load what fits.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

#: In the order of ``aotpack --help``. Each module has a function, or a group of verbs, of the verb's name.
_VERBS = (
    "build",
    "init",
    "add",
    "inspect",
    "select",
    "coverage",
    "tune",
    "run",
    "verify",
    "extract",
    "merge",
    "prune",
    "diff",
    "flex",
    "doctor",
    "refresh",
    "cache",
    "targets",
    "machine",
)


def _examples(docstring: str | None, command: str) -> str | None:
    """The lines of a module's docstring that show `command`, as the end of what ``--help`` says."""
    lines = [line.strip() for line in (docstring or "").splitlines()]
    shown = [line for line in lines if line.startswith(f"aotpack {command}")]
    # \b keeps lines from being filled.
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in shown)]) if shown else None


for _verb in _VERBS:
    _module = import_module(f"aotpack.cli.{_verb}")
    _found = getattr(_module, _verb)
    if isinstance(_found, typer.Typer):
        for _command in _found.registered_commands:
            _name = _command.name or getattr(_command.callback, "__name__", "")
            _command.epilog = _examples(_module.__doc__, f"{_verb} {_name}")
        app.add_typer(_found, name=_verb, epilog=_examples(_module.__doc__, _verb))
    else:
        app.command(_verb, epilog=_examples(_module.__doc__, _verb))(_found)


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
    """Run the command line. Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
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
