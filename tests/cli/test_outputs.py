"""What verbs write: never over what they read, and where they cannot, one line says so."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import pytest

from samples.made_models import cnn
from tests.command_line import aotpack
from tests.conftest import BuiltPackage

TOO_LONG = "x" * 300


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model with its weights beside it."""
    path = tmp_path / "cnn.onnx"
    onnx.save(
        cnn(layers=2, channels=8, size=8), path, save_as_external_data=True, location="w", size_threshold=0
    )
    return path


@pytest.fixture
def portable(small_model: Path, tmp_path: Path) -> Path:
    path = tmp_path / "portable.aotpack"
    assert aotpack("build", small_model, "-o", path).status == 0
    return path


@pytest.mark.parametrize("name", ["cnn.onnx", "w", "link.onnx"])
def test_a_build_does_not_write_over_its_model(model: Path, name: str) -> None:
    (model.parent / "link.onnx").symlink_to(model)
    before = {path.name: path.read_bytes() for path in model.parent.iterdir()}
    done = aotpack("build", model, "-o", model.with_name(name), "-t", "ort-cpu")
    assert done.status == 2
    assert done.error == f"{model.with_name(name)}: is also an input (write to another file)"
    assert {path.name: path.read_bytes() for path in model.parent.iterdir()} == before
    assert (model.parent / "link.onnx").is_symlink()


def test_nor_over_its_build_file_nor_does_init_over_the_model(model: Path) -> None:
    file = model.with_name("aotpack.toml")
    assert aotpack("init", model, "-o", file).status == 0
    text = file.read_text()
    assert "is also an input" in aotpack("build", file, "-o", file).error
    assert file.read_text() == text
    assert "is also an input" in aotpack("init", model, "-o", model, "--force").error
    onnx.checker.check_model(str(model))


def test_an_output_with_a_name_that_cannot_be_is_one_line(
    portable: Path, small_model: Path, tmp_path: Path
) -> None:
    output = tmp_path / TOO_LONG
    for arguments in (
        ("build", small_model, "-o", output),
        ("merge", portable, portable, "-o", output),
        ("refresh", portable, "-o", output),
        ("extract", portable, "--variant", "x", "-o", output),
        ("coverage", portable, "--machines", output),
    ):
        if arguments[0] == "extract":
            found = aotpack("inspect", portable, "--json").document("manifest")
            arguments = (*arguments[:3], found["components"][0]["variants"][0]["id"], *arguments[4:])
        assert "File name too long" in aotpack(*arguments).error


def test_a_refresh_of_nothing_stale_says_so(portable: Path, tmp_path: Path) -> None:
    done = aotpack("refresh", portable, "-o", tmp_path / "same.aotpack")
    assert (done.status, done.out) == (0, f"{tmp_path}/same.aotpack: no variant is stale\n")


def test_a_page_that_cannot_be_written_does_not_cost_the_table(small_model: Path, tmp_path: Path) -> None:
    done = aotpack("build", small_model, "-o", tmp_path / "m.aotpack", "--report", "/dev/full")
    assert done.error == "/dev/full: No space left on device"
    assert "portable" in done.out


def test_a_page_or_records_replace_nothing_else(small_model: Path, portable: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(small_model.read_bytes())
    other, page, records = tmp_path / "notes.html", tmp_path / "page.html", tmp_path / "records.json"
    other.write_text("<!doctype html>\n<p>ten years of work")
    package = tmp_path / "m.aotpack"
    for lost in (model, other, portable):
        before = lost.read_bytes()
        for arguments in (
            ("build", model, "-o", package, "--report", lost),
            ("check", portable, "--record", lost),
        ):
            done = aotpack(*arguments)
            assert done.status == 1
            assert done.error.startswith(f"{lost}: is a file that is not a ")
            assert lost.read_bytes() == before
    assert not package.exists()
    # A slip by which the page would replace the package that was just made.
    assert "is not a page" in aotpack("build", model, "-o", package, "--report", package).error
    assert aotpack("verify", package).status == 0
    for _ in range(2):
        assert aotpack("build", model, "-o", package, "--report", page).status == 0
        assert aotpack("check", portable, "--record", records).status == 0
    assert page.read_text().startswith("<!doctype html>")


def test_a_place_that_cannot_take_a_page_or_records_is_found_before_anything_runs(
    small_model: Path, portable: Path, tmp_path: Path
) -> None:
    for place, says in (
        (tmp_path, "is a folder"),
        (tmp_path / "none" / "r", "none: is no folder (r is to be"),
    ):
        for arguments in (
            ("build", small_model, "-o", tmp_path / "m.aotpack", "--report", place),
            ("check", portable, "--record", place),
        ):
            done = aotpack(*arguments)
            assert (done.status, done.out) == (1, "")
            assert says in done.error
            assert "running" not in done.err
            assert "checked" not in done.err
    assert not (tmp_path / "m.aotpack").exists()


def test_a_path_that_is_no_text_is_shown_as_one(small_model: Path, tmp_path: Path) -> None:
    package = tmp_path / os.fsdecode(b"\xff.aotpack")
    shown = f"{tmp_path}/\\udcff.aotpack"
    built = aotpack("build", small_model, "-o", package, "--json")
    assert built.document("build-report")["package"] == shown
    assert aotpack("select", package, "--json").document("selection")["package"] == shown
    assert aotpack("verify", package, "--json").document("verify")["package"] == shown
    assert aotpack("doctor", package, "--json").status == 0


def test_a_verb_that_finds_nothing_says_so(portable: Path) -> None:
    assert aotpack("doctor", portable).out == "Nothing was compiled: portable variants are never stale.\n"
    assert aotpack("diff", portable, portable).out.startswith("Both packages say and hold the same.\n")


def test_the_known_machines_are_json_too() -> None:
    document = aotpack("machine", "--list", "--json").document("machines")
    assert document["machines"] == aotpack("machine", "--list").out.split()
    assert "--list takes no name" in aotpack("machine", "--list", "rtx-40").error


@pytest.mark.parametrize("verb", ["list", "prune", "verify"])
def test_a_cache_that_is_no_folder_is_one_line(verb: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = aotpack("cache", verb, env={"AOTPACK_CACHE": str(tmp_path / "file")})
    assert "Not a directory" in done.error


def test_what_nothing_else_is_left_for_is_not_said_to_be_unfit(vad: BuiltPackage, portable: Path) -> None:
    error = aotpack("run", portable, "--on-miss", "error").error
    assert "asked to be an error that nothing else is left" in error
    done = aotpack("run", vad.path, env={"AOTPACK_CACHE_LIMIT": "plenty", "AOTPACK_CACHE": "unused"})
    assert (done.status, done.error[:19]) == (2, "AOTPACK_CACHE_LIMIT")
