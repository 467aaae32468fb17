"""``aotpack`` and ``python -m aotpack``."""

from __future__ import annotations

import sys

__all__ = ["main"]


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
    main()
