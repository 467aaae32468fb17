"""Write a package: equal bytes of all files once, compressed where it pays, whole or not at all.

Memory does not grow with the files: they are read in windows, and a few segments are on their way at a time.
The same files give the same package, byte for byte (with the same release of zstd).
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import xxhash

from aotpack.common.paths import path_issue
from aotpack.container.compressing import compress, compressed
from aotpack.container.content import Content, StoredFile
from aotpack.container.format import PREAMBLE_SIZE, Preamble
from aotpack.container.partial import PartialFile, check_is_package, replacing, syncing
from aotpack.container.reader import PackageReader
from aotpack.container.sharing import LONGEST, Piece, Plan, plan
from aotpack.container.unpacked import Unpacked
from aotpack.errors import UsageError
from aotpack.files.positional import write_at
from aotpack.manifest.values import ALIGNED_FROM, PAGE_SIZE, File, Manifest, Segment

__all__ = ["Content", "StoredFile", "write"]

#: zstd level of the manifest, which is small and written once.
_MANIFEST_LEVEL = 9

_WORKERS = min(8, os.cpu_count() or 1)

#: Segments that are in memory at a time: some are made and some wait for their turn to be written. Small ones
#: stand between large ones, so that it takes a few more to keep all workers busy.
_ON_THE_WAY = 2 * _WORKERS + 4

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Key = tuple[str, str]
_Entry = tuple[_Key, str, Content]


def write(
    output: Path,
    manifest: Manifest,
    contents: Mapping[_Key, Sequence[tuple[str, Content]]],
    *,
    compress: int | None = 3,
    progress: Callable[[int, int], None] | None = None,
    force: bool = False,
) -> Manifest:
    """Write a package.

    Args:
        output: the file to write. It is replaced in one step when all is written; of two that write it at
            once the last to finish wins. It may be a package that `contents` are in; Windows closes that one.
        manifest: what the package says of itself. Its variants' files and its segments are not looked at.
        contents: (component, variant id) to the variant's files, each as (path in the variant, content); the
            ONNX model to load comes first.
        compress: zstd level, or None to store raw what is not compressed already.
        progress: called with (bytes stored, distinct bytes in all), both before compression.
        force: replace a file that is not a package, too.

    Returns:
        The manifest with files and segments, as it stands in the package.

    Raises:
        UsageError: `contents` has other variants than `manifest`, or a path that not every system can have.
        OutputError: `output` cannot be written; or a file cannot be read, or changed meanwhile.
    """
    check_is_package(output, force=force)
    keys = [
        (component.name, variant.id) for component in manifest.components for variant in component.variants
    ]
    if set(keys) != set(contents):
        odd = ", ".join(sorted("/".join(key) for key in set(keys) ^ set(contents)))
        raise UsageError("variants and contents differ", where=output, found=odd)
    entries = [(key, path, content) for key in keys for path, content in contents[key]]
    for key, path, _ in entries:
        if (issue := path_issue(path)) is not None:
            raise UsageError(
                f"the file name {issue}",
                where="/".join(key),
                hint="name the file or its external data otherwise",
            )
    with Unpacked(output.parent) as unpacked, ThreadPoolExecutor(_WORKERS) as pool:
        planned = plan([content for _, _, content in entries], pool, unpacked)
        start = PREAMBLE_SIZE + _estimated_length(manifest, entries, planned)
        with replacing(output) as partial:
            while True:
                segments, numbers, end = _write_segments(
                    partial, start, planned.pieces, compress, pool, progress
                )
                final = _filled(manifest, entries, planned, planned.digests, segments, numbers)
                head = _head(final)
                if len(head) <= start:
                    break
                # The estimate was too low, which costs a second round.
                start = len(head) + PAGE_SIZE
            write_at(partial.fd, 0, head)
            os.ftruncate(partial.fd, end if segments else len(head))
            # What this release could not read is not given out.
            PackageReader.open(partial.path).close()
            if sys.platform == "win32":
                _close_readers_of(output, contents)
    return final


def _close_readers_of(output: Path, contents: Mapping[_Key, Sequence[tuple[str, Content]]]) -> None:
    """Let go of `output` if it was copied from and is open: Windows replaces no such file."""
    readers = {
        content.reader
        for files in contents.values()
        for _, content in files
        if isinstance(content, StoredFile)
    }
    for reader in readers:
        with contextlib.suppress(OSError):
            if reader.path is not None and reader.path.samefile(output):
                reader.close()


def _write_segments(
    partial: PartialFile,
    start: int,
    pieces: Sequence[Piece],
    compress: int | None,
    pool: Executor,
    progress: Callable[[int, int], None] | None,
) -> tuple[tuple[Segment, ...], list[int], int]:
    """Write all pieces from `start` on; give segments, which of them each piece is, and where they end."""
    # By digest: pieces with equal bytes are one segment, also those that the plan did not know to be equal.
    number_of: dict[str, int] = {}
    segments: list[Segment] = []
    numbers: list[int] = []
    total = sum(piece.length for piece in pieces)
    done, end = 0, start
    # Taken by who makes a segment and given back when it is written.
    buffers: deque[bytearray] = deque()

    def work(piece: Piece) -> tuple[Segment, bytes | memoryview, bytearray]:
        try:
            buffer = buffers.pop()
        except IndexError:
            buffer = bytearray(min(LONGEST, total))
        return *_stored(piece, compress, buffer), buffer

    with syncing(partial) as wrote:
        for segment, stored, buffer in _in_order(work, pieces, pool):
            number = number_of.setdefault(segment.sha256, len(segments))
            numbers.append(number)
            if number == len(segments):
                if segment.codec == "raw" and segment.size >= ALIGNED_FROM:
                    end += -end % PAGE_SIZE
                write_at(partial.fd, end, stored)
                wrote(len(stored))
                segments.append(segment.replace(offset=end))
                end += len(stored)
            buffers.append(buffer)
            done += segment.size
            if progress is not None:
                progress(done, total)
    return tuple(segments), numbers, end


def _stored(piece: Piece, level: int | None, buffer: bytearray) -> tuple[Segment, bytes | memoryview]:
    """A piece as it is to be stored, with an offset that is not known yet."""
    if (whole := piece.stored) is not None:
        return whole.segment, whole.read_stored()
    return _stored_anew(piece.read(buffer), level)


def _stored_anew(content: memoryview, level: int | None) -> tuple[Segment, bytes | memoryview]:
    frame = None if level is None else compressed(content, level)
    stored = content if frame is None else frame.stored
    segment = Segment(
        offset=0,
        stored=len(stored),
        size=len(content),
        codec="raw" if frame is None else "zstd",
        shuffle=None if frame is None else frame.width,
        sha256=hashlib.sha256(content).hexdigest(),
        xxh3=xxhash.xxh3_128_hexdigest(content),
    )
    return segment, stored


def _in_order(work: Callable[[_Item], _Result], items: Sequence[_Item], pool: Executor) -> Iterator[_Result]:
    """The results in the order of the items, with only a few of them in memory."""
    waiting: deque[Future[_Result]] = deque()
    rest = iter(items)
    try:
        while True:
            waiting.extend(
                pool.submit(work, item) for item in itertools.islice(rest, _ON_THE_WAY - len(waiting))
            )
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _filled(
    manifest: Manifest,
    entries: Sequence[_Entry],
    planned: Plan,
    digests: Sequence[str],
    segments: tuple[Segment, ...],
    numbers: Sequence[int],
) -> Manifest:
    """The manifest with its files and segments, `numbers` being the segment that each piece is."""
    files: dict[_Key, list[File]] = {}
    for (key, path, _), used, sha256 in zip(entries, planned.files, digests, strict=True):
        size = sum(planned.pieces[index].length for index in used)
        file = File(path=path, size=size, sha256=sha256, segments=tuple(numbers[index] for index in used))
        files.setdefault(key, []).append(file)
    components = tuple(
        component.replace(
            variants=tuple(
                variant.replace(files=tuple(files.get((component.name, variant.id), ())))
                for variant in component.variants
            )
        )
        for component in manifest.components
    )
    return manifest.replace(components=components, segments=segments)


def _head(manifest: Manifest) -> bytes:
    """Preamble and manifest as they stand in the package."""
    text = manifest.canonical_json()
    packed = compress(text, _MANIFEST_LEVEL)
    return Preamble.of(text, packed, "zstd").pack() + packed


def _estimated_length(manifest: Manifest, entries: Sequence[_Entry], planned: Plan) -> int:
    """How long the manifest will be at most, in all likelihood.

    It stands before the segments but is known after them. All of it that is not known yet are numbers and
    digests, which do not compress, so others in their place give the same length but for a little.
    """
    noise = (hashlib.sha256(b"%d" % number).hexdigest() for number in itertools.count())
    offsets = itertools.accumulate((piece.length for piece in planned.pieces), initial=PAGE_SIZE)
    segments = tuple(
        Segment(
            offset=offset + int(digest[:3], 16),
            stored=max(1, piece.length - int(digest[3:6], 16)),
            size=piece.length,
            codec="zstd",
            sha256=digest,
            xxh3=next(noise)[:32],
        )
        for piece, offset, digest in zip(planned.pieces, offsets, noise, strict=False)
    )
    digests = [next(noise) for _ in entries]
    guess = _filled(manifest, entries, planned, digests, segments, range(len(segments)))
    length = len(_head(guess)) - PREAMBLE_SIZE
    return length + length // 64 + 64
