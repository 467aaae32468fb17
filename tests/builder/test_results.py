"""Results of earlier builds: whole or not at all, and why there is none."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aotpack.builder.jobs.job import Done, PartDone
from aotpack.builder.results import Results
from aotpack.cache.variants import Cache
from aotpack.errors import OutputError, UsageError
from aotpack.manifest.values import Coverage

DIGEST = "d" * 64


def done(folder: Path, files: dict[str, bytes], *, log: str = "") -> Done:
    """A result of one part with these files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(files.values()):
        (folder / str(number)).write_bytes(data)
    listed = tuple((name, str(folder / str(number))) for number, name in enumerate(files))
    coverage = Coverage(nodes=3, compiled=2, partitions=1, left_on_cpu={"Det": 1})
    part = PartDone(component="main", files=listed, coverage=coverage, left={"Det": ("d",)})
    return Done(parts=(part,), built_with={"a": "1"}, log=log, seconds=1.5)


def contents(result: Done) -> dict[str, bytes]:
    return {name: Path(path).read_bytes() for part in result.parts for name, path in part.files}


@given(st.dictionaries(st.sampled_from(["model.onnx", "a/b.bin", "c"]), st.binary(max_size=50), min_size=1))
def test_what_was_put_is_got(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    folder = tmp_path_factory.mktemp("results")
    results = Results(Cache(folder / "cache"))
    kept = done(folder / "made", files, log="much")
    results.put(DIGEST, kept)
    got = results.get(DIGEST, folder / "got")
    assert got is not None
    assert contents(got) == files
    assert got.replace(parts=()) == kept.replace(parts=(), log="")
    assert results.get("e" * 64, folder / "none") is None
    assert list((folder / "none").iterdir()) == []


def test_one_part_after_the_other_each_in_a_folder_of_its_own(tmp_path: Path) -> None:
    results = Results(Cache(tmp_path / "cache"))
    one, two = done(tmp_path / "1", {"model.onnx": b"1"}), done(tmp_path / "2", {"model.onnx": b"2"})
    results.put(DIGEST, one.replace(parts=(*one.parts, *two.parts)))
    got = results.get(DIGEST, tmp_path / "got")
    assert got is not None
    assert [Path(part.files[0][1]).read_bytes() for part in got.parts] == [b"1", b"2"]


@pytest.mark.parametrize("harm", ["changed", "gone", "no note", "half a note", "another note"])
def test_a_damaged_result_is_none_and_is_replaced(tmp_path: Path, harm: str) -> None:
    results = Results(Cache(tmp_path / "cache"))
    results.put(DIGEST, done(tmp_path / "made", {"model.onnx": b"right"}))
    entry = tmp_path / "cache" / "results" / DIGEST
    file, note = entry / "files" / "0" / "model.onnx", entry / "done.json"
    file.chmod(0o644)
    if harm == "changed":
        # Not through the hard link: as rot does, the name stays and the bytes do not.
        file.unlink()
        file.write_bytes(b"wrong")
    elif harm == "gone":
        file.unlink()
    elif harm == "no note":
        note.unlink()
    else:
        note.write_text(note.read_text()[:-9] if harm == "half a note" else "{}")
    assert results.get(DIGEST, tmp_path / "got") is None
    assert list((tmp_path / "got").iterdir()) == []
    results.put(DIGEST, done(tmp_path / "again", {"model.onnx": b"right"}))
    got = results.get(DIGEST, tmp_path / "got")
    assert got is not None
    assert contents(got) == {"model.onnx": b"right"}


def test_nothing_is_written_to_a_folder_that_is_something_else(tmp_path: Path) -> None:
    cache = tmp_path / "project"
    cache.mkdir()
    (cache / "thesis.txt").write_text("ten years of work")
    results = Results(Cache(cache))
    with pytest.raises(UsageError, match="is neither empty nor a cache of aotpack"):
        results.put(DIGEST, done(tmp_path / "made", {"a": b"1"}))
    assert [path.name for path in cache.iterdir()] == ["thesis.txt"]


def test_nothing_is_removed_that_the_cache_did_not_make(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", limit=0)
    results = Results(cache)
    results.put(DIGEST, done(tmp_path / "made", {"a": b"1"}))
    results.remember("key", DIGEST, {}, failed=False)
    others = [cache.root / "results" / name for name in ("mine.txt", "work/mine", "history/mine.json")]
    for path in others:
        path.write_text("ten years of work")
        os.utime(path, (1, 1))
    results.trim()
    assert not (cache.root / "results" / DIGEST).exists()
    assert all(path.exists() for path in others)


@pytest.mark.parametrize("name", ["done.json", "files/0/a"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path, name: str) -> None:
    results = Results(Cache(tmp_path / "cache"))
    results.put(DIGEST, done(tmp_path / "made", {"a": b"1"}))
    path = tmp_path / "cache" / "results" / DIGEST / name
    path.unlink()
    os.mkfifo(path)
    assert results.get(DIGEST, tmp_path / "got") is None
    results.put(DIGEST, done(tmp_path / "made again", {"a": b"1"}))
    assert results.get(DIGEST, tmp_path / "got again") is not None


def test_no_link_leads_out_of_the_cache(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    results = Results(cache)
    results.put(DIGEST, done(tmp_path / "made", {"a": b"1"}))
    elsewhere = tmp_path / "elsewhere"
    (cache.root / "results").rename(elsewhere)
    (cache.root / "results").symlink_to(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    results.put("e" * 64, done(tmp_path / "made again", {"a": b"1"}))
    assert sorted(elsewhere.rglob("*")) == before
    assert not (cache.root / "results").is_symlink()


def test_what_was_got_stays_when_the_result_is_removed(tmp_path: Path) -> None:
    results = Results(Cache(tmp_path / "cache"))
    results.put(DIGEST, done(tmp_path / "made", {"model.onnx": b"right"}))
    got = results.get(DIGEST, tmp_path / "got")
    shutil.rmtree(tmp_path / "cache")
    assert got is not None
    assert contents(got) == {"model.onnx": b"right"}


def test_a_cache_that_cannot_be_written_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/cache.*: cannot be written: .*\(set AOTPACK_CACHE"):
        Results(Cache(tmp_path / "file" / "cache")).put(DIGEST, done(tmp_path / "made", {"m": b""}))


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    results = Results(Cache(tmp_path / "cache", limit=3500))
    digests = [str(number) * 64 for number in range(4)]
    for age, digest in enumerate(digests):
        results.put(digest, done(tmp_path / digest, {"model.onnx": os.urandom(1000)}))
        os.utime(tmp_path / "cache" / "results" / digest / "done.json", (age, age))
    assert results.get(digests[0], tmp_path / "used") is not None
    results.trim()
    kept = [digest for digest in digests if results.get(digest, tmp_path / f"got-{digest}") is not None]
    assert digests[0] in kept
    assert digests[1] not in kept
    assert digests[3] in kept


BEFORE: dict[str, Any] = {"source": {"main": "aa"}, "options": {"mode": "1"}, "shapes": {"main": {"x": [1]}}}


@pytest.mark.parametrize(
    ("now", "says"),
    [
        ({**BEFORE, "source": {"main": "bb"}}, "Changed: the model of main."),
        ({**BEFORE, "source": {"other": "aa"}}, "Changed: component other; component main."),
        ({**BEFORE, "options": {"mode": "2"}}, "Changed: mode is 2, was 1."),
        ({**BEFORE, "options": {"mode": "1", "more": "x"}}, "Changed: more is new (x)."),
        ({**BEFORE, "options": {"mode": "9" * 100}}, "Changed: mode."),
        ({**BEFORE, "shapes": {"main": {"x": [2]}}}, "Changed: main.x is [2], was [1]."),
        (
            {**BEFORE, "options": {"mode": "2"}, "source": {"main": "bb"}},
            "Changed: the model of main; mode is 2, was 1.",
        ),
    ],
)
def test_it_is_said_what_changed(tmp_path: Path, now: dict[str, Any], says: str) -> None:
    results = Results(Cache(tmp_path))
    results.remember("key", "1" * 64, BEFORE, failed=False)
    assert results.why_not("key", "2" * 64, now) == says


def test_it_is_said_where_nothing_changed_why_there_is_none(tmp_path: Path) -> None:
    results = Results(Cache(tmp_path))
    assert results.why_not("key", DIGEST, BEFORE) == "It was not built for this package before."
    results.remember("key", DIGEST, BEFORE, failed=True)
    assert results.why_not("key", DIGEST, BEFORE) == "It failed the last time."
    results.remember("key", DIGEST, BEFORE, failed=False)
    assert results.why_not("key", DIGEST, BEFORE) == "Its result is no longer in the cache."
    # A note that nobody can read is as good as none.
    (note,) = (tmp_path / "results" / "history").iterdir()
    note.write_text("{")
    assert results.why_not("key", DIGEST, BEFORE) == "It was not built for this package before."
