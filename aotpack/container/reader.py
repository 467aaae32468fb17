"""Read a package: its manifest first, then the segments of what was chosen, every byte against its digest.

The reader knows segments only. How they came to be shared is the writer's affair.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import xxhash

from aotpack.container.copying import StoredRange, copy_file
from aotpack.container.format import FIRST_READ, PREAMBLE_SIZE, Preamble, decompress
from aotpack.container.shuffling import unshuffled
from aotpack.errors import DigestMismatch, FormatError, LimitExceeded, PackageError
from aotpack.manifest.parsing import parse
from aotpack.manifest.values import File, Manifest, Segment
from aotpack.sources.base import ByteSource
from aotpack.sources.file import FileSource

__all__ = ["MAX_EXPANSION", "MIN_EXPANDED_BYTES", "PackageReader"]

#: All distinct files of a package together may hold so many times the bytes of the package. A file may name
#: one segment over and over: without a bound, a package of a kilobyte could fill any disk.
MAX_EXPANSION = 1024
#: ... but so much is always allowed, for tiny models of many targets.
MIN_EXPANDED_BYTES = 4 * 1024**3

_WORKERS = min(8, os.cpu_count() or 1)
_MAX_ISSUES = 20


class PackageReader:
    """An open package. Its methods may be called from several threads at once.

    Attributes:
        source: where its bytes come from.
        manifest: what it says of itself.
        digest: sha256 of the manifest's JSON in hex: the identity of the package.
        bytes_read: bytes that were read to get the manifest.
    """

    def __init__(self, source: ByteSource) -> None:
        """Read the manifest of the package at `source`, which is closed together with the reader.

        Raises:
            FormatError: the bytes are not a well-formed package; `NewerFormat`, `ManifestError` and
                `LimitExceeded` say more.
            DigestMismatch: the manifest is not the one that the preamble promises.
        """
        self.source = source
        name = source.name
        size = source.size()
        head = source.read_at(0, min(FIRST_READ, size))
        preamble = Preamble.unpack(head, name)
        end = PREAMBLE_SIZE + preamble.stored
        if end > size:
            raise FormatError("ends inside the manifest", where=name, found=size, expected=f">= {end} bytes")
        stored = head[PREAMBLE_SIZE:end]
        if len(stored) < preamble.stored:
            stored += source.read_at(len(head), end - len(head))
        self.bytes_read = max(len(head), end)
        text = stored if preamble.codec == "raw" else decompress(stored, preamble.size, f"{name}: manifest")
        if len(text) != preamble.size:
            raise FormatError(
                "manifest has another length", where=name, found=len(text), expected=preamble.size
            )
        if hashlib.sha256(text).digest() != preamble.digest:
            raise DigestMismatch("manifest differs from its digest", where=name, hint=_DAMAGED)
        self.digest = preamble.digest.hex()
        try:
            self.manifest: Manifest = parse(text)
        except PackageError as error:
            # It says where in the manifest; of several packages one wants to know which.
            raise type(error)(str(error), where=name) from None
        if self.manifest.aotpack != f"{preamble.major}.{preamble.minor}":
            raise FormatError(
                "manifest is of another format version than the preamble",
                where=name,
                found=self.manifest.aotpack,
                expected=f"{preamble.major}.{preamble.minor}",
            )
        _check_extent(self.manifest, end, size, name)

    @classmethod
    def open(cls, path: Path) -> PackageReader:
        """Open the package in a local file.

        Raises:
            PackageNotFound: there is no such file.
            PackageError: as for the constructor.
        """
        source = FileSource(path)
        try:
            return cls(source)
        except BaseException:
            source.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def path(self) -> Path | None:
        """The local file of the package, or None if it is elsewhere."""
        return self.source.path

    def close(self) -> None:
        """Let go of the source."""
        self.source.close()

    def read_segment(self, index: int) -> bytes:
        """The content of one segment, checked against its sha256.

        Raises:
            DigestMismatch: it has other bytes.
            FormatError: it is not stored as the manifest says.
        """
        return self.content_of(index, self.read_stored(index))

    def content_of(self, index: int, stored: bytes) -> bytes:
        """As `read_segment`, of a segment whose stored bytes were read before."""
        content = b"".join(self._parts_of(index, stored))
        if hashlib.sha256(content).hexdigest() != self.manifest.segments[index].sha256:
            raise self.damaged(index)
        return content

    def segment_parts(self, index: int) -> Iterator[bytes | memoryview]:
        """The content of one segment part by part. Nothing is checked but that it has the right length.

        Raises:
            FormatError: it is not stored as the manifest says.
        """
        return self._parts_of(index, self.read_stored(index))

    def _parts_of(self, index: int, stored: bytes) -> Iterator[bytes | memoryview]:
        segment = self.manifest.segments[index]
        if segment.codec == "raw":
            yield stored
            return
        content = decompress(stored, segment.size, self._where(index))
        if segment.shuffle is None:
            yield content
        else:
            yield from unshuffled(content, segment.shuffle)

    def read_stored(self, index: int) -> bytes:
        """The bytes of one segment as they lie in the package; nothing but their number is checked."""
        segment = self.manifest.segments[index]
        stored = self.source.read_at(segment.offset, segment.stored)
        if len(stored) != segment.stored:
            raise FormatError("the package ends inside it", where=self._where(index), hint=_DAMAGED)
        return stored

    def read_file(self, file: File) -> bytes:
        """A whole file of a variant, checked. For files that fit the memory."""
        return b"".join(map(self.read_segment, file.segments))

    def copy_file(self, file: File, dest: Path, reusable: Mapping[int, StoredRange] | None = None) -> None:
        """Write a file of a variant to the new file `dest`; see `aotpack.container.copying.copy_file`."""
        copy_file(self, file, dest, reusable)

    def damaged(self, index: int) -> DigestMismatch:
        """The error that says that a segment has other bytes than it should."""
        return DigestMismatch("differs from its digest", where=self._where(index), hint=_DAMAGED)

    def verify(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Check every byte of every segment and file against its digest.

        Args:
            progress: called with (bytes done, bytes in all).

        Raises:
            DigestMismatch: some are wrong; all of them are named.
        """
        from concurrent.futures import ThreadPoolExecutor

        segments = self.manifest.segments
        files = list(_distinct_files(self.manifest))
        total = sum(segment.size for segment in segments) + sum(file.size for _, file in files)
        done = 0
        issues: list[str] = []
        bad: set[int] = set()

        def report(size: int) -> None:
            nonlocal done
            done += size
            if progress is not None:
                progress(done, total)

        with ThreadPoolExecutor(_WORKERS) as pool:
            for index, issue in enumerate(pool.map(self._segment_issue, range(len(segments)))):
                if issue is not None:
                    bad.add(index)
                    issues.append(issue)
                report(segments[index].size)
            whole = [(where, file) for where, file in files if bad.isdisjoint(file.segments)]
            issues += [
                f"{where}: holds damaged segments"
                for where, file in files
                if not bad.isdisjoint(file.segments)
            ]
            for (where, file), same in zip(
                whole, pool.map(self._file_is_right, (f for _, f in whole)), strict=True
            ):
                if not same:
                    issues.append(f"{where}: differs from its sha256")
                report(file.size)
        if issues:
            more = f" and {len(issues) - _MAX_ISSUES} more" if len(issues) > _MAX_ISSUES else ""
            raise DigestMismatch(
                f"damaged in {len(issues)} places",
                where=self.source.name,
                found="; ".join(issues[:_MAX_ISSUES]) + more,
                hint=_DAMAGED,
            )

    def _segment_issue(self, index: int) -> str | None:
        segment = self.manifest.segments[index]
        sha256, xxh3 = hashlib.sha256(), xxhash.xxh3_128()
        try:
            for part in self.segment_parts(index):
                sha256.update(part)
                xxh3.update(part)
        except FormatError as error:
            return f"segments[{index}]: {error}"
        if sha256.hexdigest() != segment.sha256:
            return f"segments[{index}]: differs from its sha256"
        if xxh3.hexdigest() != segment.xxh3:
            return f"segments[{index}]: differs from its xxh3"
        return None

    def _file_is_right(self, file: File) -> bool:
        digest = hashlib.sha256()
        for index in file.segments:
            for part in self.segment_parts(index):
                digest.update(part)
        return digest.hexdigest() == file.sha256

    def _where(self, index: int) -> str:
        return f"{self.source.name}: segments[{index}]"


