"""Real file systems to test on, made for the moment; only root may mount them."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

#: How an image gets its file system.
_MAKE = {"xfs": ["mkfs.xfs", "-q"], "btrfs": ["mkfs.btrfs", "-q"]}


@contextlib.contextmanager
def mounted(kind: str, megabytes: int, place: Path) -> Iterator[Path]:
    """A folder under `place` that is a disk of its own: ``tmpfs``, or ``xfs`` or ``btrfs`` in a sparse file.

    The test that wants it is skipped where it cannot be had.
    """
    folder, image = place / kind, place / f"{kind}.image"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if kind in _MAKE:
        image.touch()
        os.truncate(image, megabytes << 20)
        _done([*_MAKE[kind], str(image)])
        command = ["mount", "-t", kind, "-o", "loop", str(image), str(folder)]
    _done(command)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        image.unlink(missing_ok=True)


def taken(folder: Path) -> int:
    """Bytes that are in use on the disk of `folder`, all that was written being there."""
    os.sync()
    status = os.statvfs(folder)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def _done(command: list[str]) -> None:
    try:
        ran = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip(f"{command[0]} is not installed")
    if ran.returncode:
        pytest.skip(f"{' '.join(command[:3])}: {ran.stderr.strip().splitlines()[-1]}")
