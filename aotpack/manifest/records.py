"""What `aotpack check --record` writes and `aotpack merge --records` reads: what was found on one machine.

So the owner of a machine that a builder lacks turns "has not run" into "ran on". An entry names a variant by
its component, its id and the sha256 of its files: it is of those bytes and no others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from aotpack.common.values import Sha256, Text, Value, parse_value
from aotpack.errors import UsageError
from aotpack.files.input import read_input
from aotpack.manifest.values import MAX_RECORDS, MAX_VARIANTS, Component, Record, Variant

__all__ = [
    "RECORDS_BEGIN",
    "RecordEntry",
    "RecordFile",
    "files_digest",
    "joined",
    "other_variants",
    "read_records",
    "records_text",
    "with_records",
]

#: How a file of records begins, as `records_text` writes it.
RECORDS_BEGIN = '{\n  "records": '
#: Bytes of a file of records; an entry takes one or two thousand.
MAX_RECORDS_SIZE = 16 * 1024 * 1024
#: What `aotpack check` writes: a variant runs on its device, or in its vendor's emulator.
_RAN_ON = ("host", "emulator")


class RecordEntry(Value, kw_only=True):
    """What was found of one variant."""

    component: Text
    variant: Text
    target: Text
    #: `files_digest` of the variant.
    files: Sha256
    record: Record


class RecordFile(Value, kw_only=True):
    """All that one `aotpack check` found."""

    records: Literal["1"] = "1"
    #: Name of the package.
    package: Text
    #: sha256 of its manifest.
    digest: Sha256
    entries: Annotated[tuple[RecordEntry, ...], Meta(max_length=MAX_VARIANTS)] = ()


def records_text(file: RecordFile) -> str:
    """What stands in a file of records."""
    return file.to_json(indent=2) + "\n"


def files_digest(variant: Variant) -> str:
    """sha256 of the names and digests of a variant's files, in their order."""
    text = "".join(f"{file.path}\0{file.sha256}\n" for file in variant.files)
    return hashlib.sha256(text.encode()).hexdigest()


def read_records(path: Path) -> RecordFile:
    """Read records that somebody else may have written.

    Raises:
        UsageError: it cannot be read, or is no file of records.
    """
    text = read_input(path, MAX_RECORDS_SIZE, expected="a file of records", error=UsageError)
    try:
        found = parse_value(RecordFile, text, limit=MAX_RECORDS_SIZE)
        for index, entry in enumerate(found.entries):
            numerics = entry.record.numerics
            if numerics is not None and numerics.ran_on not in _RAN_ON:
                expected = " or ".join(_RAN_ON)
                raise ValueError(f"entries.{index}.record.numerics.ran_on: {expected} is expected")
    except ValueError as error:
        raise UsageError(
            f"not a file of records: {error}",
            where=path,
            hint="`aotpack check PACKAGE --record FILE` writes one",
        ) from None
    return found


def other_variants(components: Iterable[Component], files: Iterable[RecordFile]) -> tuple[str, ...]:
    """The ``component/variant`` of entries that are of none of `components`' files, each once, in order."""
    known = {
        (component.name, variant.id, files_digest(variant))
        for component in components
        for variant in component.variants
    }
    return tuple(
        dict.fromkeys(
            f"{entry.component}/{entry.variant}"
            for file in files
            for entry in file.entries
            if (entry.component, entry.variant, entry.files) not in known
        )
    )


def with_records(components: Iterable[Component], files: Sequence[RecordFile]) -> tuple[Component, ...]:
    """`components` with the records of `files` in their variants.

    A record takes the place of an earlier one of the same machine, device, driver and versions.

    Raises:
        UsageError: a file has no record of a variant here, or a variant would have too many.
    """
    entries = [entry for file in files for entry in file.entries]
    taken: set[int] = set()
    found: list[Component] = []
    for component in components:
        variants = []
        for variant in component.variants:
            records = variant.records
            mine = [
                (index, entry)
                for index, entry in enumerate(entries)
                if (entry.component, entry.variant) == (component.name, variant.id)
            ]
            # Hashed only where an entry asks for it.
            digest = files_digest(variant) if mine else ""
            for index, entry in mine:
                if entry.files == digest:
                    taken.add(index)
                    records = joined(records, (entry.record,))
            if len(records) > MAX_RECORDS:
                raise UsageError(
                    "would have too many records",
                    where=f"{component.name}/{variant.id}",
                    found=len(records),
                    expected=f"at most {MAX_RECORDS}",
                )
            variants.append(variant.replace(records=records))
        found.append(component.replace(variants=tuple(variants)))
    start = 0
    for file in files:
        if taken.isdisjoint(range(start, start + len(file.entries))):
            raise UsageError(
                "has no record of a variant in this package",
                where=f"records of {file.package} {file.digest[:12]}",
                hint="records are of the very files that were checked",
            )
        start += len(file.entries)
    return tuple(found)


def joined(records: Sequence[Record], more: Sequence[Record]) -> tuple[Record, ...]:
    """Both, in which one of `more` replaces an earlier one of the same machine."""
    keys = {_machine(record) for record in more}
    return (*(record for record in records if _machine(record) not in keys), *more)


def _machine(record: Record) -> tuple[object, ...]:
    versions = tuple(sorted(record.versions.items()))
    return record.machine, record.os, record.arch, record.cpu, record.device, record.driver, versions
