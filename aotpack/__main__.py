"""``aotpack`` and ``python -m aotpack``."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line, which never comes back; see `aotpack.cli.main`."""
    try:
        from aotpack import cli
    except KeyboardInterrupt:
        # Imports are the most of what a quick verb takes, so this is where it is interrupted.
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
