"""Paths of bytes that are no UTF-8, which Linux allows: every verb takes them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.command_line import aotpack

MODEL, PACKAGE, OTHER, RECORDS, PAGE, FOLDER = (
    os.fsdecode(b"\xe9\xff" + name) for name in (b".onnx", b".aotpack", b"2.aotpack", b".json", b".html", b"")
)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    shutil.copy(small_model, folder / MODEL)
    done = aotpack("build", MODEL, "-o", PACKAGE, "-t", "ort-cpu", "--report", PAGE, "--json", cwd=folder)
    assert done.status == 0, done.err
    # JSON cannot hold such bytes.
    assert done.document("build-report")["package"].endswith(r"\udce9\udcff.aotpack")
    assert (folder / PAGE).exists()
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", PACKAGE, "--report", "page.html"),
        ("verify", PACKAGE),
        ("select", PACKAGE, "--json"),
        ("run", PACKAGE, "--json"),
        ("extract", PACKAGE, "--variant", "ort-cpu", "-o", FOLDER),
        ("doctor", PACKAGE, "--json"),
        ("add", PACKAGE, "-t", "qnn-htp-v73", "-o", OTHER),
        ("prune", PACKAGE, "--drop", "portable", "-o", OTHER),
        ("diff", PACKAGE, PACKAGE),
        ("coverage", PACKAGE, "--json"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_it_is_taken(folder: Path, arguments: tuple[str, ...]) -> None:
    done = aotpack(*arguments, cwd=folder)
    assert done.status == 0, done.err


def test_records_are_written_to_one_and_read_from_it(folder: Path) -> None:
    assert aotpack("check", PACKAGE, "--record", RECORDS, "--runs", "3", cwd=folder).status == 0
    done = aotpack("merge", PACKAGE, "--records", RECORDS, "-o", OTHER, cwd=folder)
    assert done.status == 0, done.err


def test_a_draft_that_cannot_name_its_model_leaves_no_file(folder: Path) -> None:
    done = aotpack("init", MODEL, "-o", "draft.toml", cwd=folder)
    assert done.status == 2
    assert "has a name that is not UTF-8, which no build file can hold" in done.error
    assert not (folder / "draft.toml").exists()
