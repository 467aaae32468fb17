"""Fetching: pinned bytes only, once, by many processes at a time."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aotpack.errors import DigestMismatch, ModelError, UnknownName
from samples import real_models

SILERO = "silero_vad_16k_sequence"


@pytest.mark.parametrize("name", real_models.known())
def test_every_model_of_the_table_is_the_pinned_one(name: str) -> None:
    assert real_models.known()[name].is_at(real_models.fetch(name))


def test_processes_that_fetch_at_once_get_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AOTPACK_MODELS", str(tmp_path))
    command = [sys.executable, "-m", "samples.real_models", SILERO]

    def run(_: int) -> str:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    with ThreadPoolExecutor() as pool:
        [path] = set(pool.map(run, range(3)))
    assert real_models.known()[SILERO].is_at(Path(path))
    # One download gave the sibling of the same wheel too, and left nothing else behind.
    assert list(tmp_path.rglob("silero_vad_half.onnx"))
    assert not list(tmp_path.rglob("*.whl"))


def test_a_damaged_file_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AOTPACK_MODELS", str(tmp_path))
    path = real_models.fetch("basic_pitch")
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    assert real_models.fetch("basic_pitch").read_bytes() == good


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean light_squeezenet"):
        real_models.fetch("squeezenet")


def _table(folder: Path, monkeypatch: pytest.MonkeyPatch, requirement: str) -> None:
    table = folder / "models.toml"
    table.write_text(
        f'[model]\nrequirement = "{requirement}"\n'
        'member = "basic_pitch/saved_models/icassp_2022/nmp.onnx"\n'
        f'sha256 = "{"0" * 64}"\n'
    )
    monkeypatch.setattr(real_models, "_TABLE", table)
    monkeypatch.setenv("AOTPACK_MODELS", str(folder / "cache"))


def test_bytes_that_are_not_pinned_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _table(tmp_path, monkeypatch, "basic-pitch==0.4.0")
    with pytest.raises(DigestMismatch, match="is not the pinned file"):
        real_models.fetch("model")


def test_a_download_that_keeps_failing_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _table(tmp_path, monkeypatch, "basic-pitch==0.0.0.dev0")
    monkeypatch.setattr(real_models, "_PAUSES", (0.0,))
    with pytest.raises(ModelError, match=r"basic-pitch==0.0.0.dev0: cannot be downloaded; found .*ERROR"):
        real_models.fetch("model")
    assert not list((tmp_path / "cache").rglob("*.onnx"))
