"""A loss of power at any moment: what is loaded afterwards has the right bytes, or is put together again."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aotpack.cache.variants import Cache
from aotpack.container.reader import PackageReader
from aotpack.runtime.package import Package
from tests.container.packages import package, variants_that_share
from tests.disks import with_power_cuts

FILES = variants_that_share(random.Random(3).randbytes(24_000_000))
ROUNDS = [4, pytest.param(40, marks=pytest.mark.long)]


def put_together(path: Path, root: Path) -> dict[str, dict[str, bytes]]:
    """What a session would read of each variant."""
    found = {}
    with PackageReader.open(path) as reader:
        (component,) = reader.manifest.components
        for variant in component.variants:
            with Cache(root).hold(reader, component, variant) as held:
                found[variant.id] = {
                    file.path: (held.folder / file.path).read_bytes() for file in variant.files
                }
    return found


def stopped_by(cut: Callable[[], None], work: Callable[[], object], seconds: float) -> None:
    """Do `work` in a process that loses its disk after so long."""
    child = os.fork()
    if child == 0:
        try:
            work()
            # Idle while the system writes to the disk whatever it likes, in its own order.
            time.sleep(60)
        finally:
            os._exit(0)
    time.sleep(seconds)
    # A process on a machine without power does nothing more; here, one that has files open keeps the disk.
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    cut()


@pytest.mark.parametrize("rounds", ROUNDS)
def test_nothing_wrong_is_loaded_after_a_loss_of_power(tmp_path: Path, rounds: int) -> None:
    path = package(tmp_path, FILES)
    pick = random.Random(rounds)
    with with_power_cuts(600, tmp_path) as (disk, cut):
        for number in range(rounds):
            # While it is written, and when the journal was and the bytes were not.
            seconds = pick.uniform(0, 0.6) if number % 2 else pick.uniform(0.8, 2.5)
            stopped_by(cut, lambda: put_together(path, disk / "cache"), seconds)
            assert put_together(path, disk / "cache") == FILES["main"]
            assert Cache(disk / "cache").verify() == []
            Cache(disk / "cache").prune(0)


def test_what_was_loaded_before_a_loss_of_power_is_still_there(tmp_path: Path) -> None:
    path = package(tmp_path, FILES)
    with with_power_cuts(600, tmp_path) as (disk, cut):
        put_together(path, disk / "cache")
        # At once: nothing but what aotpack itself has synced is on the disk.
        cut()
        inodes = {file.stat().st_ino for file in disk.rglob("*.bin")}
        assert put_together(path, disk / "cache") == FILES["main"]
        assert {file.stat().st_ino for file in disk.rglob("*.bin")} >= inodes


def test_what_was_extracted_before_a_loss_of_power_is_still_there(tmp_path: Path) -> None:
    path = package(tmp_path, FILES)
    with with_power_cuts(600, tmp_path) as (disk, cut), PackageReader.open(path) as reader:
        Package(reader).extract("a", disk / "a")
        cut()
        assert {file.name: file.read_bytes() for file in (disk / "a").iterdir()} == FILES["main"]["a"]
