"""What is printed, and where: results to the standard output, all else to the standard error.

Tables fit 80 columns when nobody says how wide the terminal is.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import IO, TYPE_CHECKING

from aotpack._text import json_printable, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from rich.console import Console, RenderableType

    from aotpack.common.values import Value

__all__ = [
    "component",
    "console",
    "entries",
    "flush",
    "keep_stdout_to_ourselves",
    "note",
    "paragraph",
    "print_json",
    "print_text",
    "print_written",
    "progress",
    "size",
    "stderr_console",
    "table",
]

_stdout: IO[str] = sys.stdout

#: Columns. In fewer, words stand as columns of letters: a terminal's own breaks are easier to read.
_NARROWEST_TABLE = 60
_NARROWEST_TEXT = 20


def keep_stdout_to_ourselves() -> None:
    """Send whatever native code writes to descriptor 1 to the standard error; ours keeps a copy of it."""
    global _stdout
    _open_closed_streams()
    sys.stdout.flush()
    sys.stdout = _stdout = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    os.dup2(2, 1)


def _open_closed_streams() -> None:
    # The next file to be opened would otherwise take a closed one's place, and get what is printed.
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.dup(descriptor), "w", encoding="utf-8"))


def flush() -> None:
    """Write out what is buffered."""
    _stdout.flush()


def print_json(value: Value) -> None:
    """One JSON document, and nothing else. What a terminal would obey stands as JSON's escapes."""
    _stdout.write(json_printable(value.to_json(indent=2)) + "\n")


def print_text(text: str) -> None:
    """A line of a result."""
    _stdout.write(printable(text) + "\n")


def print_written(package: Path, as_json: bool) -> None:
    """Say what was written: the package's manifest as JSON, or a line."""
    from aotpack.runtime.package import open_package

    with open_package(package) as opened:
        if as_json:
            print_json(opened.manifest)
            return
        count = sum(1 for _ in opened.manifest.variants())
    print_text(
        f"{package}: {count} {'variant' if count == 1 else 'variants'}, {size(package.stat().st_size)}"
    )


def note(text: str) -> None:
    """A line for the user that is no result."""
    # Who closed the standard error does not want to know, and a build is not to fail for it.
    with contextlib.suppress(OSError):
        print(printable(text), file=sys.stderr)  # noqa: T201


def console() -> Console:
    """For results."""
    return _console(_stdout)


def stderr_console() -> Console:
    """For progress."""
    return _console(sys.stderr)


def _console(file: IO[str], narrowest: int = _NARROWEST_TEXT) -> Console:
    from rich.console import Console

    width = None if file.isatty() else _width()
    made = Console(file=file, highlight=False, markup=False, emoji=False, width=width)
    if made.width < narrowest:
        made.width = narrowest
    return made


@contextlib.contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on the terminal for what reports (bytes done, bytes in all); None where nobody watches."""
    if not sys.stderr.isatty():
        yield None
        return

    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=stderr_console(), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def table(
    columns: Sequence[str], rows: Iterable[Sequence[RenderableType]], *, right: Sequence[str] = ()
) -> None:
    """A table of results. Numbers stay on one line, words are folded where there is no room.

    Args:
        columns: the headings; the last one takes the room that is left.
        rows: as many cells each.
        right: headings of columns of numbers.
    """
    from rich import box
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=False, show_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        number = column in right
        drawn.add_column(column, justify="right" if number else "left", overflow="fold", no_wrap=number)
    for row in rows:
        drawn.add_row(*(printable(cell) if isinstance(cell, str) else cell for cell in row))
    _console(_stdout, _NARROWEST_TABLE).print(drawn)


@contextlib.contextmanager
def component(name: str, among: Sequence[str]) -> Iterator[None]:
    """A heading for what is printed about a component, where there are several, and a line after it.

    Args:
        name: of the component.
        among: the names of all that are printed about, in order.
    """
    if len(among) > 1:
        print_text(f"component {name}")
    yield
    if name != among[-1]:
        print_text("")


def entries(items: Sequence[tuple[Sequence[str], Sequence[str]]]) -> None:
    """Entries of one aligned line each, with sentences below it that have the whole width.

    Args:
        items: the cells of the line, the first of them a mark; and the sentences.
    """
    widths = [max(map(len, column)) for column in zip(*(cells for cells, _ in items), strict=True)]
    indent = " " * (widths[0] + 2) if widths else ""
    for cells, sentences in items:
        line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        print_text(line.rstrip())
        for sentence in sentences:
            paragraph(sentence, indent, indent)


def paragraph(text: str, first: str = "", others: str = "  ") -> None:
    """A text in as many lines as it takes, the first and the others after these indents."""
    import textwrap

    print_text(
        textwrap.fill(
            text,
            console().width,
            initial_indent=first,
            subsequent_indent=others,
            break_on_hyphens=False,
        )
    )


def size(count: int) -> str:
    """Bytes for people, in powers of 1,000 as file managers do."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError("unreachable")


def _width() -> int:
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() and 0 < len(columns) < 5 and int(columns) else 80
