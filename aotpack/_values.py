"""The base of all values that cross a file: frozen, strict, nothing unknown let in."""

from __future__ import annotations

import json
import re
from typing import Annotated, NoReturn

from pydantic import BaseModel, ConfigDict, Field

from aotpack.errors import UsageError

__all__ = [
    "MAX_KEYS",
    "NAME_RULE",
    "Count",
    "Name",
    "Sha256",
    "Value",
    "Xxh3",
    "check_title",
    "refuse_ambiguous_json",
]


class Value(BaseModel):
    """A frozen value; equal content is equal. Unknown keys and loose types are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


#: The name of a component, variant or target: also a folder name, so no separator and no leading dot.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$")]

#: What `check_title` asks of a name, in words.
NAME_RULE = "at most 128 letters, digits, and . _ + - after the first"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")

#: Characters of a version or license that we write; readers take more.
_MAX_TITLE = 1024

#: Of one JSON object. A map has as many entries at most, and no value as many fields.
MAX_KEYS = 1024

#: A byte count or an index. 2**53 - 1 is the largest integer that every JSON reader keeps exactly.
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

#: xxh3-128, hex.
Xxh3 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


def check_title(*, name: str, version: str, license_: str | None = None) -> None:
    """Hold what somebody calls a package to what a manifest can say, and a terminal show.

    Raises:
        UsageError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            "is no name for a package",
            where=name or "''",
            expected=NAME_RULE,
        )
    for what, text in (("version", version), ("license", license_ or "")):
        # What is not UTF-8 on a command line is not printable either.
        if len(text) > _MAX_TITLE or not text.isprintable():
            raise UsageError(
                f"is no {what} of a package",
                where=repr(text[:40]),
                expected=f"at most {_MAX_TITLE} printable characters",
            )


def refuse_ambiguous_json(text: bytes) -> None:
    """Nothing, if every reader of JSON finds the same in `text`; pydantic takes what others read otherwise.

    Raises:
        ValueError: it has a key twice in one object or more than `MAX_KEYS` there, NaN or an infinity, or is
            not JSON.
        RecursionError: it is nested too deeply.
    """
    json.loads(text, object_pairs_hook=_unique, parse_constant=_not_json)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(pairs) > MAX_KEYS:
        raise ValueError(f"an object has {len(pairs)} keys; expected at most {MAX_KEYS}")
    keys = dict(pairs)
    if len(keys) != len(pairs):
        for key, _ in pairs:
            if keys.pop(key, pairs) is pairs:
                raise ValueError(f"duplicate key {key!r}")
    return keys


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
