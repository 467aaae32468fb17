"""A third party's toolchain, installed as far as Python can tell."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def troublesome(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder to put on the path of a process for it to have the toolchain ``troublesome``."""
    folder = tmp_path_factory.mktemp("third-party")
    info = folder / "troublesome-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: troublesome\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[aotpack.toolchains]\ntroublesome = tests.builder.troublesome:Troublesome\n"
    )
    return folder
