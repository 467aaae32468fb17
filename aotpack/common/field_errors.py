"""What msgspec says of a value that it refuses, as a place and a sentence of bounded length."""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec
import msgspec.inspect

from aotpack._text import clipped

__all__ = ["FieldIssue", "explain", "issue_of"]

#: Characters of a place that are shown.
_MAX_PLACE = 200


class FieldIssue(NamedTuple):
    """What is wrong with one field."""

    #: Such as ``components[0].variants[1].id``; empty for the value as a whole.
    where: str
    what: str
    #: Whether it is a text, array or map that is longer than it may be.
    is_too_long: bool


def issue_of(error: msgspec.DecodeError, kind: type | None = None) -> FieldIssue:
    """What is wrong, and where.

    Args:
        error: msgspec's, which repeats keys and words of the input.
        kind: the type that was read; the choices that a field has can be listed then.
    """
    if not isinstance(error, msgspec.ValidationError):
        return FieldIssue(
            "", f"invalid JSON: {clipped(str(error).removeprefix('JSON is malformed: '))}", False
        )
    # It says "Expected `int`, got `str` - at `$.components[0].id`", or "- at `key` in `$.opsets`".
    what, found, place = str(error).rpartition(" - at `")
    if not found:
        what, place = place, ""
    is_key = place.startswith("key` in `")
    where = place.removeprefix("key` in `").rstrip("`").removeprefix("$").lstrip(".")
    is_too_long = re.search(r"of length <= \d+$", what) is not None
    if kind is not None and what.startswith("Invalid enum value ") and (choices := _choices(kind, where)):
        what = f"Expected {choices}, got {what.removeprefix('Invalid enum value ')}"
    if is_key:
        what += " as a key"
    return FieldIssue(clipped(where, _MAX_PLACE), clipped(what), is_too_long)


def explain(error: msgspec.DecodeError, kind: type | None = None) -> str:
    """One sentence on where and what; see `issue_of`."""
    issue = issue_of(error, kind)
    return f"{issue.where}: {issue.what}" if issue.where else issue.what


def _choices(kind: type, where: str) -> str:
    """The values that the field at `where` can have, if it is one of a few."""
    reached = [msgspec.inspect.type_info(kind)]
    for step in re.findall(r"[^.\[\]]+|\[[^\]]*\]", where):
        reached = [inner for each in reached for inner in _inside(each, step)]
    options = [each for each in reached if isinstance(each, msgspec.inspect.LiteralType)]
    return " or ".join(repr(value) for each in options for value in each.values)


def _inside(info: msgspec.inspect.Type, step: str) -> list[msgspec.inspect.Type]:
    """The types that `step`, a field's name or an index in brackets, can lead to."""
    inner: list[msgspec.inspect.Type] = []
    if isinstance(info, msgspec.inspect.StructType):
        inner = [field.type for field in info.fields if field.encode_name == step]
    elif isinstance(info, msgspec.inspect.VarTupleType):
        inner = [info.item_type]
    elif isinstance(info, msgspec.inspect.DictType):
        inner = [info.value_type]
    return [
        member
        for each in inner
        for member in (each.types if isinstance(each, msgspec.inspect.UnionType) else [each])
    ]