_DAMAGED = "the package is damaged or was changed; fetch or build it again"


def _check_extent(manifest: Manifest, start: int, size: int, name: str) -> None:
    """Hold the segments to the file they lie in; `aotpack.manifest.parsing` sees that they do not overlap."""

    def outside(segment: Segment) -> bool:
        return segment.offset < start or segment.offset + segment.stored > size

    end = start
    for index, segment in enumerate(manifest.segments):
        if outside(segment):
            raise FormatError(
                "lies outside the package",
                where=f"{name}: segments[{index}]",
                found=f"bytes {segment.offset} to {segment.offset + segment.stored}",
                expected=f"within {start} to {size}",
                hint=_DAMAGED,
            )
        end = max(end, segment.offset + segment.stored)
    if end != size:
        raise FormatError("has bytes after its last segment", where=name, found=size, expected=f"{end} bytes")
    allowed = max(MIN_EXPANDED_BYTES, MAX_EXPANSION * size)
    # Nearly always all of them are few enough, and then nobody needs to know which are the same.
    if sum([variant.size for variant in manifest.variants()]) <= allowed:
        return
    expanded = sum(file.size for _, file in _distinct_files(manifest))
    if expanded > allowed:
        raise LimitExceeded(
            "its files expand to too much", where=name, found=expanded, expected=f"<= {allowed} bytes"
        )


def _distinct_files(manifest: Manifest) -> Iterator[tuple[str, File]]:
    seen: set[tuple[str, tuple[int, ...]]] = set()
    for component in manifest.components:
        for variant in component.variants:
            for file in variant.files:
                if (file.sha256, file.segments) not in seen:
                    seen.add((file.sha256, file.segments))
                    yield f"{component.name}/{variant.id}/{file.path}", file
