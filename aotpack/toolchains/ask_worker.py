"""Ask an EP's own check in a process of its own, for EPs whose check can take the process down.

The worker answers one question a line, so that only the first one waits for onnxruntime to be imported. It
ends when its standard input does: with this process, at the latest.
"""

from __future__ import annotations

import json
import logging
import subprocess
import threading
import weakref

from aotpack.common.child_process import python_command, python_environment
from aotpack.selection.verdict import Grade

__all__ = ["AskWorker"]

#: Seconds for one answer, the start of the worker included; a check takes microseconds.
TIMEOUT = 60.0
#: Characters of an answer: a grade's name.
_MAX_ANSWER = 256

_log = logging.getLogger(__name__)


class AskWorker:
    """Answers for one toolchain; a crash, silence or babble is no answer, and ends the process.

    Args:
        toolchain: its name.
    """

    def __init__(self, toolchain: str) -> None:
        self._toolchain = toolchain
        self._process: subprocess.Popen[str] | None = None
        self._ending: weakref.finalize[[subprocess.Popen[str]], AskWorker] | None = None
        self._lock = threading.Lock()

    def ask(self, ep_string: str, device: str) -> Grade | None:
        """What the EP says of a compatibility string; None if it gave no answer."""
        with self._lock:
            return self._ask_now(ep_string, device)

    def _ask_now(self, ep_string: str, device: str) -> Grade | None:
        process = self._process or self._start()
        # A hung check ends with its process, and the read below with that.
        watchdog = threading.Timer(TIMEOUT, process.kill)
        watchdog.start()
        try:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps([ep_string, device]) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline(_MAX_ANSWER)
        except OSError:
            answer = ""
        finally:
            watchdog.cancel()
        try:
            said = json.loads(answer)
            return None if said is None else Grade(said)
        except ValueError:
            self._end()
            _log.warning(
                "%s: its check of a compatibility string ended its process (status %s) [ask-crashed]",
                self._toolchain,
                process.returncode,
            )
            return None

    def close(self) -> None:
        """End the worker."""
        with self._lock:
            self._end()

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            python_command("aotpack.toolchains.ask_worker_main", self._toolchain),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=python_environment({}),
        )
        # Toolchains live as long as the program and are never closed.
        self._ending = weakref.finalize(self, _end, process)
        self._process = process
        return process

    def _end(self) -> None:
        if self._ending is not None:
            self._ending()
        self._process = self._ending = None


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    process.wait()
