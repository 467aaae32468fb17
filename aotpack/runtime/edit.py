"""Make packages of packages: merge those of several build machines, prune one to what a fleet needs.

Stored segments are copied as they are. Only where packages share a part of a segment it is split, and
compressed anew.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from aotpack.common.values import check_title
from aotpack.container.content import Content, StoredFile
from aotpack.container.reader import PackageReader
from aotpack.container.writer import write
from aotpack.errors import UnknownName, UsageError
from aotpack.machine.profile import Machine
from aotpack.manifest.records import RecordFile, files_digest, joined, with_records
from aotpack.manifest.values import Component, Manifest, Variant
from aotpack.runtime.refusals import check_settings
from aotpack.selection.verdict import Grade, judge
from aotpack.targets.catalogue import PORTABLE
from aotpack.toolchains import toolchains

__all__ = ["adopt", "merge", "prune", "stored"]

_Contents = dict[tuple[str, str], list[tuple[str, Content]]]


def stored(reader: PackageReader, components: Iterable[Component] | None = None) -> _Contents:
    """What the writer takes to put these components of an open package into another one.

    Args:
        reader: the open package.
        components: all or some of its components, with all or some of their variants; by default all.
    """
    return {
        (component.name, variant.id): [(file.path, StoredFile(reader, file)) for file in variant.files]
        for component in (reader.manifest.components if components is None else components)
        for variant in component.variants
    }


def merge(
    readers: Sequence[PackageReader],
    output: Path,
    *,
    name: str | None = None,
    version: str | None = None,
    records: Sequence[RecordFile] = (),
    compress: int | None = 3,
    progress: Callable[[int, int], None] | None = None,
    force: bool = False,
) -> Manifest:
    """Write one package with the components and variants of all `readers`, in their order.

    Components of one name become one, with the variants of all. Of variants with one id, which were compiled
    from the same by the same, the first is taken.

    Args:
        readers: open packages. One of them may be that at `output`; Windows closes it.
        output: the package to write.
        name: of the package; by default the first one's.
        version: of the package; by default the first one's.
        records: what `aotpack check` found on machines, added to the variants that it is of.
        compress: zstd level for segments that had to be split; None to store those raw.
        progress: called with (bytes stored, distinct bytes in all).
        force: replace a file at `output` that is not a package, too.

    Raises:
        UsageError: no packages are given, a package cannot be called so, or a component of two of them was
            compiled from different models, or records are of none of the variants.
        NotAllowed: a variant asks for what no package may (`aotpack.runtime.refusals`).
        PackageError: a package is damaged.
        OutputError: `output` cannot be written.
    """
    if not readers:
        raise UsageError("nothing to merge", expected="one package or more")
    for reader in readers:
        check_settings(reader.manifest.components, reader.source.name)
    first_manifest = readers[0].manifest
    name = first_manifest.name if name is None else name
    version = first_manifest.version if version is None else version
    check_title(name=name, version=version)
    components: dict[str, Component] = {}
    contents: _Contents = {}
    for reader in readers:
        for component in reader.manifest.components:
            first = components.setdefault(component.name, component)
            if first is not component:
                components[component.name] = _united(first, component, reader.source.name)
        contents = stored(reader) | contents
    manifest = first_manifest.replace(
        name=name, version=version, components=with_records(components.values(), records)
    )
    return write(output, manifest, contents, compress=compress, progress=progress, force=force)


def adopt(
    reader: PackageReader,
    component: Component,
    other: PackageReader,
    output: Path,
    *,
    instead_of: str | None = None,
    compress: int | None = 3,
    force: bool = False,
) -> Manifest:
    """Write `reader`'s package with the variants of the only component of `other` in `component` as well.

    Variants that `component` has already, by their ids, are taken from `other`. They come last but for the
    portable one, as in any package.

    Args:
        reader: the open package; it may be that at `output`, which Windows closes.
        component: one of its components.
        other: an open package whose variants were compiled from the same model.
        output: the package to write.
        instead_of: the id of a variant of `component` in whose place they come.
        compress: zstd level for what `other` does not share.
        force: replace a file at `output` that is not a package, too.

    Raises:
        PackageError: a package is damaged.
        OutputError: `output` cannot be written.
    """
    (source,) = other.manifest.components
    new = {variant.id: variant for variant in source.variants}
    kept = _portable_last(each for each in component.variants if each.id not in new and each.id != instead_of)
    first = itertools.takewhile(lambda each: each.id != instead_of, component.variants)
    place = sum(each.id not in new and each.target != PORTABLE for each in first)
    grown = _with(component, (*kept[:place], *new.values(), *kept[place:]))
    components = tuple(grown if each is component else each for each in reader.manifest.components)
    check_settings(components, output)
    contents = stored(reader, (_with(component, kept), *(each for each in components if each is not grown)))
    contents |= {
        (component.name, variant.id): [(file.path, StoredFile(other, file)) for file in variant.files]
        for variant in new.values()
    }
    manifest = reader.manifest.replace(components=components)
    return write(output, manifest, contents, compress=compress, force=force)


def prune(
    reader: PackageReader,
    output: Path,
    *,
    keep: Collection[str] = (),
    drop: Collection[str] = (),
    machines: Sequence[Machine] = (),
    progress: Callable[[int, int], None] | None = None,
    force: bool = False,
) -> Manifest:
    """Write a package with some of the variants of another.

    Args:
        reader: the open package; it may be that at `output`, which Windows closes.
        output: the package to write.
        keep: targets or variant ids; all others go. None given: all stay that the rest does not drop.
        drop: targets or variant ids that go, whatever else is said.
        machines: those stay that one of these machines may be able to use: that are not UNSUPPORTED there.
        progress: called with (bytes stored, distinct bytes in all).
        force: replace a file at `output` that is not a package, too.

    Raises:
        UnknownName: `keep` or `drop` has a name that no variant has.
        UsageError: a component would be left without variants.
        PackageError: the package is damaged.
        OutputError: `output` cannot be written.
    """
    known = {name for variant in reader.manifest.variants() for name in (variant.target, variant.id)}
    for name in (*keep, *drop):
        if name not in known:
            raise UnknownName("target or variant", name, known)
    rules = toolchains() if machines else {}

    def stays(variant: Variant) -> bool:
        names = {variant.target, variant.id}
        if not names.isdisjoint(drop) or (keep and names.isdisjoint(keep)):
            return False
        return not machines or any(
            judge(variant, machine, rules.get(variant.toolchain), here=False, custom_ops=True).grade
            is not Grade.UNSUPPORTED
            for machine in machines
        )

    components = [
        _with(component, filter(stays, component.variants)) for component in reader.manifest.components
    ]
    for component in components:
        if not component.variants:
            raise UsageError(
                "would be left without variants",
                where=f"component {component.name}",
                hint="`aotpack inspect` lists what there is",
            )
    check_settings(components, output)
    manifest = reader.manifest.replace(components=tuple(components))
    return write(output, manifest, stored(reader, components), compress=None, progress=progress, force=force)


def _united(first: Component, second: Component, where: str) -> Component:
    for what in ("kind", "source", "inputs", "outputs"):
        if getattr(first, what) != getattr(second, what):
            raise UsageError(
                f"has another {what} than the component of that name before it",
                where=f"{where}: component {second.name}",
                hint="merge packages of one model, or give its component another name when building",
            )
    others = {variant.id: variant for variant in second.variants}
    own = [_with_records_of(variant, others.pop(variant.id, None)) for variant in first.variants]
    return _with(first, _portable_last((*own, *others.values())))


def _with_records_of(variant: Variant, other: Variant | None) -> Variant:
    """`variant`, with what was found of the same files in another package."""
    if other is None or not other.records or files_digest(variant) != files_digest(other):
        return variant
    return variant.replace(records=joined(variant.records, other.records))


def _portable_last(variants: Iterable[Variant]) -> list[Variant]:
    """As in a package that was built."""
    return sorted(variants, key=lambda variant: variant.target == PORTABLE)


def _with(component: Component, variants: Iterable[Variant]) -> Component:
    return component.replace(variants=tuple(variants))
