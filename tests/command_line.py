"""The command line as a user meets it: in a process of its own, with what came out on each channel."""

from __future__ import annotations

import atexit
import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from tests.command_server import CommandServer, forks_alike

ROOT = Path(__file__).parents[1]
SCHEMAS = ROOT / "schemas"

#: Seconds that a command may take.
_TIMEOUT = 300.0

#: Coverage counts in processes that it has started itself.
_may_fork = sys.platform == "linux" and not any(name.startswith("COVERAGE") for name in os.environ)


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str

    def document(self, schema: str) -> dict[str, Any]:
        """What it printed on the standard output, which must be one JSON document and valid by `schema`."""
        document: dict[str, Any] = json.loads(self.out)
        rules = json.loads((SCHEMAS / f"{schema}.schema.json").read_text(encoding="utf-8"))
        Draft202012Validator(rules).validate(document)
        return document

    @property
    def error(self) -> str:
        """The one line of its error; it must have failed with nothing but that line to say."""
        assert self.status in (1, 2), self
        assert "Traceback" not in self.err, self.err
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        return lines[0].removeprefix("error: ")


def environment(added: Mapping[str, str], path: tuple[Path, ...] = ()) -> dict[str, str]:
    """This process's environment with `added`, and `path` and this checkout to import from."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT))), **added}


def start(
    *arguments: object,
    env: Mapping[str, str] | None = None,
    python: Path | str = sys.executable,
    path: tuple[Path, ...] = (),
    cwd: Path | None = None,
) -> subprocess.Popen[str]:
    """Start ``aotpack *arguments`` and do not wait for it."""
    return subprocess.Popen(
        [str(python), "-m", "aotpack", *map(str, arguments)],
        env=environment(env or {}, path),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], timeout: float = _TIMEOUT) -> Done:
    """Wait for its end."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return Done(process.returncode, out, err)


def aotpack(
    *arguments: object,
    env: Mapping[str, str] | None = None,
    python: Path | str = sys.executable,
    path: tuple[Path, ...] = (),
    cwd: Path | None = None,
) -> Done:
    """Run ``aotpack *arguments`` to its end."""
    whole = environment(env or {}, path)
    if _may_fork and str(python) == sys.executable and not _shadows(path):
        server = _server()
        if forks_alike(whole, server.environment):
            status, out, err = server.run([*map(str, arguments)], whole, cwd, _TIMEOUT, path)
            return Done(status, _text(out), _text(err))
    return finish(start(*arguments, env=env, python=python, path=path, cwd=cwd))


def _shadows(path: tuple[Path, ...]) -> bool:
    """Whether a folder of `path` has a module of the name of one that may be imported before the fork."""
    return any(entry.stem in sys.modules for folder in path for entry in folder.iterdir())


@functools.cache
def _server() -> CommandServer:
    """Of this process, until it ends."""
    server = CommandServer(environment({}), ROOT)
    atexit.register(server.close)
    return server


def _text(output: bytes) -> str:
    # As subprocess does it with text=True.
    return output.decode().replace("\r\n", "\n").replace("\r", "\n")
