"""The first bytes of a package, and how one segment is stored (docs/format.md)."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Literal

import zstandard

from aotpack.errors import FormatError, LimitExceeded, NewerFormat
from aotpack.manifest.values import FORMAT_VERSION, MAX_SEGMENT_SIZE

__all__ = [
    "FIRST_READ",
    "MAGIC",
    "MAX_MANIFEST_BYTES",
    "MAX_WINDOW_SIZE",
    "PREAMBLE_SIZE",
    "Codec",
    "Preamble",
    "decompress",
]

#: Not text to any reader, and broken by anything that strips the eighth bit or translates line ends.
MAGIC = b"\x89AOTP\r\n\x1a"

_LAYOUT = struct.Struct("<8sHHB3xQQ32s")

#: Bytes before the manifest.
PREAMBLE_SIZE = _LAYOUT.size

#: What a reader asks for first: preamble and manifest of a package of some twenty variants.
FIRST_READ = 65536

#: Of the manifest's JSON. A parsed manifest takes some ten times its text: this keeps it in memory.
MAX_MANIFEST_BYTES = 16 * 1024 * 1024

#: What one zstd frame may make its reader allocate beside the content: no more than the largest content.
MAX_WINDOW_SIZE = MAX_SEGMENT_SIZE

#: How bytes are stored.
Codec = Literal["raw", "zstd"]
_CODECS: tuple[Codec, ...] = ("raw", "zstd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preamble:
    """What stands before the manifest."""

    #: Format version.
    major: int
    minor: int
    codec: Codec
    #: Length of the manifest in the package, in bytes.
    stored: int
    #: Length of the manifest's JSON, in bytes.
    size: int
    #: sha256 of the manifest's JSON: the identity of the package.
    digest: bytes

    @classmethod
    def of(cls, manifest: bytes, stored: bytes, codec: Codec) -> Preamble:
        """The preamble of a manifest's JSON that is stored as `stored`."""
        major, minor = map(int, FORMAT_VERSION.split("."))
        digest = hashlib.sha256(manifest).digest()
        return cls(
            major=major, minor=minor, codec=codec, stored=len(stored), size=len(manifest), digest=digest
        )

    def pack(self) -> bytes:
        """The `PREAMBLE_SIZE` bytes of it."""
        codec = _CODECS.index(self.codec)
        return _LAYOUT.pack(MAGIC, self.major, self.minor, codec, self.stored, self.size, self.digest)

    @classmethod
    def unpack(cls, head: bytes, where: object) -> Preamble:
        """Read it from the first bytes of a package, and hold its lengths to their limits.

        Raises:
            FormatError: these are not the first bytes of a package.
            NewerFormat: its major format version is not ours.
            LimitExceeded: the manifest is longer than `MAX_MANIFEST_BYTES`.
        """
        if len(head) < PREAMBLE_SIZE or not head.startswith(MAGIC):
            raise FormatError("is not an aotpack package", where=where, hint="its first bytes are wrong")
        _, major, minor, codec, stored, size, digest = _LAYOUT.unpack_from(head)
        ours = int(FORMAT_VERSION.partition(".")[0])
        if major != ours:
            raise NewerFormat(
                "format version cannot be read",
                where=where,
                found=f"{major}.{minor}",
                expected=f"{ours}.x",
                hint="install a release of aotpack that reads it",
            )
        if codec >= len(_CODECS):
            raise FormatError("unknown codec of the manifest", where=where, found=codec, expected="0 or 1")
        for length in (stored, size):
            if length > MAX_MANIFEST_BYTES:
                raise LimitExceeded(
                    "manifest is too long", where=where, found=length, expected=f"<= {MAX_MANIFEST_BYTES}"
                )
        return cls(major=major, minor=minor, codec=_CODECS[codec], stored=stored, size=size, digest=digest)


def decompress(stored: bytes, size: int, where: object) -> bytes:
    """The content of one zstd frame, `size` bytes.

    Raises:
        FormatError: `stored` is not one whole frame, or it declares another size than `size`.
        LimitExceeded: the frame asks for a window above `MAX_WINDOW_SIZE`.
    """
    try:
        # Before anything is allocated: zstandard trusts what a frame declares, whatever limit it is given.
        declared = zstandard.get_frame_parameters(stored)
        if declared.content_size != size:
            raise FormatError(
                "compressed to another size", where=where, found=declared.content_size, expected=size
            )
        if declared.window_size > MAX_WINDOW_SIZE:
            raise LimitExceeded("zstd window is too large", where=where, found=declared.window_size)
        content = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_SIZE).decompress(
            stored, max_output_size=size, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise FormatError(f"not a whole zstd frame: {error}", where=where) from None
    if len(content) != size:
        raise FormatError("decompressed to another size", where=where, found=len(content), expected=size)
    return content
