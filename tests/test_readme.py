"""Every block of Python in README.md and docs/ runs, as a reader would run it: from top to bottom."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aotpack.targets.catalogue import catalogue

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^ *```(\w*)")


def _script(page: Path) -> str:
    """The page with all but its Python blanked out, so that line numbers in a traceback are the page's."""
    lines, language = [], None
    for line in page.read_text(encoding="utf-8").splitlines():
        fence = FENCE.match(line)
        if fence:
            language = fence[1] if language is None else None
        lines.append(line if language == "python" and not fence else "")
    return "\n".join(lines)


PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").glob("*.md")) if _script(page).strip()),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run(page: Path, real_model: Callable[[str], Path], tmp_path: Path) -> None:
    script = _script(page)
    assert script.strip(), "a page of this list shows some Python"
    # What the pages call the user's own model; they build m.aotpack and all else themselves.
    shutil.copy(real_model("silero_vad_16k_sequence"), tmp_path / "model.onnx")
    (tmp_path / page.name).write_text(script, encoding="utf-8")
    # A process of its own: execution providers are registered once for the life of a process.
    done = subprocess.run(
        [sys.executable, page.name],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_table_of_targets_counts_right() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = catalogue().values()
    classes = [each for each in targets if each.name.startswith("openvino-cpu-")]
    assert (len(classes), "each of nine ISA classes" in text) == (9, True)
    chips = [each for each in targets if each.generation is not None]
    assert f"and {len(chips)} single chips" in text
