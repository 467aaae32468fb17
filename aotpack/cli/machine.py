"""``aotpack machine``.

::

    aotpack machine > me.json
    aotpack machine rtx-40
    aotpack machine --list
"""

from __future__ import annotations

from typing import Annotated

import typer

from aotpack.cli import output
from aotpack.errors import UsageError

__all__ = ["machine"]


def machine(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="A machine of --list; by default this computer.", show_default=False
        ),
    ] = None,
    names: Annotated[bool, typer.Option("--list", help="List the machines that are known by name.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The list too; a profile always is.")] = False,
) -> None:
    """Print the profile of this computer, or of a machine by name."""
    from aotpack.documents.verbs import MachinesDocument
    from aotpack.machine.profile import find_machine, known
    from aotpack.runtime.probing import probe

    if names and name is not None:
        raise UsageError("--list takes no name", where="aotpack machine", found=name)
    if names and as_json:
        output.print_json(MachinesDocument(machines=known()))
        return
    if names:
        for each in known():
            output.print_text(each)
        return
    output.print_json(probe() if name is None else find_machine(name))
