"""The command line: one file a verb, each thin: parse, call, render."""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module

import typer

from aotpack.cli import output
from aotpack.errors import AotpackError

__all__ = ["app", "main"]

#: The typer application that `main` runs.
app = typer.Typer(
    name="aotpack",
    help="Packages of ahead-of-time compiled ONNX models: build for many targets, load what fits.",
    no_args_is_help=True,
    add_completion=False,
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

for _verb in _VERBS:
    _found = getattr(import_module(f"aotpack.cli.{_verb}"), _verb)
    if isinstance(_found, typer.Typer):
        app.add_typer(_found, name=_verb)
    else:
        app.command(_verb)(_found)


@app.callback()
def _common(
    verbose: int = typer.Option(0, "--verbose", "-v", count=True, help="Say more; twice: everything."),
) -> None:
    level = (logging.ERROR, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, format="%(name)s: %(message)s", stream=sys.stderr)


def main() -> None:
    """Run the command line. Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    # Vendors' libraries print to the standard output as they like; what is ours goes to the real one.
    output.keep_stdout_to_ourselves()
    try:
        app()
        status = 0
    except SystemExit as stop:
        # Help, and what typer itself found wrong with the arguments. It makes an exit of a Ctrl-C, too.
        status = stop.code if isinstance(stop.code, int) else 1
        _say_if_interrupted(stop)
    except KeyboardInterrupt as interrupt:
        _say_if_interrupted(interrupt)
        status = 130
    except AotpackError as error:
        output.note(f"error: {error}")
        status = error.exit_status
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        status = 0
    _leave(status)


def _say_if_interrupted(error: BaseException | None) -> None:
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    if error is not None:
        output.note(": ".join(["interrupted", *map(str, error.args)]))


def _leave(status: int) -> None:
    sys.stderr.flush()
    try:
        output.flush()
    except BrokenPipeError:
        status = 0
    # Some vendors' libraries abort when the interpreter tears them down; our work is done.
    os._exit(status)
