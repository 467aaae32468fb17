"""Fetching: pinned bytes only, once, by many processes at a time. All but the first test need no network."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aotpack.errors import DigestMismatch, ModelError, UnknownName
from samples import real_models

MEMBERS = {"first": b"the bytes of one model", "second": b"and those of its sibling"}


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A table of two models in one wheel, which pip finds in a folder and nowhere else."""
    with zipfile.ZipFile(tmp_path / "tiny_models-1.0-py3-none-any.whl", "w") as wheel:
        for name, content in MEMBERS.items():
            wheel.writestr(f"tiny_models/{name}.onnx", content)
        about = "tiny_models-1.0.dist-info/"
        wheel.writestr(about + "METADATA", "Metadata-Version: 2.1\nName: tiny-models\nVersion: 1.0\n")
        wheel.writestr(about + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(about + "RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("AOTPACK_MODELS", str(tmp_path / "cache"))
    monkeypatch.setattr(real_models, "_PAUSES", (0.0,))
    path = tmp_path / "models.toml"
    path.write_text(
        "".join(
            f'[{name}]\nrequirement = "tiny-models==1.0"\nmember = "tiny_models/{name}.onnx"\n'
            f'sha256 = "{hashlib.sha256(content).hexdigest()}"\n'
            for name, content in MEMBERS.items()
        )
    )
    monkeypatch.setattr(real_models, "_TABLE", path)
    yield path


@pytest.mark.parametrize("name", real_models.known())
def test_every_model_of_the_table_is_the_pinned_one(name: str) -> None:
    assert real_models.known()[name].is_at(real_models.fetch(name))


def test_one_download_serves_the_whole_wheel(table: Path, tmp_path: Path) -> None:
    first = real_models.fetch("first")
    (tmp_path / "tiny_models-1.0-py3-none-any.whl").unlink()
    assert first.read_bytes() == MEMBERS["first"]
    assert real_models.fetch("second").read_bytes() == MEMBERS["second"]
    kept = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert kept == {"first.onnx", "second.onnx", "tiny-models==1.0.lock"}


def test_processes_that_fetch_at_once_get_the_same_file(table: Path) -> None:
    code = f"""if True:
        import pathlib
        from samples import real_models
        real_models._TABLE = pathlib.Path({str(table)!r})
        print(real_models.fetch("first"))"""

    def run(_: int) -> str:
        return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout

    with ThreadPoolExecutor() as pool:
        [printed] = set(pool.map(run, range(3)))
    assert Path(printed.strip()).read_bytes() == MEMBERS["first"]


def test_a_damaged_file_is_fetched_again(table: Path) -> None:
    path = real_models.fetch("first")
    path.write_bytes(b"torn")
    assert real_models.fetch("first").read_bytes() == MEMBERS["first"]


def test_bytes_that_are_not_pinned_are_refused(table: Path) -> None:
    pinned = hashlib.sha256(MEMBERS["first"]).hexdigest()
    table.write_text(table.read_text().replace(pinned, "0" * 64))
    with pytest.raises(DigestMismatch, match="is not the pinned file"):
        real_models.fetch("first")


def test_a_download_that_keeps_failing_says_why(table: Path, tmp_path: Path) -> None:
    table.write_text(table.read_text().replace("==1.0", "==2.0"))
    with pytest.raises(ModelError, match=r"tiny-models==2.0: cannot be downloaded; found .*ERROR"):
        real_models.fetch("first")
    assert not list((tmp_path / "cache").rglob("*.onnx"))


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean light_squeezenet"):
        real_models.fetch("squeezenet")
