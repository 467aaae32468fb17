"""How large a package is, beside what else could hold the same files: ``python -m benchmarks.size``."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from aotpack.container import writer
from aotpack.container.content import Content
from aotpack.container.reader import PackageReader
from aotpack.manifest.values import Manifest
from benchmarks._built import loose, package, section, shell

_ARCHIVES = {
    "tar": "tar -cf {out} *",
    "zip": "zip -qr {out} *",
    "tar | zstd -3": "tar -c * | zstd -3 -q -o {out}",
    "tar | zstd -3 --long=31": "tar -c * | zstd -3 --long=31 -q -o {out}",
}


def main() -> None:
    """Print both tables."""
    with PackageReader.open(package()) as reader, tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        files = loose(reader, work / "loose")
        total = sum(
            place.stat().st_size
            for entries in files.values()
            for _, place in entries
            if isinstance(place, Path)
        )
        manifest = _ordered(reader.manifest, list(files))
        ids = {variant.target: variant.id for variant in manifest.variants()}
        contents = {("main", ids[target]): entries for target, entries in files.items()}

        with section("One model, the portable variant and five targets (MB)"):
            _row("the files, as ORT's model package holds them", total, total)
            for name, command in _ARCHIVES.items():
                out = work / "archive"
                shell(command.format(out=out), work / "loose")
                (size,) = (path.stat().st_size for path in work.glob("archive*"))
                _row(name, size, total)
                for path in work.glob("archive*"):
                    path.unlink()
            for name, level in (("aotpack, --compress none", None), ("aotpack", 3)):
                written = writer.write(work / "x.aotpack", manifest, contents, compress=level)
                _row(name, (work / "x.aotpack").stat().st_size, total)
            print(
                f"{len(written.segments)} segments,",
                f"{sum(segment.size for segment in written.segments) / 1e6:.1f} MB distinct",
            )

        with section("What each further target costs, in % of its files"):
            before = 0
            for count, target in enumerate(files, start=1):
                some = list(files)[:count]
                part = _ordered(reader.manifest, some)
                writer.write(
                    work / "x.aotpack",
                    part,
                    {("main", ids[name]): files[name] for name in some},
                    compress=None,
                )
                size = (work / "x.aotpack").stat().st_size
                own = _size(files[target])
                added, before = size - before, size
                print(f"{target:24} {added / 1e6:8.2f} MB of {own / 1e6:6.1f}  {100 * added / own:7.2f} %")


def _size(files: Sequence[tuple[str, Content]]) -> int:
    """Bytes of files that lie on the disk."""
    return sum(place.stat().st_size for _, place in files if isinstance(place, Path))


def _ordered(manifest: Manifest, targets: list[str]) -> Manifest:
    (component,) = manifest.components
    by_target = {variant.target: variant for variant in component.variants}
    some = component.replace(variants=tuple(by_target[target] for target in targets))
    return manifest.replace(components=(some,))


def _row(name: str, size: int, total: int) -> None:
    print(f"{name:46} {size / 1e6:8.1f}  {100 * size / total:6.1f} %")


if __name__ == "__main__":
    main()
