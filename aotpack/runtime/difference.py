"""How two packages differ: in what they say, in what they hold, and in bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from msgspec import Struct

from aotpack.common.values import Count, Value
from aotpack.container.content import StoredFile
from aotpack.container.reader import PackageReader
from aotpack.container.sharing import plan
from aotpack.manifest.values import Component, File, Variant

__all__ = ["Change", "Difference", "VariantDifference", "diff"]


class Change(Value, kw_only=True):
    """One field, in both packages; None where a package does not have it."""

    #: Such as ``compatibility.ep_string`` or ``files.model.bin.sha256``.
    field: str
    before: str | None
    after: str | None


class VariantDifference(Value, kw_only=True):
    """A variant that is in one package only, or differs."""

    component: str
    id: str
    target: str
    kind: Literal["added", "removed", "changed"]
    #: Bytes of its files in each package; 0 where it is not there.
    size_before: Count
    size_after: Count
    changes: tuple[Change, ...] = ()


class Difference(Value, kw_only=True):
    """From one package to another."""

    #: Of the packages and their components.
    changes: tuple[Change, ...]
    #: In the order of the packages.
    variants: tuple[VariantDifference, ...]
    #: Distinct bytes of content in each package, and those that are in both.
    bytes_before: Count
    bytes_after: Count
    bytes_shared: Count

    @property
    def is_empty(self) -> bool:
        """Whether both packages say and hold the same."""
        return not self.changes and not self.variants


def diff(before: PackageReader, after: PackageReader) -> Difference:
    """Compare two open packages.

    Variants are compared by component and id. All bytes are read, to find those that are shared.

    Raises:
        PackageError: a package is damaged.
    """
    old, new = _variants(before), _variants(after)
    variants = []
    for key in {**old, **new}:
        one, other = old.get(key), new.get(key)
        changes = (
            tuple(_changes(_fields(one) if one else {}, _fields(other) if other else {}))
            if one and other
            else ()
        )
        if one and other and not changes:
            continue
        variant = other or one
        assert variant is not None
        variants.append(
            VariantDifference(
                component=key[0],
                id=variant.id,
                target=variant.target,
                kind="changed" if one and other else "added" if other else "removed",
                size_before=one.size if one else 0,
                size_after=other.size if other else 0,
                changes=changes,
            )
        )
    shared, only_before, only_after = _distinct_bytes(before, after)
    return Difference(
        changes=tuple(_changes(_package_fields(before), _package_fields(after))),
        variants=tuple(variants),
        bytes_before=shared + only_before,
        bytes_after=shared + only_after,
        bytes_shared=shared,
    )


def _variants(reader: PackageReader) -> dict[tuple[str, str], Variant]:
    return {(c.name, variant.id): variant for c in reader.manifest.components for variant in c.variants}


def _distinct_bytes(before: PackageReader, after: PackageReader) -> tuple[int, int, int]:
    """Bytes in both packages, in the first only, and in the second only; equal ones counted once."""
    sides = [
        [StoredFile(reader, file) for variant in reader.manifest.variants() for file in variant.files]
        for reader in (before, after)
    ]
    with ThreadPoolExecutor() as pool:
        found = plan([*sides[0], *sides[1]], pool)
    one = {piece for file in found.files[: len(sides[0])] for piece in file}
    other = {piece for file in found.files[len(sides[0]) :] for piece in file}

    def size(pieces: Iterable[int]) -> int:
        return sum(found.pieces[piece].length for piece in pieces)

    return size(one & other), size(one - other), size(other - one)


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Change]:
    for field in {**before, **after}:
        if before.get(field) != after.get(field):
            yield Change(field=field, before=before.get(field), after=after.get(field))


def _package_fields(reader: PackageReader) -> dict[str, str]:
    manifest = reader.manifest
    fields = _flat({name: getattr(manifest, name) for name in ("aotpack", "name", "version", "license")})
    for component in manifest.components:
        fields |= _flat(_without(component, "variants"), f"components.{component.name}")
    return fields


def _fields(variant: Variant) -> dict[str, str]:
    fields = _flat(_without(variant, "files"))
    for file in variant.files:
        # Which segments hold it is the container's affair.
        fields |= _flat(_without(file, "segments", "path"), f"files.{file.path}")
    return fields


def _without(value: Component | Variant | File, *names: str) -> dict[str, Any]:
    return {name: getattr(value, name) for name in type(value).__struct_fields__ if name not in names}


def _flat(value: object, name: str = "") -> dict[str, str]:
    if isinstance(value, Struct):
        value = {field: getattr(value, field) for field in type(value).__struct_fields__}
    if isinstance(value, Mapping):
        fields: dict[str, str] = {}
        for key, item in value.items():
            fields |= _flat(item, f"{name}.{key}" if name else key)
        return fields
    if isinstance(value, tuple) and any(isinstance(item, Struct) for item in value):
        return _flat({str(index): item for index, item in enumerate(value)}, name)
    return {} if value is None else {name: str(value)}
