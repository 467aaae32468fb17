"""Packages made of other packages by the real writer, with something changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from aotpack.container.content import Content, StoredFile
from aotpack.container.reader import PackageReader
from aotpack.container.writer import write
from aotpack.manifest.values import Variant

#: Gives the variant as it is to be, or None to leave it out.
Change = Callable[[Variant], Variant | None]


def repack(
    package: Path, output: Path, change: Change, *, files: Callable[[Variant, str], Path | None] | None = None
) -> Path:
    """Write `package` anew to `output`.

    Args:
        package: of any number of components.
        output: the new package.
        change: called for each variant.
        files: the file to put in the place of a variant's, by its path there; None keeps it.
    """
    with PackageReader.open(package) as reader:
        contents: dict[tuple[str, str], list[tuple[str, Content]]] = {}
        components = []
        for component in reader.manifest.components:
            variants = []
            for variant in component.variants:
                changed = change(variant)
                if changed is None:
                    continue
                variants.append(changed)
                contents[component.name, changed.id] = [
                    (file.path, (files and files(variant, file.path)) or StoredFile(reader, file))
                    for file in variant.files
                ]
            components.append(component.replace(variants=tuple(variants)))
        write(output, reader.manifest.replace(components=tuple(components)), contents)
    return output


def with_string(variant: Variant, text: str | None) -> Variant:
    """`variant` with another compatibility string."""
    compatibility = variant.compatibility.replace(ep_string=text)
    return variant.replace(compatibility=compatibility)
