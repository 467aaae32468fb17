"""The first 64 bytes lie, or the frame of the manifest."""

from __future__ import annotations

import json
import os

from aotpack import errors
from aotpack.container.format import MAX_MANIFEST_BYTES
from tests.attacks.forge import START, Forgery, zstd
from tests.attacks.lie import refused


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
