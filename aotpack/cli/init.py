"""``aotpack init``.

::

    aotpack init model.onnx
    aotpack init model.onnx -o vad.toml
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aotpack.cli import output
from aotpack.cli.options import CustomOps
from aotpack.common.sizes import parse_size
from aotpack.files.scratch import scratch_folder

__all__ = ["init"]


def init(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX model.", show_default=False)],
    out: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The build file to write.")
    ] = Path("aotpack.toml"),
    time_limit: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="For all attempts to run it.", show_default="30"),
    ] = None,
    memory_limit: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="For each attempt.", show_default="4G and more for large ones"),
    ] = None,
    custom_ops: CustomOps = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a build file for a model, with sizes that it runs with."""
    from aotpack.builder.build import package_name, refuse_input
    from aotpack.builder.draft import draft
    from aotpack.builder.guess import guess_inputs
    from aotpack.builder.jobs.libraries import check_loadable
    from aotpack.builder.jobs.supervise import Workers
    from aotpack.builder.spec import Limits
    from aotpack.errors import OutputError
    from aotpack.runtime.probing import probe
    from aotpack.selection.custom_ops import checked_libraries
    from aotpack.targets.catalogue import catalogue
    from aotpack.toolchains import toolchains

    refuse_input(out, [model])
    libraries = checked_libraries(custom_ops or (), where="--custom-ops")
    memory = None if memory_limit is None else parse_size(memory_limit, "--memory-limit")
    limits = Limits(seconds=30.0 if time_limit is None else time_limit, memory=memory)
    machine, known = probe(), toolchains()
    extra = [target for toolchain in known.values() for target in toolchain.targets()]
    usable = [
        target
        for target in catalogue(extra).values()
        # Whoever wants a single chip of a generation names it.
        if target.generation is None and known[target.toolchain].why_not_compile(target, machine) is None
    ]
    with scratch_folder("init") as scratch, Workers() as workers:
        check_loadable(libraries, workers)
        guess = guess_inputs(model, scratch, workers, limits, libraries)
    text = draft(
        model,
        guess,
        name=package_name(model),
        folder=out.parent,
        targets=usable,
        custom_ops=libraries,
    )
    try:
        with out.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise OutputError("is there already", where=out, hint="--force writes over it") from None
    except OSError as error:
        raise OutputError(error.strerror or str(error), where=out) from None
    output.note(f"{out}: {len(usable)} targets; build it with `aotpack build {out}`")
