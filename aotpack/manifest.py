"""What a package says of itself: Manifest > Component > Variant > File > Segment.

The values are frozen; docs/format.md says what each key means. `parse` reads untrusted bytes and
checks all that can be checked without the segments; `Manifest.to_json` writes the canonical form.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import json
import re
import unicodedata
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from aotpack._values import MAX_KEYS, Count, Name, Sha256, Value, Xxh3, refuse_ambiguous_json
from aotpack.errors import LimitExceeded, ManifestError, NewerFormat

__all__ = [
    "ALIGNED_FROM",
    "FORMAT_VERSION",
    "MAX_COMPONENTS",
    "MAX_FILES",
    "MAX_SEGMENTS",
    "MAX_SEGMENT_SIZE",
    "MAX_VALUES",
    "MAX_VARIANTS",
    "PAGE_SIZE",
    "Compatibility",
    "Component",
    "Coverage",
    "File",
    "FlexLowering",
    "Manifest",
    "Numerics",
    "Requirements",
    "Segment",
    "SessionSettings",
    "Source",
    "TensorInfo",
    "Variant",
    "parse",
    "path_issue",
]

#: The format version that this release writes.
FORMAT_VERSION = "1.0"

#: A pipeline has tens of models, a model some hundreds of attention subgraphs.
MAX_COMPONENTS = 4096
#: Of one component. ORT's own model packages slow down visibly at 1,000 (FACTS.md, 2).
MAX_VARIANTS = 4096
#: Of one variant: an EPContext model has one sidecar a partition.
MAX_FILES = 4096
#: At 4 MiB a segment this is a quarter of a terabyte.
MAX_SEGMENTS = 65536
#: Values in the manifest's JSON, of any kind. A JSON parser takes some hundred bytes for each, however short
#: its text is, and the limits above are only known to be kept when it is done.
MAX_VALUES = 1048576
#: Bounds what one decompression can allocate.
MAX_SEGMENT_SIZE = 64 * 1024 * 1024
#: A path of more than 1,024 characters cannot be made on every system.
MAX_PATH = 1024
#: Raw segments of `ALIGNED_FROM` bytes and more start at a multiple of this, so that they can be mapped and
#: reflinked. Smaller ones are packed close: padding would cost them up to their own size.
PAGE_SIZE = 4096
#: In bytes; see `PAGE_SIZE`.
ALIGNED_FROM = 65536

#: Contradictions that are looked for: the first is told, and how many there are of such.
_MAX_ISSUES = 20

_Text = Annotated[str, Field(max_length=65536)]
# Here and below, all that can be long stops at the first error: a million of them would fill the memory.
_Options = Annotated[dict[str, _Text], Field(max_length=MAX_KEYS, fail_fast=True)]
_Counts = Annotated[dict[str, Count], Field(max_length=MAX_KEYS, fail_fast=True)]
_Texts = Annotated[tuple[str, ...], Field(fail_fast=True)]


class TensorInfo(Value):
    """An input or output of a component."""

    name: _Text
    #: numpy's name of the element type, such as ``float32``; ONNX's where numpy has none (``bfloat16``).
    dtype: _Text
    #: A size, a symbolic name, or None where nothing is known; None instead of a shape if the rank is open.
    shape: Annotated[tuple[int | _Text | None, ...], Field(max_length=64, fail_fast=True)] | None = None


class Source(Value):
    """The ONNX model that a component was compiled from."""

    #: Over the model file, and then over each external data file in the order of their paths.
    sha256: Sha256
    size: Count
    opsets: _Counts


class Requirements(Value):
    """What a machine must have, in our words: for EPs that write no string, and beside the others' string.

    None means that nothing is required.
    """

    os: _Texts | None = None
    arch: str | None = None
    #: CPU features by archspec's names, such as ``avx2`` or ``amx_bf16``.
    isa: _Texts | None = None
    #: Version specifiers (PEP 440).
    onnxruntime: str | None = None
    ep: str | None = None


class Compatibility(Value):
    """What decides whether a variant fits a machine."""

    #: What the EP wrote under ``ep_compatibility_info.<EP>``, byte for byte; None if it writes none.
    ep_string: _Text | None = None
    requires: Requirements = Requirements()


class SessionSettings(Value):
    """What a session must be created with."""

    provider_options: _Options = {}
    config: _Options = {}
    #: ``disabled`` for graphs that were optimised when they were built.
    graph_optimization: Literal["default", "disabled"] = "default"


class Coverage(Value):
    """How much of the model the EP took."""

    #: Nodes of the prepared graph, before compiling.
    nodes: Count
    #: Those of them that went into a compiled partition.
    compiled: Count
    partitions: Count
    #: Operator type to number of nodes that stay outside every partition.
    left_on_cpu: _Counts = {}


class Numerics(Value):
    """The largest differences to the portable model on the same seeded inputs."""

    #: max |variant - portable| over all outputs.
    max_abs: float
    #: max over the outputs of max |variant - portable| / max(1, max |portable|): what is held to `tolerance`.
    error: float
    tolerance: float
    #: ``host``, ``isa-emulation`` or ``emulator``.
    ran_on: str


class FlexLowering(Value):
    """How one FlexAttention node was lowered."""

    node: _Text
    lowering: str
    #: Share of (query block, key block) pairs that are never computed, 0 to 1.
    blocks_skipped: float
    why: _Text


class Segment(Value):
    """The unit in which a container stores, checks and shares bytes."""

    #: From the start of the package file, in bytes.
    offset: Count
    #: Length in the package, in bytes.
    stored: Count
    #: Length of the content, in bytes.
    size: Annotated[int, Field(ge=1, le=MAX_SEGMENT_SIZE)]
    codec: Literal["raw", "zstd"]
    #: Bytes of an element where the frame holds the content shuffled: `aotpack.container.shuffling`.
    shuffle: Literal[2, 4] | None = None
    #: Both are of the content, not of what is stored.
    sha256: Sha256
    xxh3: Xxh3


class File(Value):
    """A file of a variant: the segments whose contents, one after the other, are its bytes."""

    path: _Text
    size: Count
    sha256: Sha256
    segments: Annotated[tuple[Count, ...], Field(max_length=MAX_SEGMENTS, fail_fast=True)]


class Variant(Value):
    """One component compiled for one target. The first of its files is the ONNX model to load."""

    id: Name
    target: Name
    #: The toolchain whose rules judge this variant.
    toolchain: Name
    ep: _Text
    device: Literal["cpu", "gpu", "npu"]
    precision: str | None = None
    #: Among variants that fit equally well the higher one is taken.
    specificity: int = 0
    compatibility: Compatibility = Compatibility()
    session: SessionSettings = SessionSettings()
    #: Package names to versions.
    built_with: _Options = {}
    coverage: Coverage | None = None
    #: None: it has not run anywhere.
    numerics: Numerics | None = None
    flex: Annotated[tuple[FlexLowering, ...], Field(fail_fast=True)] = ()
    #: Empty only on the way to the writer, which fills it in.
    files: Annotated[tuple[File, ...], Field(max_length=MAX_FILES, fail_fast=True)] = ()

    @property
    def size(self) -> int:
        """Bytes on disk when materialised."""
        return sum(file.size for file in self.files)


class Component(Value):
    """A whole model, or one FlexAttention subgraph."""

    name: Name
    kind: Literal["model", "flex-attention"] = "model"
    source: Source
    inputs: Annotated[tuple[TensorInfo, ...], Field(fail_fast=True)]
    outputs: Annotated[tuple[TensorInfo, ...], Field(fail_fast=True)]
    variants: Annotated[tuple[Variant, ...], Field(max_length=MAX_VARIANTS, fail_fast=True)]


class Manifest(Value):
    """The whole of what a package says of itself."""

    aotpack: Annotated[str, Field(pattern=r"^[0-9]{1,4}\.[0-9]{1,4}$")] = FORMAT_VERSION
    name: Name
    version: _Text = "0"
    #: SPDX expression of what the models are licensed under.
    license: _Text | None = None
    components: Annotated[
        tuple[Component, ...], Field(min_length=1, max_length=MAX_COMPONENTS, fail_fast=True)
    ]
    segments: Annotated[tuple[Segment, ...], Field(max_length=MAX_SEGMENTS, fail_fast=True)] = ()

    def to_json(self) -> bytes:
        """The canonical form: UTF-8, no white space, keys in the order of docs/format.md, maps sorted."""
        ordered = json.dumps(_in_order(self))
        return _MANIFEST.dump_json(type(self).model_validate_json(ordered), exclude_none=True)

    def variants(self) -> Iterator[Variant]:
        """All variants of all components, in the package's order."""
        for component in self.components:
            yield from component.variants


