"""Real file systems to test on, made for the moment; only root may mount them."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
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


#: EXT4_IOC_SHUTDOWN of Linux's fs/ext4/ext4.h, and the flag by which the journal is not written any more.
_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, 2


@contextlib.contextmanager
def with_power_cuts(megabytes: int, place: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A folder that is an ext4 disk of its own, and a function that cuts its power and starts it again.

    What was not on the disk by then is lost. Its journal is written every second, not every five, so that a
    cut finds all states of a disk in a short time.
    """
    folder, image = place / "ext4", place / "ext4.image"
    folder.mkdir()
    image.touch()
    os.truncate(image, megabytes << 20)
    _done(["mkfs.ext4", "-q", "-F", str(image)])
    mount = ["mount", "-o", "loop,commit=1", str(image), str(folder)]
    _done(mount)

    def cut() -> None:
        assert sys.platform == "linux"
        import fcntl

        fd = os.open(folder, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        except OSError as error:
            pytest.skip(f"the power of an ext4 disk cannot be cut here: {error.strerror}")
        finally:
            os.close(fd)
        subprocess.run(["umount", str(folder)], check=True)
        subprocess.run(mount, check=True)

    try:
        yield folder, cut
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
