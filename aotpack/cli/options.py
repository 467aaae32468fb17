"""Arguments and options that several verbs have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from aotpack.errors import UsageError

__all__ = ["AsJson", "ComponentName", "Emulate", "NewPackage", "PackagePath", "parse_size"]

#: The package that a verb works on.
PackagePath = Annotated[Path, typer.Argument(metavar="PACKAGE", help="An .aotpack file.", show_default=False)]
#: The package that a verb writes.
NewPackage = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE", help="The package to write.", show_default=False)
]
#: ``--json``. Every verb that prints a result has it.
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON (schemas/) instead of text.")]
#: ``--component``.
ComponentName = Annotated[
    str | None,
    typer.Option("--component", metavar="NAME", help="By default the first one.", show_default=False),
]
#: ``--emulate``.
Emulate = Annotated[bool, typer.Option("--emulate", help="Take a vendor's emulator for its device.")]

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def parse_size(text: str, option: str) -> int:
    """Bytes of ``500M``, ``2GiB`` or ``1000000``.

    Raises:
        UsageError: it is no size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]i?)?b?", text.strip().lower())
    if match is None:
        raise UsageError("is not a size", where=f"{option} {text}", expected="such as 500M or 2GiB")
    return int(float(match[1]) * _UNITS[match[2] or ""])
