"""Find segments in files that the cache has already.

Variants of one vendor share most of their segments. What one of them has need not be decompressed or fetched
again for the next, and where the file system can share blocks between files it takes no more room either.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from aotpack.cache.stamp import Stamp, segments_of
from aotpack.container.copying import StoredRange
from aotpack.manifest.values import ALIGNED_FROM, Manifest, Variant

__all__ = ["reusable"]


def reusable(variant: Variant, manifest: Manifest, folders: Iterable[Path]) -> dict[int, StoredRange]:
    """Where large segments of a variant stand in files of other variants that nobody has touched since.

    A stamp knows segments by their xxh3, which says that they are alike in all likelihood and no more.

    Args:
        variant: what is to be put together, and
        manifest: what it belongs to.
        folders: those of variants in the cache, each with a stamp and files.
    """
    wanted: dict[tuple[int, str], tuple[int, int]] = {}
    for file in variant.files:
        place = 0
        for index, segment in zip(file.segments, segments_of(file, manifest), strict=True):
            size = segment[0]
            if size >= ALIGNED_FROM:
                wanted.setdefault(segment, (index, place))
            place += size
    found: dict[int, StoredRange] = {}
    for folder in folders if wanted else ():
        stamp = Stamp.read(folder / "stamp.json")
        for known in stamp.files if stamp is not None else ():
            if wanted.keys().isdisjoint(known.segments) or not known.is_unchanged(folder / "files"):
                continue
            offset = 0
            for segment in known.segments:
                if segment in wanted:
                    index, place = wanted[segment]
                    stored = StoredRange(folder / "files" / known.path, offset)
                    # One whose pages can be cloned is worth most.
                    if index not in found or (stored.fits(place) and not found[index].fits(place)):
                        found[index] = stored
                offset += segment[0]
    return found
