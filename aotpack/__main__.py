"""``aotpack`` and ``python -m aotpack``."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def _drop_current_folder() -> None:
    """Import nothing from the current folder, which ``python -m`` puts in front of all others.

    A cloned model repository may hold a ``numpy.py``. The folder stays where aotpack itself is imported from
    it, as in a checkout.
    """
    # With os alone, which is imported by now: any other module could be one of that folder.
    if not sys.flags.safe_path and os.path.realpath(sys.path[0]) != os.path.realpath(f"{__file__}/../.."):
        del sys.path[0]


def main() -> None:
    """Run the command line, which exits the process; see `aotpack.cli.main`."""
    if sys.argv[1:] == ["--version"]:
        # What other programs ask for; typer takes ten times as long to import as this takes.
        from aotpack.version import VERSION

        sys.stdout.write(f"aotpack {VERSION}\n")
        return
    try:
        from aotpack import cli
    except KeyboardInterrupt:
        # Imports are the most of what a quick verb takes, so this is where it is interrupted.
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    _drop_current_folder()
    main()
