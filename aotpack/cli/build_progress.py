"""What a build is doing, on the standard error: a live display on a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from aotpack.cli import output

if TYPE_CHECKING:
    from contextlib import ExitStack

    from rich.progress import TaskID

    from aotpack.builder.schedule import Event
    from aotpack.builder.variant import Built

__all__ = ["build_progress"]


def build_progress(stack: ExitStack) -> Event:
    """Show the events of a build until `stack` is closed."""
    if not sys.stderr.isatty():
        return _lines

    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = output.stderr_console()
    progress = stack.enter_context(
        Progress(
            SpinnerColumn("line" if console.options.ascii_only else "dots"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
    )
    # How many are left is known before the first one begins.
    whole = progress.add_task("", total=0, visible=False)
    waiting: set[tuple[str, str]] = set()
    # A target that is compiled for several shapes has several.
    tasks: dict[tuple[str, str], list[TaskID]] = {}

    def live(what: str, component: str, target: str, built: Built | None) -> None:
        key = component, target
        if what == "wait":
            waiting.add(key)
            progress.update(whole, total=len(waiting), visible=True)
        elif built is not None:
            if tasks.get(key):
                progress.remove_task(tasks[key].pop())
            if key in waiting:
                progress.advance(whole)
            progress.console.print(_line(what, component, target, built))
        elif what == "referred":
            progress.remove_task(tasks[key].pop())
        else:
            task = progress.add_task(_line(what, component, target, built), total=None)
            tasks.setdefault(key, []).append(task)
        done = int(progress.tasks[0].completed)
        progress.update(whole, description=f"{done} of {len(waiting)} done", refresh=True)

    return live


def _lines(what: str, component: str, target: str, built: Built | None) -> None:
    if what not in ("wait", "start", "referred"):
        output.note(_line(what, component, target, built))


def _line(what: str, component: str, target: str, built: Built | None) -> str:
    if built is not None:
        row = built.row
        mark = "FAILED" if row.state == "failed" else "kept" if row.cached else "built"
        return f"{mark:<6} {component}/{target} ({row.seconds:.1f} s)"
    return {
        "reference": f"running {component} as it is, for the numbers of the others",
        "start": f"compiling {component}/{target}",
        "pack": "packing",
    }[what]
