"""Packages that are none, or damaged, or lie: one line of error, and nothing half-written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aotpack.container import format as layout
from aotpack.container.compressing import compress
from aotpack.container.reader import PackageReader
from aotpack.errors import OutputError
from aotpack.runtime.package import open_package
from tests.command_line import Done, aotpack
from tests.conftest import BuiltPackage


def use(verb: str, package: Path, folder: Path) -> Done:
    """Run `verb` on `package`; `folder` is where `extract` may write."""
    options = ("--variant", "portable-00000000", "-o", folder / "out") if verb == "extract" else ()
    return aotpack(verb, package, *options)


VERBS = ("inspect", "select", "run", "verify", "extract")


@pytest.fixture(params=VERBS)
def verb(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda whole: b"", "is not an aotpack package"),
    "random": (lambda whole: os.urandom(5000), "is not an aotpack package"),
    "text": (lambda whole: b"ELF? no: text\n" * 100, "is not an aotpack package"),
    "cut in the preamble": (lambda whole: whole[:20], "is not an aotpack package"),
    "cut in the manifest": (lambda whole: whole[:500], "ends inside the manifest"),
    "cut in a segment": (lambda whole: whole[:-1], "lies outside the package"),
    "flipped in the manifest": (lambda whole: flipped(whole, 300), "manifest"),
    "of a newer format": (lambda whole: whole[:8] + b"\x63" + whole[9:], "format version cannot be read"),
}


def flipped(whole: bytes, offset: int) -> bytes:
    return whole[:offset] + bytes([whole[offset] ^ 0x10]) + whole[offset + 1 :]


@pytest.mark.parametrize("how", BROKEN)
def test_what_is_no_whole_package_is_refused(vad: BuiltPackage, how: str, tmp_path: Path) -> None:
    change, says = BROKEN[how]
    package = tmp_path / "broken.aotpack"
    package.write_bytes(change(vad.path.read_bytes()))
    verb = VERBS[list(BROKEN).index(how) % len(VERBS)]
    done = use(verb, package, tmp_path)
    assert done.status == 1
    assert done.out == ""
    assert says in done.error
    assert str(package) in done.error
    assert [path.name for path in tmp_path.iterdir()] == ["broken.aotpack"]


def test_every_verb_names_a_package_that_is_not_there(verb: str, tmp_path: Path) -> None:
    done = use(verb, tmp_path / "none.aotpack", tmp_path)
    assert (done.status, done.out) == (1, "")
    assert done.error == f"{tmp_path}/none.aotpack: no such package"


def test_a_folder_is_no_package(tmp_path: Path) -> None:
    done = use("inspect", tmp_path, tmp_path)
    assert done.status == 1
    assert "is not a file" in done.error


def test_a_variant_or_component_that_is_not_there_is_a_usage_error(vad: BuiltPackage, tmp_path: Path) -> None:
    done = aotpack("extract", vad.path, "--variant", "qnn-htp-v57", "-o", tmp_path / "out")
    assert done.status == 2
    assert "unknown variant 'qnn-htp-v57' (did you mean qnn-htp-v7" in done.error
    done = aotpack("run", vad.path, "--component", "mian")
    assert done.status == 2
    assert done.error == "unknown component 'mian' (did you mean main?)"
    assert not list(tmp_path.iterdir())


def test_a_flipped_segment_fails_verify_and_extract(vad: BuiltPackage, tmp_path: Path) -> None:
    whole = vad.path.read_bytes()
    with PackageReader.open(vad.path) as reader:
        variant = next(each for each in reader.manifest.variants() if each.target == "portable")
        segment = reader.manifest.segments[variant.files[0].segments[-1]]
    package = tmp_path / "flipped.aotpack"
    package.write_bytes(flipped(whole, segment.offset + segment.stored - 1))
    done = aotpack("verify", package)
    assert done.status == 1
    assert f"segments[{variant.files[0].segments[-1]}]" in done.error
    done = aotpack("extract", package, "--variant", variant.id, "-o", tmp_path / "out")
    assert done.status == 1
    assert f"segments[{variant.files[0].segments[-1]}]" in done.error
    assert [path.name for path in tmp_path.iterdir()] == ["flipped.aotpack"], "all of the files or none"
    assert aotpack("inspect", package).status == 0, "what it says of itself is right"


def lying(package: Path, output: Path, lie: Callable[[dict[str, Any]], None]) -> Path:
    """`package` with another manifest, its digests right."""
    with PackageReader.open(package) as reader:
        document = json.loads(reader.manifest.canonical_json())
        start = min(segment.offset for segment in reader.manifest.segments)
    lie(document)
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    packed = compress(text, 19)
    head = layout.Preamble.of(text, packed, "zstd").pack() + packed
    assert len(head) <= start, "the changed manifest takes the place of the old one"
    output.write_bytes(head + package.read_bytes()[len(head) :])
    assert hashlib.sha256(text).digest() in head
    return output


def _file(document: dict[str, Any]) -> dict[str, Any]:
    file: dict[str, Any] = document["components"][0]["variants"][0]["files"][0]
    return file


LIES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a larger file": (lambda d: _file(d).update(size=_file(d)["size"] + 1), "but its segments hold"),
    "a segment beyond the file": (
        lambda d: d["segments"][-1].update(stored=10**7, size=10**7, codec="raw"),
        "segments",
    ),
    "a segment of no bytes": (lambda d: d["segments"][0].update(size=0), "segments[0].size"),
    "a huge segment": (lambda d: d["segments"][0].update(size=2**40), "segments[0].size"),
    "segments that overlap": (
        lambda d: d["segments"][1].update(offset=d["segments"][0]["offset"]),
        "overlaps",
    ),
    "a segment that is not there": (lambda d: _file(d).update(segments=[9999]), "beyond the"),
    "a path that leaves the folder": (lambda d: _file(d).update(path="../../evil.onnx"), "leaves its folder"),
    "a key of its own": (lambda d: d.update(extra=1), "extra"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_manifest_that_lies_is_refused(vad: BuiltPackage, lie: str, tmp_path: Path) -> None:
    change, says = LIES[lie]
    package = lying(vad.path, tmp_path / "lying.aotpack", change)
    done = aotpack("inspect", package)
    assert (done.status, done.out) == (1, "")
    assert says in done.error


def test_a_compressed_segment_of_another_size_is_refused(vad: BuiltPackage, tmp_path: Path) -> None:
    def lie(document: dict[str, Any]) -> None:
        index = next(i for i, each in enumerate(document["segments"]) if each["codec"] == "zstd")
        document["segments"][index]["size"] += 1
        for variant in document["components"][0]["variants"]:
            for file in variant["files"]:
                file["size"] += file["segments"].count(index)

    package = lying(vad.path, tmp_path / "lying.aotpack", lie)
    assert aotpack("inspect", package).status == 0
    done = aotpack("verify", package)
    assert (done.status, done.out) == (1, "")
    assert "compressed to another size" in done.error


def test_extract_does_not_touch_a_folder_with_files(vad: BuiltPackage, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with PackageReader.open(vad.path) as reader:
        variant = next(reader.manifest.variants())
    done = aotpack("extract", vad.path, "--variant", variant.id, "-o", tmp_path)
    assert done.status == 1
    assert "exists already; expected a new or an empty folder" in done.error
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    done = aotpack("extract", vad.path, "--variant", variant.id, "-o", tmp_path / "mine" / "below")
    assert done.status == 1
    assert (tmp_path / "mine").read_text() == "precious"


def test_extract_into_the_folder_that_one_is_in(
    vad: BuiltPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_package(vad.path) as package:
        variant = next(package.manifest.variants())
        with pytest.raises(OutputError, match="cannot be made anew; expected the name of a new folder"):
            package.extract(variant.id, Path())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("input", "--input input: is not an input; expected NAME=FILE.npy"),
        ("input=x.npy", "x.npy"),
        ("input={folder}/text.npy", "text.npy: is no file of inputs; found neither .npz nor .npy"),
        ("nput={folder}/right.npy", "unknown input 'nput' (did you mean input?)"),
        (
            "input={folder}/wrong.npy",
            "is of the wrong shape; found [7, 7, 7]; expected [sequence_length, 576]",
        ),
    ],
)
def test_inputs_that_cannot_be_used_are_usage_errors(
    vad: BuiltPackage, given: str, says: str, tmp_path: Path
) -> None:
    import numpy as np

    (tmp_path / "text.npy").write_text("text")
    np.save(tmp_path / "right.npy", np.zeros((1, 576), np.float32))
    np.save(tmp_path / "wrong.npy", np.zeros((7, 7, 7), np.float32))
    done = aotpack("run", vad.path, "--input", given.format(folder=tmp_path))
    assert (done.status, done.out) == (2, "")
    assert says in done.error


def test_given_inputs_are_run(vad: BuiltPackage, tmp_path: Path) -> None:
    import numpy as np

    np.save(tmp_path / "input.npy", np.zeros((1, 576), np.float32))
    done = aotpack("run", vad.path, "--input", f"input={tmp_path}/input.npy", "--runs", 1, "--json")
    assert done.status == 0, done.err
    assert done.document("run")["inputs"][0] == {"name": "input", "dtype": "float32", "shape": [1, 576]}
