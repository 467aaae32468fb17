"""Arguments and options that several verbs have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "AsJson",
    "Block",
    "Check",
    "ComponentName",
    "CustomOps",
    "Emulate",
    "Force",
    "Inputs",
    "KvHeads",
    "Lowering",
    "MaskedRows",
    "NewPackage",
    "OneComponent",
    "PackagePath",
    "Tolerance",
]

#: The package that a verb works on.
PackagePath = Annotated[Path, typer.Argument(metavar="PACKAGE", help="An .aotpack file.", show_default=False)]
#: The package that a verb writes.
NewPackage = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE", help="The package to write.", show_default=False)
]
#: ``--force``.
Force = Annotated[bool, typer.Option("--force", help="Replace an output that is not a package, too.")]
#: ``--json``. Every verb that prints a result has it.
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON (schemas/) instead of text.")]
#: ``--component``.
ComponentName = Annotated[
    str | None,
    typer.Option("--component", metavar="NAME", help="By default the first one.", show_default=False),
]
#: ``--custom-ops``.
CustomOps = Annotated[
    list[Path] | None,
    typer.Option(
        "--custom-ops",
        metavar="LIBRARY",
        help="A library of the model's custom operators; can be repeated.",
        show_default=False,
    ),
]
#: ``--inputs``.
Inputs = Annotated[
    list[Path] | None,
    typer.Option(
        "--inputs",
        metavar="FILE.npz|DIR",
        help="Inputs to compare on; by default made up.",
        show_default=False,
    ),
]
#: ``--tolerance``.
Tolerance = Annotated[
    list[str] | None,
    typer.Option(
        "--tolerance",
        metavar="[OUTPUT=]VALUE",
        help="Largest error, of all or one output.",
        show_default="by precision",
    ),
]
#: ``--check`` of verbs that compile.
Check = Annotated[bool, typer.Option("--check/--no-check", help="Run variants and compare their numbers.")]
#: ``--masked-rows`` of FlexAttention.
MaskedRows = Annotated[
    str | None,
    typer.Option(
        metavar="VALUE", help="FlexAttention: nan or zeros where no key is seen.", show_default="nan"
    ),
]
#: ``--lowering`` of FlexAttention.
Lowering = Annotated[
    list[str] | None,
    typer.Option(metavar="[TARGET=]NAME", help="FlexAttention: function, dense, block-sparse or fused."),
]
#: ``--block`` of FlexAttention.
Block = Annotated[
    list[str] | None,
    typer.Option(metavar="[TARGET=]Q,K", help="FlexAttention: queries and keys a block."),
]
#: ``--kv-heads`` of FlexAttention.
KvHeads = Annotated[
    list[str] | None,
    typer.Option(metavar="[TARGET=]N", help="FlexAttention: heads of K and V a tile."),
]
#: ``--component`` of verbs that show all of them.
OneComponent = Annotated[
    str | None,
    typer.Option("--component", metavar="NAME", help="Only this one; by default all.", show_default=False),
]
#: ``--emulate``.
Emulate = Annotated[bool, typer.Option("--emulate", help="Take a vendor's emulator for its device.")]
