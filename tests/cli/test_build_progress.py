"""A build as somebody at a terminal sees it."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from tests.command_line import environment


def on_a_terminal(cache: Path, *arguments: object) -> tuple[int, str]:
    """Run ``aotpack *arguments``, its standard error on a terminal; the status, and what was shown."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "aotpack", *map(str, arguments)],
        env=environment({"TERM": "xterm", "COLUMNS": "80", "AOTPACK_CACHE": str(cache)}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 65536):
            shown += block
    except OSError:
        # Linux's way to say that nobody has the other end any more.
        pass
    finally:
        os.close(ours)
    return process.wait(), shown.decode()


def test_what_waits_is_counted_and_what_is_kept_needs_no_beginning(small_model: Path, tmp_path: Path) -> None:
    build = ("build", small_model, "-o", tmp_path / "new.aotpack", "-t", "ort-cpu")
    status, shown = on_a_terminal(tmp_path / "cache", *build, "-t", "qnn-htp-v73")
    assert status == 0, shown
    assert "2 of 2 done" in shown
    assert re.search(r"built  main/qnn-htp-v73 \(\d+\.\d s\)", shown)
    # A job out of an earlier build ends without having begun, and so does one that nobody here can do.
    status, shown = on_a_terminal(
        tmp_path / "cache", *build, "-t", "qnn-htp-v73", "-t", "vitisai-npu", "--keep-going"
    )
    assert status == 0, shown
    assert "kept   main/qnn-htp-v73" in shown
    assert "FAILED main/vitisai-npu" in shown
