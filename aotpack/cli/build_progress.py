"""What a build is doing, on the standard error: a live display on a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from aotpack.cli import output
from aotpack.runtime.events import Event, EventCode, OnEvent

if TYPE_CHECKING:
    from contextlib import ExitStack

    from rich.progress import TaskID


__all__ = ["build_progress"]


def build_progress(stack: ExitStack) -> OnEvent:
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
    waiting: set[tuple[str | None, str | None]] = set()
    # A target that is compiled for several shapes has several.
    tasks: dict[tuple[str | None, str | None], list[TaskID]] = {}

    def live(event: Event) -> None:
        key = event.component, event.target
        if event.code is EventCode.QUEUED:
            waiting.add(key)
            progress.update(whole, total=len(waiting), visible=True)
        elif event.row is not None:
            if tasks.get(key):
                progress.remove_task(tasks[key].pop())
            if key in waiting:
                progress.advance(whole)
            progress.console.print(_line(event))
        elif event.code is EventCode.REFERENCE_DONE:
            progress.remove_task(tasks[key].pop())
        else:
            tasks.setdefault(key, []).append(progress.add_task(_line(event), total=None))
        done = int(progress.tasks[0].completed)
        progress.update(whole, description=f"{done} of {len(waiting)} done", refresh=True)

    return live


def _lines(event: Event) -> None:
    if event.code not in (EventCode.QUEUED, EventCode.COMPILING, EventCode.REFERENCE_DONE):
        output.note(_line(event))


def _line(event: Event) -> str:
    row = event.row
    if row is not None:
        mark = "FAILED" if row.state == "failed" else "kept" if row.cached else "built"
        steps = [
            f"{what} {seconds:.1f} s"
            for what, seconds in (("compile", row.compile_seconds), ("check", row.check_seconds))
            if seconds
        ]
        times = f": {', '.join(steps)}" if steps and not row.cached else ""
        return f"{mark:<6} {event.component}/{event.target} ({row.seconds:.1f} s){times}"
    return {
        EventCode.REFERENCE: f"running {event.component} as it is, for the numbers of the others",
        EventCode.COMPILING: f"compiling {event.component}/{event.target}",
        EventCode.PACKING: "packing",
    }[event.code]
