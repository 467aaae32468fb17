"""How fast packages are written, read and opened, in ratios: ``python -m benchmarks.throughput``."""

from __future__ import annotations

import gc
import hashlib
import itertools
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from aotpack.cache.variants import Cache
from aotpack.container import writer
from aotpack.container.reader import PackageReader
from aotpack.runtime.package import Package
from aotpack.runtime.session import create
from aotpack.toolchains import toolchains
from benchmarks._built import loose, package, section, shell, side_by_side

_ONE_OPENING = """
import sys, time
from pathlib import Path
from aotpack.container.reader import PackageReader
start = time.perf_counter()
PackageReader.open(Path(sys.argv[1]))
print(time.perf_counter() - start)
"""


def main() -> None:
    """Print all ratios."""
    with PackageReader.open(package()) as reader, tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        files = loose(reader, work / "loose")
        places = [Path(str(place)) for entries in files.values() for _, place in entries]
        total = sum(place.stat().st_size for place in places)
        ids = {variant.target: variant.id for variant in reader.manifest.variants()}
        contents = {("main", ids[target]): entries for target, entries in files.items()}

        def hashed() -> None:
            for place in places:
                with place.open("rb") as file:
                    hashlib.file_digest(file, "sha256")

        archive, raw, compressed = work / "x.tar.zst", work / "raw.aotpack", work / "zstd.aotpack"

        def removed() -> None:
            for path in (archive, raw, compressed):
                path.unlink(missing_ok=True)

        with section(f"Packing {total / 1e6:.0f} MB of files"):
            took = side_by_side(
                {
                    "sha256 of the files": hashed,
                    "tar | zstd -3 --long=31": lambda: shell(
                        f"tar -c * | zstd -3 --long=31 -q -o {archive}", work / "loose"
                    ),
                    "raw": lambda: writer.write(raw, reader.manifest, contents, compress=None),
                    "compressed": lambda: writer.write(compressed, reader.manifest, contents),
                },
                prepare=removed,
            )
            removed()
            writer.write(raw, reader.manifest, contents, compress=None)
            writer.write(compressed, reader.manifest, contents)
            for name, seconds in took.items():
                ratio = took["sha256 of the files"] / seconds
                print(f"{name:28} {seconds:6.3f} s  {ratio:5.2f} of sha256's throughput")

        sizes = {
            target: sum(Path(str(place)).stat().st_size for _, place in entries)
            for target, entries in files.items()
        }
        target = max(sizes, key=sizes.__getitem__)
        with section(
            f"Cold extraction of {target}, {sizes[target] / 1e6:.0f} MB, each byte checked, against `cp`"
        ):
            out = work / "out"

            def copied() -> None:
                shell(f"cp -r {work}/loose/{target} {out}", work)

            def extracted(path: Path) -> None:
                out.mkdir()
                with PackageReader.open(path) as opened:
                    for file in next(v for v in opened.manifest.variants() if v.target == target).files:
                        opened.copy_file(file, out / file.path)

            took = side_by_side(
                {
                    "cp": copied,
                    "raw": lambda: extracted(raw),
                    "compressed": lambda: extracted(compressed),
                },
                prepare=lambda: shutil.rmtree(out, ignore_errors=True),
            )
            for name, seconds in took.items():
                print(f"{name:12} {1e3 * seconds:6.1f} ms  {took['cp'] / seconds:5.2f} of cp's throughput")

        _warm_load(work)
        _opening(work)


def _warm_load(work: Path) -> None:
    cache = Cache(work / "cache")
    with Package(PackageReader.open(package()), cache=cache) as opened:
        chosen = opened.load_first().candidate.variant
        folder = cache.materialise(opened.reader, opened.component(), chosen)
    shutil.copytree(folder, work / "as-loose")
    onnx = work / "as-loose" / chosen.files[0].path
    toolchain = toolchains()[chosen.toolchain]

    def warm() -> None:
        with PackageReader.open(package()) as reader:
            path = cache.materialise(reader, reader.manifest.components[0], chosen)
            create(chosen, path / chosen.files[0].path, toolchain)

    with section(
        f"Warm load of {chosen.target}: open the package, find its files in the cache, make a session"
    ):
        took = side_by_side({"loose": lambda: create(chosen, onnx, toolchain), "package": warm}, rounds=15)
        gc.collect()
        print(f"loose files {1e3 * took['loose']:7.1f} ms")
        print(f"package     {1e3 * took['package']:7.1f} ms  ÷ loose = {took['package'] / took['loose']:.3f}")


def _opening(work: Path) -> None:
    with section("Opening a package, in a fresh process after import"):
        for count in (20, 1000):
            path = _package_of(count, work)
            runs = [
                float(
                    subprocess.run(
                        [sys.executable, "-c", _ONE_OPENING, path], check=True, capture_output=True
                    ).stdout
                )
                for _ in range(7)
            ]
            with PackageReader.open(path) as opened:
                read = opened.bytes_read
            print(f"{count:5} variants: {1e3 * sorted(runs)[3]:6.1f} ms, {read:8} bytes read")


def _package_of(count: int, work: Path) -> Path:
    """A package of so many variants as a build makes them: an ONNX file each, and weights that all share."""
    with PackageReader.open(package()) as reader:
        (component,) = reader.manifest.components
        compiled = [
            variant for variant in component.variants if variant.coverage and variant.coverage.compiled
        ]
        weights = work / "weights"
        weights.write_bytes(random.Random(0).randbytes(10_000_000))
        variants, contents = [], {}
        for number, variant in zip(range(count), itertools.cycle(compiled), strict=False):
            onnx = work / "onnx" / str(number)
            onnx.parent.mkdir(exist_ok=True)
            onnx.write_bytes(reader.read_file(variant.files[0]) + number.to_bytes(4, "big"))
            variants.append(variant.replace(id=f"{variant.target}-{number}"))
            contents["main", variants[-1].id] = [("model.onnx", onnx), (variant.files[1].path, weights)]
        manifest = reader.manifest.replace(components=(component.replace(variants=tuple(variants)),))
        writer.write(work / f"{count}.aotpack", manifest, contents)
    return work / f"{count}.aotpack"


if __name__ == "__main__":
    main()
