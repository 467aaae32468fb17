"""A build that is killed at any moment leaves the old package or the new one, and the next build works."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aotpack.container.reader import PackageReader
from tests.command_line import aotpack, finish, start
from tests.container.packages import OLD_PACKAGE

SHAPES = ("--shape", "input=1,576")


@pytest.mark.parametrize("kills", [6, pytest.param(100, marks=pytest.mark.long)])
def test_a_build_killed_at_any_moment(real_model: Callable[[str], Path], tmp_path: Path, kills: int) -> None:
    folder, cache = tmp_path / "out", tmp_path / "cache"
    folder.mkdir()
    package = folder / "vad.aotpack"
    silero = real_model("silero_vad_16k_sequence")
    build = ("build", silero, "-o", package, *SHAPES, "-t", "ort-cpu", "-t", "qnn-htp-v73")
    environment = {"AOTPACK_CACHE": str(cache)}
    began = time.monotonic()
    done = aotpack(*build, env=environment)
    took = time.monotonic() - began
    assert done.status == 0, done.err
    pick = random.Random(2)
    killed = tries = 0
    # What was built before its moment came does not count.
    while killed < kills:
        tries += 1
        assert tries <= 5 * kills
        package.write_bytes(OLD_PACKAGE)
        process = start(*build, "--no-reuse", env=environment)
        time.sleep(pick.uniform(0, took))
        process.kill()
        killed += finish(process, timeout=60).status != 0
        if package.read_bytes() != OLD_PACKAGE:
            with PackageReader.open(package) as reader:
                reader.verify()
        assert len(list(folder.iterdir())) <= 2
    again = aotpack(*build, env=environment)
    assert again.status == 0, again.err
    assert list(folder.iterdir()) == [package]
    assert not [path for path in (cache / "builds").iterdir() if path.is_dir()]
    assert aotpack("verify", package).status == 0
