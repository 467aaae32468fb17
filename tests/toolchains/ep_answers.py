"""What an EP's own check says of strings: a JSON list a line on the standard input, a list of grades out.

The check is asked in a process of its own, so that its environment can make another machine of this one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Self

from tests.command_line import environment


class Asking:
    """A process that asks the check of one toolchain's EP; a context manager.

    Args:
        toolchain: its name.
        env: environment variables for it.
        emulator: the command in front of it.
    """

    def __init__(self, toolchain: str, env: Mapping[str, str], emulator: Sequence[str] = ()) -> None:
        self._process = subprocess.Popen(
            [*emulator, sys.executable, "-m", "tests.toolchains.ep_answers", toolchain],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(env),
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._process.communicate()

    def __call__(self, *strings: str) -> list[str | None]:
        """A grade for each string; None where the check raised."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(strings) + "\n")
        self._process.stdin.flush()
        said: list[str | None] = json.loads(self._process.stdout.readline())
        return said


if __name__ == "__main__":
    from aotpack.toolchains import toolchains
    from aotpack.toolchains.plugin import PluginToolchain

    # The EP's library may print what it likes.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    asked = toolchains()[sys.argv[1]]
    assert isinstance(asked, PluginToolchain)
    for line in sys.stdin:
        print(json.dumps([asked.ask_here(text, "cpu") for text in json.loads(line)]), file=out, flush=True)
    os._exit(0)
