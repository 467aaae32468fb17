"""The page on FlexAttention does what it says."""

import re
import shlex
from pathlib import Path

import onnx
import pytest

from aotpack import flex
from aotpack.flex.named import NAMED
from tests.command_line import aotpack

PAGE = (Path(__file__).parents[2] / "docs" / "flex.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def test_code_blocks_run() -> None:
    found = blocks("python")
    assert len(found) == 6
    exec("\n".join(found), {})


def test_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(flex.attention((1, 2, 512, 16), score_mod=flex.causal()), "model.onnx")
    (commands,) = blocks("sh")
    for line in commands.splitlines():
        name, *arguments = shlex.split(line)
        assert name == "aotpack"
        done = aotpack(*arguments)
        assert done.status == 0, (line, done.err)
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    assert {"attention.aotpack", "lengths.aotpack", "model.aotpack", "pictures/attention.png"} <= written


def test_all_named_mods_are_listed() -> None:
    (table,) = re.findall(r"\| `--mod` \|.*\n\|---\|---\|\n((?:\|.*\n)+)", PAGE)
    assert set(re.findall(r"^\| `([\w-]+)", table, flags=re.MULTILINE)) == set(NAMED)