#: Writes bytes; a model's own method writes text, which costs two copies of it.
_MANIFEST = TypeAdapter(Manifest)


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
            # Keys that are unknown are looked for below, where there cannot be a million in one object.
            manifest = Manifest.model_validate_json(text, extra="ignore")
            if _MANIFEST.dump_json(manifest, exclude_none=True) != text:
                # pydantic lets duplicate keys and NaN through. Bytes that it writes back as they were have
                # neither; all others are read once more by a parser that can refuse them.
                try:
                    refuse_ambiguous_json(text)
                except RecursionError:
                    raise LimitExceeded("nested too deeply", where="manifest") from None
                except ValueError as error:
                    raise ManifestError(str(error), where="manifest") from None
                # A newer minor version may add keys; nothing else may.
                if not newer_minor:
                    Manifest.model_validate_json(text, extra="forbid")
        except ValidationError as error:
            raise _as_manifest_error(error) from None
        # So many say enough; to find all that an attacker can put in would take long.
        issues = list(itertools.islice(_contradictions(manifest), _MAX_ISSUES))
    if issues:
        where, what = issues[0]
        at_least = " at least" if len(issues) == _MAX_ISSUES else ""
        more = f" (and {len(issues) - 1} more{at_least})" if len(issues) > 1 else ""
        raise ManifestError(what + more, where=where)
    return manifest


