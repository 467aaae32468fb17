"""Read a manifest from untrusted bytes: all is checked that can be checked without the segments."""

from __future__ import annotations

import contextlib
import gc
import itertools
import re
from collections.abc import Iterator, Sequence

import msgspec

from aotpack._text import clipped, shortened
from aotpack.common.field_errors import issue_of
from aotpack.common.paths import caseless, name_issue, path_issue
from aotpack.common.values import read_unambiguous_json, unknown_keys
from aotpack.errors import LimitExceeded, ManifestError, NewerFormat
from aotpack.manifest.values import (
    ALIGNED_FROM,
    FORMAT_VERSION,
    MAX_VALUES,
    PAGE_SIZE,
    File,
    Manifest,
    Segment,
)

__all__ = ["parse"]

#: Contradictions that are looked for: the first is told, and how many there are of such.
_MAX_ISSUES = 20


def parse(text: bytes) -> Manifest:
    """Read a manifest from untrusted bytes.

    Args:
        text: the manifest's JSON. The caller has bounded its length.

    Raises:
        NewerFormat: its major format version is not ours.
        LimitExceeded: it has more components, variants, files or segments than the limits above.
        ManifestError: it is not JSON, has duplicate or unknown keys, or contradicts itself.
    """
    newer_minor = _check_version(text)
    if len(text) > MAX_VALUES:  # most are too short to hold so many
        # No more than that, as strings may hold these characters too.
        values = text.count(b"{") + text.count(b"[") + text.count(b",")
        if values > MAX_VALUES:
            raise LimitExceeded(
                "too many values", where="manifest", found=values, expected=f"<= {MAX_VALUES}"
            )
    with _collecting_no_garbage():
        try:
            manifest = Manifest.from_json(text)
            # msgspec overlooks keys that stand twice or are unknown. Bytes that it writes back as they were
            # have neither. All others are read once more without types.
            if msgspec.json.encode(manifest) != text:
                raw = _untyped(text)
                # A newer minor version may add keys; nothing else may.
                if not newer_minor and (unknown := next(unknown_keys(manifest, raw), None)) is not None:
                    raise ManifestError("unknown key", where=clipped(unknown, 200))
        except msgspec.DecodeError as error:
            raise _as_manifest_error(error) from None
        except RecursionError:
            raise LimitExceeded("nested too deeply", where="manifest") from None
        except ValueError as error:
            raise ManifestError(str(error), where="manifest") from None
        # So many say enough; to find all that an attacker can put in would take long.
        issues = list(itertools.islice(_contradictions(manifest), _MAX_ISSUES))
    if issues:
        where, what = issues[0]
        at_least = " at least" if len(issues) == _MAX_ISSUES else ""
        more = f" (and {len(issues) - 1} more{at_least})" if len(issues) > 1 else ""
        raise ManifestError(what + more, where=where)
    return manifest


def _untyped(text: bytes) -> object:
    """What a JSON parser makes of `text`, which has no key twice in an object."""
    with contextlib.suppress(msgspec.DecodeError):  # of integers that no field of ours can hold
        raw = msgspec.json.decode(text)
        if msgspec.json.encode(raw) == text:
            return raw
    return read_unambiguous_json(text)


@contextlib.contextmanager
def _collecting_no_garbage() -> Iterator[None]:
    # None of thousands of new values is garbage yet: looking for it takes a third of the time.
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if not gc.get_freeze_count():
                # The youngest generation is looked through at the next allocation: make them old instead.
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def _check_version(text: bytes) -> bool:
    # The version is the first key, so that a reader can refuse a manifest that it could not parse.
    match = re.match(rb'\s*\{\s*"aotpack"\s*:\s*"([0-9]{1,4})\.([0-9]{1,4})"', text)
    if match is None:
        raise ManifestError(
            "does not start with its format version", where="manifest", expected='{"aotpack": "1.0"'
        )
    ours = tuple(map(int, FORMAT_VERSION.split(".")))
    found = (int(match[1]), int(match[2]))
    if found[0] != ours[0]:
        raise NewerFormat(
            "format version cannot be read",
            where="manifest.aotpack",
            found=f"{found[0]}.{found[1]}",
            expected=f"{ours[0]}.x",
            hint="install a release of aotpack that reads it",
        )
    return found > ours


def _as_manifest_error(error: msgspec.DecodeError) -> ManifestError | LimitExceeded:
    issue = issue_of(error, Manifest)
    kind = LimitExceeded if issue.is_too_long else ManifestError
    return kind(issue.what, where=issue.where or "manifest")


