"""What an EP's own check says of strings: a JSON list on the standard input, and a list of grades out.

The check is asked in a process of its own, so that its environment can make another machine of this one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from tests.command_line import environment


def answers(
    toolchain: str,
    strings: Sequence[str],
    env: Mapping[str, str],
    python: str = sys.executable,
    emulator: Sequence[str] = (),
) -> list[str | None]:
    """A grade for each string; None where the check raised."""
    done = subprocess.run(
        [*emulator, python, "-m", "tests.toolchain.ep_answers", toolchain],
        input=json.dumps(list(strings)),
        env=environment(env),
        capture_output=True,
        text=True,
        check=True,
    )
    said: list[str | None] = json.loads(done.stdout.splitlines()[-1])
    return said


if __name__ == "__main__":
    from aotpack.toolchain import toolchains
    from aotpack.toolchain.plugin import PluginToolchain

    asked = toolchains()[sys.argv[1]]
    assert isinstance(asked, PluginToolchain)
    print("\n" + json.dumps([asked.ask_here(text, "cpu") for text in json.load(sys.stdin)]), flush=True)
    os._exit(0)
