"""Results of earlier builds, by a digest of all that went into them.

::

    <cache>/results/<digest>/done.json     what came of a job, the xxh3 of its files, what went in
    <cache>/results/<digest>/files/...     its files, read-only
    <cache>/results/history/<key>.json     what last went into a target of a package: for `why_not`
    <cache>/results/work/...               being put together

The digest is of inputs, never of what came out: vendors' blobs are not reproducible. An entry gets its name
in one step when it is whole, and hits are linked out of it, so that removing one harms no build.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import xxhash
from msgspec import DecodeError

from aotpack.builder.jobs.job import Done
from aotpack.cache.layout import RESULTS, claim, not_written, ours
from aotpack.cache.notes import read_note
from aotpack.cache.variants import Cache
from aotpack.common.values import Value
from aotpack.files.regular import discard, make_folder, open_regular

__all__ = ["Results"]

_BLOCK = 2 * 1024 * 1024
#: Of packages times targets: each is some hundred bytes.
_MAX_HISTORY = 4096
#: Seconds after which what somebody is putting together counts as left behind: linking takes milliseconds.
_STALE = 3600


class _Entry(Value, kw_only=True):
    done: Done
    #: One for each file of each part, in order.
    xxh3: tuple[str, ...]


class _History(Value, kw_only=True):
    digest: str
    failed: bool
    ingredients: dict[str, Any] = {}


class Results:
    """The results in a cache. Any number of processes may use them at once.

    Args:
        cache: whose folder and limit they are held in.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache_root = cache.root
        self._root = cache.root / RESULTS
        self._limit = cache.limit
        self._history = self._root / "history"
        self._work = self._root / "work"

    def get(self, digest: str, folder: Path) -> Done | None:
        """A result, its files linked into the empty `folder`; None if there is none, or it is damaged."""
        entry = self._root / digest
        try:
            stored = _Entry.from_json(read_note(entry / "done.json"))
            checks = iter(stored.xxh3)
            parts = []
            for index, part in enumerate(stored.done.parts):
                files = []
                for name, relative in part.files:
                    path = folder / str(index) / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    _link_or_copy(entry / relative, path)
                    if _xxh3(path) != next(checks):
                        raise ValueError(f"{path} was changed")
                    files.append((name, str(path)))
                parts.append(part.replace(files=tuple(files)))
            os.utime(entry / "done.json")
        except (OSError, ValueError):
            # Not there, removed at this moment, or damaged: all the same, it is built again.
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            return None
        return stored.done.replace(parts=tuple(parts))

    def put(self, digest: str, done: Done) -> None:
        """Keep a result that is no failure.

        Raises:
            OutputError: the cache cannot be written.
        """
        try:
            self._make(self._work)
            with tempfile.TemporaryDirectory(dir=self._work) as scratch:
                entry = Path(scratch) / "entry"
                checks: list[str] = []
                parts = []
                for index, part in enumerate(done.parts):
                    files = []
                    for name, source in part.files:
                        relative = f"files/{index}/{name}"
                        path = entry / relative
                        path.parent.mkdir(parents=True, exist_ok=True)
                        Path(source).chmod(0o444)
                        _link_or_copy(Path(source), path)
                        checks.append(_xxh3(path))
                        files.append((name, relative))
                    parts.append(part.replace(files=tuple(files)))
                stored = _Entry(done=done.replace(parts=tuple(parts), log=""), xxh3=tuple(checks))
                entry.mkdir(exist_ok=True)
                (entry / "done.json").write_text(stored.to_json(), encoding="utf-8")
                self._replace(entry, self._root / digest, Path(scratch) / "before")
        except OSError as error:
            raise not_written(error, self._cache_root) from error

    def remember(self, key: str, digest: str, ingredients: Mapping[str, Any], *, failed: bool) -> None:
        """Note what went into `key`, for the next `why_not`."""
        text = _History(digest=digest, failed=failed, ingredients=dict(ingredients)).to_json()
        with contextlib.suppress(OSError):
            self._make(self._history)
            partial = self._history / f".{os.getpid()}-{_name(key)}"
            partial.write_text(text, encoding="utf-8")
            partial.replace(self._history / f"{_name(key)}.json")

    def why_not(self, key: str, digest: str, ingredients: Mapping[str, Any]) -> str:
        """One sentence on why there is no result with this `digest` for `key`."""
        try:
            last = _History.from_json(read_note(self._history / f"{_name(key)}.json"))
        except (OSError, DecodeError):
            return "It was not built for this package before."
        if last.digest == digest:
            return "It failed the last time." if last.failed else "Its result is no longer in the cache."
        now = dict(_flat(json.loads(json.dumps(ingredients))))
        before = dict(_flat(last.ingredients))
        changes = [
            _change(name, before.get(name), now.get(name))
            for name in [*now, *(name for name in before if name not in now)]
            if before.get(name) != now.get(name)
        ]
        return f"Changed: {'; '.join(changes)}."

    def trim(self) -> None:
        """Remove the least recently used results beyond the limit, and what dead processes left."""
        with contextlib.suppress(OSError):
            for path in ours(self._cache_root, f"{RESULTS}/work"):
                if time.time() - path.lstat().st_mtime > _STALE:
                    discard(path)
        entries = []
        sizes: dict[tuple[int, int], int] = {}
        with contextlib.suppress(OSError):
            for path in ours(self._cache_root, RESULTS):
                if (path / "done.json").exists():
                    own = {
                        (status.st_dev, status.st_ino): status.st_size
                        for file in path.rglob("*")
                        if file.is_file() and (status := file.stat())
                    }
                    entries.append(((path / "done.json").stat().st_mtime, sum(own.values()), path))
                    sizes |= own
        total = sum(sizes.values())
        for _, size, path in sorted(entries):
            if total <= self._limit:
                break
            with contextlib.suppress(OSError), tempfile.TemporaryDirectory(dir=self._work) as scratch:
                path.rename(Path(scratch) / "gone")
                total -= size
        with contextlib.suppress(OSError):
            notes = sorted(
                ours(self._cache_root, f"{RESULTS}/history"), key=lambda path: path.stat().st_mtime
            )
            for path in notes[: max(0, len(notes) - _MAX_HISTORY)]:
                path.unlink()

    def _make(self, folder: Path) -> None:
        claim(self._cache_root)
        make_folder(self._root)
        make_folder(folder)

    def _replace(self, entry: Path, final: Path, aside: Path) -> None:
        for _ in range(2):
            try:
                entry.rename(final)
                return
            except OSError:
                # Another build was faster, or there was a damaged one: the newer one stays.
                with contextlib.suppress(FileNotFoundError):
                    final.rename(aside)


def _name(key: str) -> str:
    # A path may hold bytes that are no UTF-8.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _flat(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(item, (*path, key))
    else:
        yield path, value


#: Digests and the like: that they changed is all there is to say.
_OPAQUE = {"source"}
_NOT_SHOWN = 80


def _change(path: tuple[str, ...], before: object, now: object) -> str:
    group, name = path[0], ".".join(path[1:])
    if group == "custom_ops":
        return "the libraries of custom operators"
    if group in _OPAQUE:
        return f"the model of {name}" if before and now else f"component {name}"
    called = name or group
    shown = [str(value) for value in (before, now)]
    if max(map(len, shown)) > _NOT_SHOWN:
        return called
    if before is None or now is None:
        return f"{called} {'is new' if before is None else 'is gone'} ({shown[before is None]})"
    return f"{called} is {shown[1]}, was {shown[0]}"


def _link_or_copy(source: Path, dest: Path) -> None:
    try:
        os.link(source, dest)
    except OSError:
        shutil.copyfile(source, dest)


def _xxh3(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with os.fdopen(open_regular(path), "rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
