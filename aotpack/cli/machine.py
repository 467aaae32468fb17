"""``aotpack machine``."""

from __future__ import annotations

from typing import Annotated

import typer

from aotpack.cli import output

__all__ = ["machine"]


def machine(
    as_json: Annotated[bool, typer.Option("--json", help="The default: a profile is JSON.")] = False,
) -> None:
    """Print what this computer has, as a machine profile."""
    from aotpack.machine import probe

    output.print_json(probe())
