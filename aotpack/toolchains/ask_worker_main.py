"""The process that `aotpack.toolchains.ask_worker` starts: it asks an EP about compatibility strings."""

from __future__ import annotations

import json
import os
import sys

from aotpack.toolchains import toolchains
from aotpack.toolchains.guarded import unguarded
from aotpack.toolchains.plugin import PluginToolchain

__all__ = ["main"]


def main(toolchain: str) -> None:
    """Answer the questions on the standard input until it ends."""
    # Vendors' libraries print to the standard output as they like.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    rules = unguarded(toolchains()[toolchain])
    assert isinstance(rules, PluginToolchain)
    for line in sys.stdin:
        said = rules.ask_here(*json.loads(line))
        answers.write(json.dumps(said) + "\n")
        answers.flush()
    # Some vendors' libraries abort when the interpreter tears them down.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
