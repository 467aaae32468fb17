"""Segments lie: about their places, or by what they hold, which is found when they are read."""

from __future__ import annotations

import struct

import zstandard

from aotpack import errors
from aotpack.manifest.values import MAX_SEGMENT_SIZE
from tests.attacks.forge import NOISE, TEXT, Forgery, sha256, zstd
from tests.attacks.lie import refused


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


@refused(errors.ManifestError, "Expected `int` <= 9007199254740991")
def offset_that_overflows(it: Forgery) -> None:
    it.segments[2]["offset"] = 2**64 - 1


@refused(errors.ManifestError, "Expected `int` <= 9007199254740991")
def offset_of_a_thousand_digits(it: Forgery) -> None:
    it.segments[2]["offset"] = 10**1000


@refused(errors.ManifestError, "Expected `int` >= 0")
def negative_offset(it: Forgery) -> None:
    it.segments[2]["offset"] = -1


@refused(errors.ManifestError, "Expected `int` >= 1")
def empty_segment(it: Forgery) -> None:
    it.segments[2] |= {"stored": 0, "size": 0}


@refused(errors.ManifestError, f"Expected `int` <= {MAX_SEGMENT_SIZE}")
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


@refused(errors.ManifestError, r"segments\[1\]\.shuffle: Expected 2 or 4, got 3")
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


@refused(errors.ManifestError, "Expected `int` >= 0")
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


# --- what they hold


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


@refused(errors.FormatError, r"segments\[1\]: compressed to another size")
def skippable_frame_before_the_frame(it: Forgery) -> None:
    it.store(1, struct.pack("<II", 0x184D2A50, 4) + b"skip" + zstd(TEXT))


@refused(errors.FormatError, r"segments\[1\]: not a whole zstd frame")
def skippable_frame_behind_the_frame(it: Forgery) -> None:
    it.store(1, zstd(TEXT) + struct.pack("<II", 0x184D2A50, 4) + b"skip")


@refused(errors.FormatError, r"segments\[1\]: compressed to another size; found 40000")
def content_in_two_frames(it: Forgery) -> None:
    it.store(1, zstd(TEXT[:40000]) + zstd(TEXT[40000:]))


@refused(errors.FormatError, r"segments\[1\]: not a whole zstd frame: .*[Dd]ictionary")
def frame_that_needs_a_dictionary(it: Forgery) -> None:
    samples: list[bytes | bytearray | memoryview] = [
        b"text that compresses %d " % number * 5 for number in range(500)
    ]
    dictionary = zstandard.train_dictionary(4096, samples)
    it.store(1, zstandard.ZstdCompressor(dict_data=dictionary).compress(TEXT))


@refused(errors.FormatError, r"segments\[1\]: not a whole zstd frame: .*checksum")
def frame_whose_checksum_lies(it: Forgery) -> None:
    frame = bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(TEXT))
    frame[-1] ^= 1
    it.store(1, bytes(frame))


@refused(errors.FormatError, r"segments\[1\]: not a whole zstd frame")
def frame_that_declares_64_mib_and_holds_less(it: Forgery) -> None:
    frame = bytearray(zstd(TEXT))
    # One segment with a content size of 4 bytes: RFC 8878, 3.1.1.1.
    assert frame[4] == 0b1010_0000
    frame[5:9] = MAX_SEGMENT_SIZE.to_bytes(4, "little")
    it.store(1, bytes(frame))
    it.segments[1]["size"] = MAX_SEGMENT_SIZE
    it.files[1]["size"] = len(NOISE) + MAX_SEGMENT_SIZE


@refused(errors.LimitExceeded, r"segments\[1\]: zstd window is too large")
def frame_with_a_vast_window(it: Forgery) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj(size=len(TEXT))
    frame = bytearray(stream.compress(TEXT) + stream.flush())
    # Not a single-segment frame, and a window of 2 GiB: RFC 8878, 3.1.1.1.
    size_field = frame[5 : 5 + 4]
    frame[4:9] = bytes([0b1000_0000, 21 << 3]) + size_field
    it.store(1, bytes(frame))