def _contradictions(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Each place where the manifest contradicts itself, as (where, what)."""
    segments = manifest.segments
    if (issue := name_issue(manifest.name)) is not None:
        yield "name", issue
    yield from _segment_contradictions(segments)
    yield from _name_contradictions("components", "name", [each.name for each in manifest.components])
    used: set[int] = set()
    # Most variants of a package have files of the same names.
    known: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for c, component in enumerate(manifest.components):
        ids = [variant.id for variant in component.variants]
        yield from _name_contradictions(f"components[{c}].variants", "id", ids)
        for v, variant in enumerate(component.variants):
            if not variant.files:
                yield f"components[{c}].variants[{v}].files", "is empty; a variant has at least an ONNX file"
            paths = tuple([file.path for file in variant.files])
            if (wrong_paths := known.get(paths)) is None:
                wrong_paths = known[paths] = _path_contradictions(paths)
            for where, what in wrong_paths:
                yield f"components[{c}].variants[{v}].{where}", what
            for f, file in enumerate(variant.files):
                used.update(file.segments)
                if (wrong := _file_contradiction(file, segments)) is not None:
                    yield f"components[{c}].variants[{v}].files[{f}].{wrong[0]}", wrong[1]
    if len(used) < len(segments):
        yield f"segments[{min(set(range(len(segments))) - used)}]", "belongs to no file"


def _file_contradiction(file: File, segments: tuple[Segment, ...]) -> tuple[str, str] | None:
    parts = file.segments
    try:
        total = sum([segments[part].size for part in parts])
    except IndexError:
        return "segments", f"names a segment beyond the {len(segments)} there are"
    if total != file.size:
        return "size", f"is {file.size} but its segments hold {total} bytes"
    if len(parts) == 1 and file.sha256 != segments[parts[0]].sha256:
        return "sha256", "differs from that of its only segment"
    return None


def _path_contradictions(paths: tuple[str, ...]) -> list[tuple[str, str]]:
    found = ((f"files[{f}].path", issue) for f, path in enumerate(paths) if (issue := path_issue(path)))
    # Those that are no paths are not compared: that is where Unicode can be slow.
    if issues := list(itertools.islice(found, _MAX_ISSUES)):
        return issues
    # macOS normalises, and it and Windows fold case: paths that differ only so are one file there.
    plain = tuple(map(caseless, paths))
    return [*_twins("files", plain), *_nested("files", plain)]


def _segment_contradictions(segments: tuple[Segment, ...]) -> Iterator[tuple[str, str]]:
    for s, segment in enumerate(segments):
        stored, size = segment.stored, segment.size
        if segment.codec == "raw":
            if stored != size:
                yield f"segments[{s}].stored", f"is {stored} but the raw content has {size} bytes"
            if segment.shuffle is not None:
                yield f"segments[{s}].shuffle", "stands beside raw content, which is stored as it is"
            if segment.offset % PAGE_SIZE and size >= ALIGNED_FROM:
                yield f"segments[{s}].offset", f"is not a multiple of {PAGE_SIZE}"
        elif not 0 < stored < size:
            yield f"segments[{s}].stored", f"is {stored}: compressed to no less than {size} bytes"
    end, last = 0, 0
    for s, segment in sorted(enumerate(segments), key=lambda item: item[1].offset):
        if segment.offset < end:
            yield f"segments[{s}].offset", f"overlaps segments[{last}], which ends at {end}"
        end, last = segment.offset + segment.stored, s


def _name_contradictions(where: str, key: str, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What is wrong with names that folders and files are called."""
    for index, name in enumerate(names):
        if (issue := name_issue(name)) is not None:
            yield f"{where}[{index}].{key}", issue
    yield from _twins(where, names)


def _twins(where: str, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        first = seen.setdefault(caseless(name), index)
        if first != index:
            yield f"{where}[{index}]", f"{shortened(name)} is the same name as that of {where}[{first}]"


def _nested(where: str, paths: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    # Sorted by their parts, all that lies in a folder follows upon it: one look back finds it, however deep.
    above: list[str] | None = None
    for parts, index in sorted((path.split("/"), index) for index, path in enumerate(paths)):
        if above is not None and len(parts) > len(above) and parts[: len(above)] == above:
            yield f"{where}[{index}].path", f"{shortened(paths[index])} lies inside another file"
        else:
            above = parts
