"""Put the files of a variant together in the cache: linked, cloned or copied, each byte checked."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from aotpack.cache.keys import file_key
from aotpack.cache.layout import FILES, VARIANTS, WORK, ours
from aotpack.cache.reuse import reusable
from aotpack.cache.stamp import FileStamp, Stamp, is_right, is_whole, segments_of, stamp_file
from aotpack.cache.variant_folder import links_change, remove
from aotpack.container.copying import StoredRange
from aotpack.container.model_files import check_model_file
from aotpack.container.reader import PackageReader
from aotpack.files.regular import discard, make_folder
from aotpack.manifest.model_check import Allowance
from aotpack.manifest.values import Component, File, Manifest, Variant

__all__ = ["check_variant_model", "put_together", "right_files"]

#: Links are made to a file, never to what a link points to; Windows can do no other and refuses to be told.
_ITSELF = {"follow_symlinks": False} if os.link in os.supports_follow_symlinks else {}


def put_together(
    root: Path,
    reader: PackageReader,
    component: Component,
    variant: Variant,
    key: str,
    allowance: Allowance | None,
) -> Stamp:
    """Put a variant into the cache, or put right what is there. The caller holds the lock of its key.

    Args:
        root: of the cache.
        reader: the package.
        component: of the package.
        variant: of the component.
        key: the name of its folder.
        allowance: what its ONNX may have beside what every package may; None: it is not checked.

    Returns:
        The stamp, which the caller writes when the files are on the disk.

    Raises:
        DigestMismatch, FormatError: the package is damaged.
        NotAllowed: its ONNX asks for what it may not. Nothing of it is kept.
        OSError: the cache cannot be written.
    """
    manifest = reader.manifest
    for name in (VARIANTS, FILES, WORK):
        make_folder(root / name)
    entry, work = root / VARIANTS / key, root / WORK / key
    files = right_files(entry, variant, manifest)
    if files is not None:
        check_variant_model(entry / "files", variant, allowance)
    else:
        discard(work)
        try:
            files = _assembled(root, reader, variant, entry, work, allowance)
            # What is damaged goes, whoever uses it: they notice, and try again.
            remove(root, key, in_use=True)
            work.rename(entry)
        finally:
            discard(work)
    return Stamp(
        package=manifest.name,
        component=component.name,
        variant=variant.id,
        target=variant.target,
        files=files,
    )


def right_files(entry: Path, variant: Variant, manifest: Manifest) -> tuple[FileStamp, ...] | None:
    """The stamps of the files that are there, if all have the right bytes.

    They were touched and not changed, or never stamped. A session may have them open, and Windows moves no
    such file, so they stay.
    """
    # First: what is written after that shows in the status.
    try:
        found = tuple(stamp_file(entry / "files", file, manifest) for file in variant.files)
    except OSError:
        return None
    return found if is_whole(entry, found) else None


def check_variant_model(folder: Path, variant: Variant, allowance: Allowance | None) -> None:
    """Check the ONNX of a variant whose files are in `folder`, unless `allowance` is None.

    Raises:
        NotAllowed: it asks for what it may not.
    """
    if allowance is not None:
        model, sizes = variant.files[0].path, {file.path: file.size for file in variant.files}
        check_model_file(folder / model, model, sizes, allowance)


def _assembled(
    root: Path,
    reader: PackageReader,
    variant: Variant,
    entry: Path,
    work: Path,
    allowance: Allowance | None,
) -> tuple[FileStamp, ...]:
    """Make ``<work>/files``, and stamp each of them."""
    manifest = reader.manifest
    lent = reusable(variant, manifest, ours(root, VARIANTS))
    work.mkdir()
    (work / "files").mkdir()
    twins = [(root / FILES / file_key(file, manifest), entry / "files" / file.path) for file in variant.files]
    with links_change(root, entry.name, _linked_inodes(twins)):
        for index, (file, (shared, former)) in enumerate(zip(variant.files, twins, strict=True)):
            dest = work / "files" / file.path
            dest.parent.mkdir(parents=True, exist_ok=True)
            _put(reader, file, dest, shared, former, lent)
            if index == 0:
                check_variant_model(work / "files", variant, allowance)
        # When all links are made: of two files with the same content the second is linked to the first.
        return tuple(stamp_file(work / "files", file, manifest) for file in variant.files)


def _linked_inodes(twins: Iterable[tuple[Path, Path]]) -> set[int]:
    """Inodes of files that a variant has and that may be linked to once more."""
    found = set()
    for path in itertools.chain.from_iterable(twins):
        with contextlib.suppress(OSError):
            status = os.lstat(path)
            if status.st_nlink > 1:
                found.add(status.st_ino)
    return found


def _put(
    reader: PackageReader, file: File, dest: Path, shared: Path, former: Path, lent: Mapping[int, StoredRange]
) -> None:
    """Make the file `dest`, by a link to the same bytes if the cache has them."""
    for twin in (shared, former):
        if is_right(twin, segments_of(file, reader.manifest)):
            with contextlib.suppress(OSError):
                os.link(twin, dest, **_ITSELF)
                return
    reader.copy_file(file, dest, lent)
    if os.name != "nt":
        # Windows could not remove it again.
        dest.chmod(0o444)
    # Not every file system has hard links, and an EP needs none.
    with contextlib.suppress(OSError):
        discard(shared)
        os.link(dest, shared, **_ITSELF)
