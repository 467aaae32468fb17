"""A tiny package, put together by hand after docs/format.md, with every part of it open to lies."""

from __future__ import annotations

import copy
import hashlib
import json
import random
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash
import zstandard

#: Where the segments begin: far enough behind that a manifest may grow.
START = 256 * 1024

ONNX = b"an ONNX model, small and raw"
TEXT = b"text that compresses " * 4000
NOISE = random.Random(1).randbytes(70_000)


def zstd(data: bytes, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=False, **options).compress(data)


@dataclass
class Forgery:
    """What is written. All lengths and digests that are None are the right ones."""

    manifest: dict[str, Any]
    #: The bytes of the package from `START` on.
    body: bytes
    #: Instead of the manifest's JSON.
    text: bytes | None = None
    #: Instead of the manifest's zstd frame.
    frame: bytes | None = None
    magic: bytes = b"\x89AOTP\r\n\x1a"
    version: tuple[int, int] = (1, 0)
    codec: int = 1
    stored: int | None = None
    size: int | None = None
    digest: bytes | None = None
    #: Appended to all.
    tail: bytes = b""

    @property
    def variant(self) -> dict[str, Any]:
        variant: dict[str, Any] = self.manifest["components"][0]["variants"][0]
        return variant

    @property
    def files(self) -> list[dict[str, Any]]:
        files: list[dict[str, Any]] = self.variant["files"]
        return files

    @property
    def segments(self) -> list[dict[str, Any]]:
        segments: list[dict[str, Any]] = self.manifest["segments"]
        return segments

    def store(self, index: int, stored: bytes, content: bytes | None = None) -> None:
        """Give a segment other stored bytes, at the end of the package, and the digests of `content`."""
        segment = self.segments[index]
        segment |= {"offset": START + len(self.body), "stored": len(stored)}
        self.body += stored
        if content is not None:
            segment |= {"size": len(content), "sha256": sha256(content), "xxh3": xxh3(content)}

    def write(self, path: Path) -> Path:
        text = (
            self.text if self.text is not None else json.dumps(self.manifest, separators=(",", ":")).encode()
        )
        frame = self.frame if self.frame is not None else zstd(text) if self.codec == 1 else text
        preamble = struct.pack(
            "<8sHHB3xQQ32s",
            self.magic,
            *self.version,
            self.codec,
            len(frame) if self.stored is None else self.stored,
            len(text) if self.size is None else self.size,
            hashlib.sha256(text).digest() if self.digest is None else self.digest,
        )
        head = preamble + frame
        assert len(head) <= START or not self.body
        path.write_bytes(head.ljust(START, b"\0") + self.body + self.tail if self.body else head + self.tail)
        return path


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def xxh3(data: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(data)


def shuffled(data: bytes, width: int) -> bytes:
    """As the page says it, byte by byte."""
    count = len(data) // width
    out = bytearray(data)
    for i in range(count):
        for j in range(width):
            out[j * count + i] = data[width * i + j]
    return bytes(out)


def _package() -> Forgery:
    contents = [(NOISE, "raw", NOISE), (TEXT, "zstd", zstd(TEXT)), (ONNX, "raw", ONNX)]
    segments, body = [], b""
    for content, codec, stored in contents:
        segments.append(
            {
                "offset": START + len(body),
                "stored": len(stored),
                "size": len(content),
                "codec": codec,
                "sha256": sha256(content),
                "xxh3": xxh3(content),
            }
        )
        body += stored
    files = [
        {"path": "model.onnx", "size": len(ONNX), "sha256": sha256(ONNX), "segments": [2]},
        {"path": "model.bin", "size": len(NOISE + TEXT), "sha256": sha256(NOISE + TEXT), "segments": [0, 1]},
    ]
    variant = {
        "id": "ort-cpu",
        "target": "ort-cpu",
        "toolchain": "ort",
        "ep": "CPUExecutionProvider",
        "device": "cpu",
        "files": files,
    }
    component = {
        "name": "main",
        "source": {"sha256": sha256(ONNX), "size": len(ONNX), "opsets": {"": 17}},
        "inputs": [],
        "outputs": [],
        "variants": [variant],
    }
    manifest = {"aotpack": "1.0", "name": "tiny", "components": [component], "segments": segments}
    return Forgery(manifest, body)


_HONEST = _package()


def honest() -> Forgery:
    """A package without a lie, to be changed."""
    return copy.deepcopy(_HONEST)
