"""Packages made of packages, through the command line, on real blobs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from aotpack.documents.schema import schemas
from tests.command_line import aotpack
from tests.conftest import BuiltPackage


def targets_in(package: Path) -> list[str]:
    manifest = json.loads(aotpack("inspect", package, "--json").out)
    return [variant["target"] for variant in manifest["components"][0]["variants"]]


@pytest.fixture(scope="module")
def pruned(vad: BuiltPackage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pruned") / "small.aotpack"
    done = aotpack("prune", vad.path, "--keep", "ort-cpu", "--keep", "portable", "-o", path)
    assert done.status == 0, done.err
    return path


def test_a_pruned_package_holds_what_was_kept(vad: BuiltPackage, pruned: Path) -> None:
    assert targets_in(pruned) == ["ort-cpu", "portable"]
    assert pruned.stat().st_size < vad.path.stat().st_size
    assert aotpack("verify", pruned).status == 0


def test_merging_the_parts_gives_the_whole(vad: BuiltPackage, pruned: Path, tmp_path: Path) -> None:
    rest, whole = tmp_path / "rest.aotpack", tmp_path / "whole.aotpack"
    assert aotpack("prune", vad.path, "--drop", "ort-cpu", "--drop", "portable", "-o", rest).status == 0
    done = aotpack("merge", rest, pruned, "-o", whole, "--json")
    assert done.status == 0, done.err
    jsonschema.validate(json.loads(done.out), schemas()["manifest"])
    assert sorted(targets_in(whole)) == sorted(targets_in(vad.path))
    found = json.loads(aotpack("diff", vad.path, whole, "--json").out)
    jsonschema.validate(found, schemas()["difference"])
    assert found["variants"] == []
    assert found["bytes_shared"] == found["bytes_before"] == found["bytes_after"]


def test_a_target_is_added_from_the_portable_model(
    pruned: Path, tmp_path: Path, real_model: Callable[[str], Path]
) -> None:
    grown = tmp_path / "grown.aotpack"
    done = aotpack("add", pruned, "-t", "qnn-htp-v69", "--shape", "input=1,576", "-o", grown, "--json")
    assert done.status == 0, done.err
    report = json.loads(done.out)
    jsonschema.validate(report, schemas()["build-report"])
    assert [row["state"] for row in report["rows"]] == ["built"]
    assert targets_in(grown) == ["ort-cpu", "qnn-htp-v69", "portable"]
    run = aotpack("run", grown, "--variant", report["rows"][0]["id"], "--emulate", "--json")
    assert json.loads(run.out)["target"] == "qnn-htp-v69"
    # What was there stays byte for byte.
    found = json.loads(aotpack("diff", pruned, grown, "--json").out)
    assert [(each["kind"], each["target"]) for each in found["variants"]] == [("added", "qnn-htp-v69")]


def test_nothing_can_be_added_without_a_portable_model(pruned: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.aotpack"
    assert aotpack("prune", pruned, "--drop", "portable", "-o", bare).status == 0
    before = bare.read_bytes()
    done = aotpack("add", bare, "-t", "qnn-htp-v69")
    assert (done.status, done.out) == (2, "")
    assert "no portable variant" in done.err
    assert bare.read_bytes() == before


def test_where_nothing_can_be_written_nothing_is_compiled(pruned: Path, tmp_path: Path) -> None:
    for output, expected in (
        (tmp_path / "nowhere" / "out", "nowhere: No such file"),
        (tmp_path, "is a folder"),
    ):
        done = aotpack("add", pruned, "-t", "qnn-htp-v69", "--shape", "input=1,576", "-o", output)
        assert (done.status, done.out) == (1, "")
        assert done.err.startswith("error: ")
        assert expected in done.err
        assert len(done.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "nothing says what to keep"),
        (["--keep", "ort-cup"], "did you mean ort-cpu"),
        (["--drop", "ort-cpu", "--drop", "portable"], "would be left without variants"),
        (["--machine", "no-such-profile.json"], "no-such-profile"),
    ],
)
def test_pruning_says_what_is_wrong(
    pruned: Path, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    done = aotpack("prune", pruned, "-o", tmp_path / "out.aotpack", *arguments)
    assert done.status != 0
    assert expected in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_cache_lists_verifies_and_forgets(pruned: Path, tmp_path: Path) -> None:
    own = {"AOTPACK_CACHE": str(tmp_path / "cache")}
    assert aotpack("run", pruned, env=own).status == 0
    listed = json.loads(aotpack("cache", "list", "--json", env=own).out)
    jsonschema.validate(listed, schemas()["cache"])
    (entry,) = listed["entries"]
    assert entry["target"] == "ort-cpu"
    assert json.loads(aotpack("cache", "verify", "--json", env=own).out)["entries"] == []
    model = next(Path(entry["path"]).rglob("*.onnx"))
    model.chmod(0o644)
    rotten = bytearray(model.read_bytes())
    rotten[len(rotten) // 2] ^= 1
    model.write_bytes(rotten)
    assert len(json.loads(aotpack("cache", "verify", "--json", env=own).out)["entries"]) == 1
    assert aotpack("run", pruned, env=own).status == 0
    assert len(json.loads(aotpack("cache", "prune", "--limit", "0", "--json", env=own).out)["entries"]) == 1
    assert json.loads(aotpack("cache", "list", "--json", env=own).out)["entries"] == []
