"""Each function changes an honest package into one that lies in one way; `LIES` says how it is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass

import zstandard

from aotpack import errors
from aotpack.container.format import MAX_MANIFEST_BYTES
from aotpack.manifest import MAX_FILES, MAX_SEGMENT_SIZE, MAX_SEGMENTS, MAX_VARIANTS
from tests.attacks.forge import NOISE, START, TEXT, Forgery, sha256, zstd


@dataclass(frozen=True)
class Lie:
    tell: Callable[[Forgery], None]
    error: type[errors.PackageError]
    match: str

    @property
    def name(self) -> str:
        return self.tell.__name__.replace("_", "-").strip("-")


LIES: list[Lie] = []


def refused(
    error: type[errors.PackageError], match: str
) -> Callable[[Callable[[Forgery], None]], Callable[[Forgery], None]]:
    """Note that a package with this lie is refused with `error`, whose text has `match` in it."""

    def note(tell: Callable[[Forgery], None]) -> Callable[[Forgery], None]:
        LIES.append(Lie(tell, error, match))
        return tell

    return note


# --- the preamble


@refused(errors.FormatError, "is not an aotpack package")
def wrong_magic(it: Forgery) -> None:
    it.magic = b"PK\x03\x04\0\0\0\0"


@refused(errors.FormatError, "is not an aotpack package")
def line_ends_translated(it: Forgery) -> None:
    it.magic = b"\x89AOTP\n\x1a\0"


@refused(errors.NewerFormat, r"found 2\.0; expected 1\.x")
def newer_major_version(it: Forgery) -> None:
    it.version = (2, 0)


@refused(errors.FormatError, "another format version than the preamble")
def two_versions(it: Forgery) -> None:
    it.version = (1, 7)


@refused(errors.FormatError, "unknown codec of the manifest; found 2")
def unknown_codec(it: Forgery) -> None:
    it.codec = 2
    it.frame = b"{}"


@refused(errors.FormatError, "ends inside the manifest")
def manifest_longer_than_the_package(it: Forgery) -> None:
    it.stored = START * 64


@refused(errors.LimitExceeded, "manifest is too long")
def manifest_stored_above_its_limit(it: Forgery) -> None:
    it.stored = 2**64 - 1


@refused(errors.LimitExceeded, "manifest is too long")
def manifest_size_above_its_limit(it: Forgery) -> None:
    it.size = MAX_MANIFEST_BYTES + 1


@refused(errors.FormatError, "manifest has another length")
def raw_manifest_of_another_length(it: Forgery) -> None:
    it.codec = 0
    it.size = 5


@refused(errors.DigestMismatch, "manifest differs from its digest")
def manifest_digest_does_not_match(it: Forgery) -> None:
    it.digest = bytes(32)


@refused(errors.FormatError, "compressed to another size; found 268435456")
def manifest_bomb(it: Forgery) -> None:
    it.frame = zstd(bytes(2**28))
    it.size = 1000


@refused(errors.FormatError, "compressed to another size")
def manifest_frame_without_its_size(it: Forgery) -> None:
    it.frame = zstd(json.dumps(it.manifest).encode(), write_content_size=False)


@refused(errors.FormatError, "not a whole zstd frame")
def manifest_frame_cut_short(it: Forgery) -> None:
    it.text = json.dumps(it.manifest).encode()
    it.frame = zstd(it.text)[:-20]


@refused(errors.FormatError, "not a whole zstd frame")
def manifest_in_two_frames(it: Forgery) -> None:
    it.text = json.dumps(it.manifest).encode()
    it.frame = zstd(it.text) + zstd(b"more")


@refused(errors.FormatError, "not a whole zstd frame")
def manifest_of_noise(it: Forgery) -> None:
    it.frame = os.urandom(500)


# --- the manifest's JSON


@refused(errors.ManifestError, "does not start with its format version")
def manifest_is_empty(it: Forgery) -> None:
    it.text = b""


@refused(errors.ManifestError, "does not start with its format version")
def manifest_is_not_json(it: Forgery) -> None:
    it.text = b"aotpack: 1.0"


@refused(errors.ManifestError, "Invalid JSON")
def manifest_is_cut_short(it: Forgery) -> None:
    it.text = json.dumps(it.manifest).encode()[:-1]


@refused(errors.ManifestError, "Invalid JSON")
def manifest_has_more_behind_it(it: Forgery) -> None:
    it.text = json.dumps(it.manifest).encode() + b"{}"


@refused(errors.ManifestError, "Invalid JSON")
def manifest_is_not_utf8(it: Forgery) -> None:
    it.text = json.dumps(it.manifest).encode().replace(b'"tiny"', b'"tin\xff"')


@refused(errors.ManifestError, "Invalid JSON")
def lone_surrogate(it: Forgery) -> None:
    it.text = json.dumps(it.manifest).encode().replace(b'"tiny"', rb'"tin\ud800"')


@refused(errors.ManifestError, "duplicate key 'name'")
def duplicate_key(it: Forgery) -> None:
    it.text = json.dumps(it.manifest).encode().replace(b'"name": "tiny"', b'"name": "evil", "name": "tiny"')


@refused(errors.ManifestError, "duplicate key 'path'")
def duplicate_key_written_another_way(it: Forgery) -> None:
    text = json.dumps(it.manifest).encode()
    it.text = text.replace(b'"path": "model.bin"', rb'"p\u0061th": "../evil", "path": "model.bin"')


@refused(errors.ManifestError, "duplicate key 'o'")
def duplicate_key_in_a_map(it: Forgery) -> None:
    it.variant["built_with"] = {"p": "1"}
    it.text = json.dumps(it.manifest).encode().replace(b'{"p": "1"}', b'{"o": "1", "o": "2"}')


@refused(errors.ManifestError, "unknown|Extra inputs are not permitted")
def unknown_key(it: Forgery) -> None:
    it.variant["run_after_install"] = "rm -rf /"


@refused(errors.ManifestError, "finite|NaN")
def not_a_number(it: Forgery) -> None:
    it.variant["numerics"] = {"max_abs": float("nan"), "error": 0.0, "tolerance": 0.0, "ran_on": "host"}


@refused(errors.ManifestError, "finite|Infinity|not JSON")
def infinity(it: Forgery) -> None:
    it.variant["numerics"] = {"max_abs": float("inf"), "error": 0.0, "tolerance": 0.0, "ran_on": "host"}


@refused(errors.ManifestError, "finite|number")
def number_beyond_all_floats(it: Forgery) -> None:
    it.variant["numerics"] = {"max_abs": 12345.0, "error": 0.0, "tolerance": 0.0, "ran_on": "host"}
    it.text = json.dumps(it.manifest).encode().replace(b"12345.0", b"1e400")


@refused(errors.ManifestError, "valid integer")
def true_for_a_number(it: Forgery) -> None:
    it.files[0]["size"] = True


@refused(errors.ManifestError, "valid integer")
def text_for_a_number(it: Forgery) -> None:
    it.files[0]["size"] = "28"


@refused(errors.ManifestError, "valid integer")
def fraction_for_a_number(it: Forgery) -> None:
    it.files[0]["size"] = 28.5


@refused(errors.ManifestError, "recursion|Invalid JSON")
def deep_nesting(it: Forgery) -> None:
    it.text = json.dumps(it.manifest).encode()[:-1] + b', "deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@refused(errors.ManifestError, "recursion|Invalid JSON|nested")
def deep_nesting_in_a_newer_minor_version(it: Forgery) -> None:
    it.version = (1, 9)
    it.manifest["aotpack"] = "1.9"
    it.text = json.dumps(it.manifest).encode()[:-1] + b', "deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@refused(errors.NewerFormat, r"found 2\.0")
def newer_manifest_in_an_old_preamble(it: Forgery) -> None:
    it.manifest["aotpack"] = "2.0"


@refused(errors.LimitExceeded, "too many values")
def a_file_of_many_millions_of_segments(it: Forgery) -> None:
    it.files[1]["segments"] = [0] * 7_000_000


@refused(errors.LimitExceeded, "at most 4096|too many values")
def a_million_variants(it: Forgery) -> None:
    assert MAX_VARIANTS == 4096
    marker = '"variants": ['
    text = json.dumps(it.manifest)
    variant = json.dumps({**it.variant, "files": []}, separators=(",", ":"))
    many = ",".join([variant] * (MAX_MANIFEST_BYTES // (len(variant) + 1) - 100))
    it.text = text.replace(marker, marker + many + ",").encode()


@refused(errors.LimitExceeded, "manifest is too long")
def a_million_variants_and_no_limit_to_length(it: Forgery) -> None:
    it.size = 1_000_000 * 120


@refused(errors.LimitExceeded, "too many values; found [0-9]+; expected <= 1048576")
def a_million_empty_segments(it: Forgery) -> None:
    text = json.dumps({**it.manifest, "segments": []})
    it.text = text.replace('"segments": []}', '"segments": [' + "{}," * 5_000_000 + "{}]}").encode()


@refused(errors.LimitExceeded, "at most 65536")
def a_file_of_millions_of_segments(it: Forgery) -> None:
    assert MAX_SEGMENTS == 65536
    it.files[1]["segments"] = [0] * 900_000


@refused(errors.LimitExceeded, "too many values")
def a_million_empty_arrays(it: Forgery) -> None:
    it.variant["news"] = [[]] * 5_000_000


@refused(errors.ManifestError, "Extra inputs are not permitted")
def a_million_keys(it: Forgery) -> None:
    it.text = json.dumps(it.manifest).encode()[:-1] + b', "news": {' + b'"k":0,' * 1_000_000 + b'"k":0}}'


@refused(errors.LimitExceeded, "at most 4096")
def a_variant_of_too_many_files(it: Forgery) -> None:
    assert MAX_FILES == 4096
    it.variant["files"] = [it.files[0] | {"path": f"f{i}"} for i in range(MAX_FILES + 1)]


@refused(errors.LimitExceeded, "at most 65536 characters")
def text_without_end(it: Forgery) -> None:
    it.variant["compatibility"] = {"ep_string": "x" * 10_000_000}


@refused(errors.ManifestError, "at least 1 item|too_short")
def no_components(it: Forgery) -> None:
    it.manifest["components"] = []


@refused(errors.ManifestError, "at least an ONNX file")
def a_variant_without_files(it: Forgery) -> None:
    it.manifest["segments"] = []
    it.variant["files"] = []


# --- segments


@refused(errors.ManifestError, r"segments\[1\]\.offset: overlaps segments\[0\]")
def overlapping_segments(it: Forgery) -> None:
    it.segments[1]["offset"] = it.segments[0]["offset"] + 1


@refused(errors.ManifestError, r"segments\[\d\]\.offset: overlaps")
def two_segments_in_one_place(it: Forgery) -> None:
    it.segments[2]["offset"] = it.segments[1]["offset"]


@refused(errors.FormatError, r"segments\[2\]: lies outside the package")
def segment_past_the_end(it: Forgery) -> None:
    it.segments[2]["offset"] += 1


@refused(errors.FormatError, r"segments\[2\]: lies outside the package")
def segment_in_the_manifest(it: Forgery) -> None:
    it.segments[2]["offset"] = 64


@refused(errors.FormatError, r"segments\[2\]: lies outside the package")
def segment_in_the_preamble(it: Forgery) -> None:
    it.segments[2]["offset"] = 0


@refused(errors.FormatError, r"segments\[2\]: lies outside the package")
def offset_as_large_as_may_be(it: Forgery) -> None:
    it.segments[2]["offset"] = 2**53 - 1


@refused(errors.ManifestError, "less than or equal to 9007199254740991")
def offset_that_overflows(it: Forgery) -> None:
    it.segments[2]["offset"] = 2**64 - 1


@refused(errors.ManifestError, "less than or equal to|valid integer|parse")
def offset_of_a_thousand_digits(it: Forgery) -> None:
    it.segments[2]["offset"] = 10**1000


@refused(errors.ManifestError, "greater than or equal to 0")
def negative_offset(it: Forgery) -> None:
    it.segments[2]["offset"] = -1


@refused(errors.ManifestError, "greater than or equal to 1")
def empty_segment(it: Forgery) -> None:
    it.segments[2] |= {"stored": 0, "size": 0}


@refused(errors.ManifestError, f"less than or equal to {MAX_SEGMENT_SIZE}")
def segment_too_large(it: Forgery) -> None:
    it.segments[1]["size"] = MAX_SEGMENT_SIZE + 1


@refused(errors.ManifestError, "but the raw content has")
def raw_segment_of_two_sizes(it: Forgery) -> None:
    it.segments[2]["size"] += 1


@refused(errors.ManifestError, "compressed to no less")
def compressed_to_more(it: Forgery) -> None:
    it.segments[1]["size"] = it.segments[1]["stored"]


@refused(errors.ManifestError, "is not a multiple of 4096")
def large_raw_segment_off_its_page(it: Forgery) -> None:
    it.store(0, b"x" + NOISE, None)
    it.segments[0] |= {"offset": it.segments[0]["offset"] + 1, "stored": len(NOISE)}


@refused(errors.ManifestError, "'raw' or 'zstd'")
def unknown_codec_of_a_segment(it: Forgery) -> None:
    it.segments[1]["codec"] = "brotli"


@refused(errors.ManifestError, r"segments\[1\]\.shuffle: Input should be 2 or 4; found 3")
def shuffle_of_an_unknown_width(it: Forgery) -> None:
    it.segments[1]["shuffle"] = 3


@refused(errors.ManifestError, r"segments\[0\]\.shuffle: stands beside raw content")
def shuffle_of_a_raw_segment(it: Forgery) -> None:
    it.segments[0]["shuffle"] = 4


@refused(errors.DigestMismatch, r"segments\[1\]: differs from its digest")
def shuffle_of_what_is_in_order(it: Forgery) -> None:
    it.segments[1]["shuffle"] = 2


@refused(errors.ManifestError, r"segments\[2\]: belongs to no file")
def segment_of_no_file(it: Forgery) -> None:
    it.files.pop(0)


@refused(errors.ManifestError, "names a segment beyond the 3 there are")
def segment_that_is_not_there(it: Forgery) -> None:
    it.files[1]["segments"] = [0, 3]


@refused(errors.ManifestError, "greater than or equal to 0")
def segment_from_behind(it: Forgery) -> None:
    it.files[1]["segments"] = [0, -2]


@refused(errors.ManifestError, "but its segments hold")
def file_of_another_size(it: Forgery) -> None:
    it.files[1]["size"] += 1


@refused(errors.ManifestError, "differs from that of its only segment")
def file_of_another_digest(it: Forgery) -> None:
    it.files[0]["sha256"] = sha256(b"another")


@refused(errors.LimitExceeded, "its files expand to too much")
def one_segment_over_and_over(it: Forgery) -> None:
    times = 60_000
    it.files[1] |= {"segments": [0] + [1] * times, "size": len(NOISE) + len(TEXT) * times}


@refused(errors.FormatError, "has bytes after its last segment")
def bytes_behind_the_last_segment(it: Forgery) -> None:
    it.tail = b"#!/bin/sh"


@refused(errors.FormatError, r"segments\[2\]: lies outside the package")
def package_cut_short(it: Forgery) -> None:
    it.body = it.body[:-1]


# --- what the segments hold: found when they are read


@refused(errors.DigestMismatch, r"segments\[0\]: differs from its digest")
def raw_content_changed(it: Forgery) -> None:
    it.body = bytes([it.body[0] ^ 1]) + it.body[1:]


@refused(errors.DigestMismatch, r"segments\[1\]: differs from its digest")
def compressed_content_changed(it: Forgery) -> None:
    it.store(1, zstd(TEXT.swapcase()))


@refused(errors.FormatError, r"segments\[1\]: compressed to another size; found 268435456")
def decompression_bomb(it: Forgery) -> None:
    it.store(1, zstd(bytes(2**28)))
    it.segments[1]["size"] = MAX_SEGMENT_SIZE
    it.files[1]["size"] = len(NOISE) + MAX_SEGMENT_SIZE


@refused(errors.FormatError, r"segments\[1\]: compressed to another size")
def frame_without_its_size(it: Forgery) -> None:
    it.store(1, zstd(TEXT, write_content_size=False))


@refused(errors.FormatError, r"segments\[1\]: not a whole zstd frame")
def frame_cut_short(it: Forgery) -> None:
    it.store(1, zstd(TEXT)[:-4])


@refused(errors.FormatError, r"segments\[1\]: not a whole zstd frame")
def frame_with_more_behind_it(it: Forgery) -> None:
    it.store(1, zstd(TEXT) + b"more")


@refused(errors.LimitExceeded, r"segments\[1\]: zstd window is too large")
def frame_with_a_vast_window(it: Forgery) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj(size=len(TEXT))
    frame = bytearray(stream.compress(TEXT) + stream.flush())
    # Not a single-segment frame, and a window of 2 GiB: RFC 8878, 3.1.1.1.
    size_field = frame[5 : 5 + 4]
    frame[4:9] = bytes([0b1000_0000, 21 << 3]) + size_field
    it.store(1, bytes(frame))


# --- paths and names

_PATHS = {
    "parent": ("../model.bin", "leaves its folder"),
    "parent_inside": ("a/../../model.bin", "leaves its folder"),
    "absolute": ("/etc/cron.d/model", "leaves its folder"),
    "dot": ("./model.bin", "leaves its folder"),
    "double_slash": ("a//model.bin", "leaves its folder"),
    "folder": ("model/", "leaves its folder"),
    "empty": ("", "has 0 characters"),
    "drive_letter": ("C:/model.bin", "a character that not every system allows"),
    "drive_relative": ("C:model.bin", "a character that not every system allows"),
    "backslash": ("..\\model.bin", "a character that not every system allows"),
    "share": ("\\\\host\\share", "a character that not every system allows"),
    "stream": ("model.bin:hidden", "a character that not every system allows"),
    "nul": ("model.bin\0.txt", "a character that not every system allows"),
    "newline": ("model\n.bin", "a character that not every system allows"),
    "device": ("weights/NUL", "which not every system allows"),
    "device_with_extension": ("aux.bin", "which not every system allows"),
    "trailing_dot": ("model.bin.", "which not every system allows"),
    "trailing_space": ("model.bin ", "which not every system allows"),
    "long_part": ("x" * 256, "which not every system allows"),
    "long": ("x/" * 600 + "x", "has 1201 characters"),
    "decomposed": ("mode\u0301le.bin", "not in Unicode normal form C"),
    "case_twin": ("MODEL.onnx", "is the same name"),
    "folded_twin": ("ﬁle", "is the same name"),
    "file_in_a_file": ("model.onnx/weights.bin", "lies inside another file"),
    "file_in_a_file_by_case": ("Model.Onnx/weights.bin", "lies inside another file"),
}


def _path_lie(name: str, path: str) -> Callable[[Forgery], None]:
    def tell(it: Forgery) -> None:
        it.files[1]["path"] = path
        if name == "folded_twin":
            it.files[0]["path"] = "file"

    tell.__name__ = f"path_{name}"
    return tell


for _name, (_path, _match) in _PATHS.items():
    refused(errors.ManifestError, _match)(_path_lie(_name, _path))


@refused(errors.ManifestError, r"components\[0\]\.name: .*pattern")
def component_named_like_a_path(it: Forgery) -> None:
    it.manifest["components"][0]["name"] = "../main"


@refused(errors.ManifestError, r"variants\[0\]\.id: .*pattern")
def variant_named_with_a_line_end(it: Forgery) -> None:
    it.variant["id"] = "ort-cpu\n"


@refused(errors.ManifestError, r"variants\[1\]: 'ORT-cpu' is the same name")
def variants_that_differ_by_case(it: Forgery) -> None:
    variants = it.manifest["components"][0]["variants"]
    variants.append({**it.variant, "id": "ORT-cpu"})