def _in_order(value: object) -> Any:
    if isinstance(value, BaseModel):
        # Unset optional fields are left out, so that adding one does not change old packages.
        return {
            name: _in_order(item)
            for name in type(value).model_fields
            if (item := getattr(value, name)) is not None
        }
    if isinstance(value, dict):
        return {key: _in_order(value[key]) for key in sorted(value)}
    if isinstance(value, tuple):
        return [_in_order(item) for item in value]
    return value


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


def _as_manifest_error(error: ValidationError) -> ManifestError | LimitExceeded:
    first = error.errors(include_url=False, include_context=False)[0]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    kind = LimitExceeded if first["type"] in {"too_long", "string_too_long"} else ManifestError
    # Not a whole manifest, nor an attacker's megabyte.
    is_short = isinstance(first["input"], (bool, int, float, str)) and len(repr(first["input"])) <= 60
    return kind(
        first["msg"] + more,
        where=(where or "manifest") if len(where) <= 200 else f"{where[:200]}...",
        found=repr(first["input"]) if is_short and first["type"] != "json_invalid" else None,
    )


def _contradictions(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Each place where the manifest contradicts itself, as (where, what)."""
    segments = manifest.segments
    yield from _segment_contradictions(segments)
    yield from _twins("components", tuple([component.name for component in manifest.components]))
    used: set[int] = set()
    for c, component in enumerate(manifest.components):
        yield from _twins(f"components[{c}].variants", tuple([variant.id for variant in component.variants]))
        for v, variant in enumerate(component.variants):
            if not variant.files:
                yield f"components[{c}].variants[{v}].files", "is empty; a variant has at least an ONNX file"
            for where, what in _path_contradictions(tuple([file.path for file in variant.files])):
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


# Most variants of a package have files of the same names.
@functools.lru_cache(maxsize=64)
def _path_contradictions(paths: tuple[str, ...]) -> list[tuple[str, str]]:
    found = ((f"files[{f}].path", issue) for f, path in enumerate(paths) if (issue := path_issue(path)))
    # Those that are no paths are not compared: that is where Unicode can be slow.
    if issues := list(itertools.islice(found, _MAX_ISSUES)):
        return issues
    # macOS normalises and Windows folds case: paths that differ only so are one file there.
    plain = tuple([unicodedata.normalize("NFC", path).casefold() for path in paths])
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


def _twins(where: str, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        first = seen.setdefault(name.casefold(), index)
        if first != index:
            yield f"{where}[{index}]", f"{_shown(name)} is the same name as that of {where}[{first}]"


def _nested(where: str, paths: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    # Sorted by their parts, all that lies in a folder follows upon it: one look back finds it, however deep.
    above: list[str] | None = None
    for parts, index in sorted((path.split("/"), index) for index, path in enumerate(paths)):
        if above is not None and len(parts) > len(above) and parts[: len(above)] == above:
            yield f"{where}[{index}].path", f"{_shown(paths[index])} lies inside another file"
        else:
            above = parts


def _shown(name: str) -> str:
    return repr(name) if len(name) <= 80 else f"{name[:80]!r}..."


_RESERVED = re.compile(r"(?i)^(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(\..*)?$")
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')


def path_issue(path: str) -> str | None:
    """Why `path` is not a relative path that means the same file on every system, or None."""
    if not path or len(path) > MAX_PATH:
        return f"has {len(path)} characters; expected 1 to {MAX_PATH}"
    if _FORBIDDEN.search(path):
        return f"{_shown(path)} has a character that not every system allows"
    if unicodedata.normalize("NFC", path) != path:
        return f"{_shown(path)} is not in Unicode normal form C"
    for part in path.split("/"):
        if part in {"", ".", ".."}:
            return f"{_shown(path)} leaves its folder or is not relative"
        if part[-1] in ". " or len(part.encode("utf-8", "surrogatepass")) > 255 or _RESERVED.match(part):
            return f"{_shown(path)} has the part {_shown(part)}, which not every system allows"
    return None
