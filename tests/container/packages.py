"""Small packages to test with, written by the real writer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aotpack.container import writer
from aotpack.container.format import MAGIC
from aotpack.manifest.values import Compatibility, Component, Manifest, Requirements, Source, Variant

#: What has the name of a package and its first bytes: it may be replaced.
OLD_PACKAGE = MAGIC + b" the old one"

#: component -> variant -> path -> bytes
Files = Mapping[str, Mapping[str, Mapping[str, bytes]]]


def variants_that_share(weights: bytes) -> Files:
    """The second is linked to the first's weights; the third has them at another place, for reuse."""
    return {
        "main": {
            "a": {"m.onnx": b"a", "m.bin": weights},
            "b": {"m.onnx": b"b", "m.bin": weights},
            "c": {"m.onnx": b"c", "m.bin": b"c" * 4096 + weights},
        }
    }


def manifest_of(
    files: Files,
    *,
    name: str = "sample",
    target: str = "ort-cpu",
    source: bytes = b"model",
    requires: Mapping[str, Mapping[str, Any]] | None = None,
) -> Manifest:
    """A manifest without files and segments for the components and variants of `files`."""
    return Manifest(
        name=name,
        components=tuple(
            Component(
                name=component,
                source=Source(sha256=hashlib.sha256(source).hexdigest(), size=1, opsets={"": 17}),
                inputs=(),
                outputs=(),
                variants=tuple(
                    Variant(
                        id=variant,
                        target=target,
                        toolchain="ort",
                        ep="CPUExecutionProvider",
                        device="cpu",
                        compatibility=Compatibility(
                            requires=Requirements(**(requires or {}).get(variant, {}))
                        ),
                    )
                    for variant in variants
                ),
            )
            for component, variants in files.items()
        ),
    )


def package(
    folder: Path,
    files: Files,
    *,
    name: str = "sample",
    output: Path | None = None,
    compress: int | None = 3,
    **manifest: Any,
) -> Path:
    """Write `files` into a package in `folder`."""
    loose = folder / f"{name}.files"
    contents: dict[tuple[str, str], list[tuple[str, writer.Content]]] = {}
    for component, variants in files.items():
        for variant, entries in variants.items():
            contents[component, variant] = []
            for number, (path, data) in enumerate(entries.items()):
                place = loose / component / variant / str(number)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
                contents[component, variant].append((path, place))
    output = output or folder / f"{name}.aotpack"
    writer.write(output, manifest_of(files, name=name, **manifest), contents, compress=compress)
    return output


def contents_of(path: Path) -> dict[str, dict[str, dict[str, bytes]]]:
    """Everything that a package holds."""
    from aotpack.container.reader import PackageReader

    with PackageReader.open(path) as reader:
        return {
            component.name: {
                variant.id: {file.path: reader.read_file(file) for file in variant.files}
                for variant in component.variants
            }
            for component in reader.manifest.components
        }
