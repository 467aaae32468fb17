"""The base of all values that cross a file: frozen, strict, nothing unknown let in."""

from __future__ import annotations

import json
import re
from typing import Annotated, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aotpack._text import clipped, shortened
from aotpack.errors import UsageError
from aotpack.paths import name_issue

__all__ = [
    "MAX_DIGITS",
    "MAX_INTEGER",
    "MAX_KEYS",
    "MAX_TEXT",
    "MAX_TITLE",
    "NAME_RULE",
    "Count",
    "Integer",
    "Name",
    "Sha256",
    "Text",
    "Value",
    "Xxh3",
    "check_title",
    "parse_value",
    "refuse_ambiguous_json",
]


class Value(BaseModel):
    """A frozen value; equal content is equal. Unknown keys and loose types are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


_Value = TypeVar("_Value", bound=Value)


#: The name of a component, variant or target: also a folder name, so no separator and no leading dot.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$")]

#: What `check_title` asks of a name, in words.
NAME_RULE = "at most 128 letters, digits, and . _ + - after the first"

#: The same, for texts that are no fields.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")

#: Characters of a version or license that we write; readers take more.
MAX_TITLE = 1024

#: Characters of a text in a manifest, of a key of a map too. The longest that are of use are compatibility
#: strings and JSON in an option, of some kilobytes.
MAX_TEXT = 65536

#: Of one JSON object. A map has as many entries at most, and no value as many fields.
MAX_KEYS = 1024

#: The largest integer that every JSON reader keeps exactly.
MAX_INTEGER = 2**53 - 1

#: Digits of a number in JSON that others wrote. A float that is written out in full has some 330.
MAX_DIGITS = 400

#: A byte count or an index.
Count = Annotated[int, Field(ge=0, le=MAX_INTEGER)]

#: A whole number that may be negative.
Integer = Annotated[int, Field(ge=-MAX_INTEGER, le=MAX_INTEGER)]

Text = Annotated[str, Field(max_length=MAX_TEXT)]

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

#: xxh3-128, hex.
Xxh3 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


def check_title(*, name: str, version: str, license_: str | None = None) -> None:
    """Hold what somebody calls a package to what a manifest can say, and a terminal show.

    Raises:
        UsageError: it cannot.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            "is no name for a package",
            where=clipped(name, 80) or "''",
            expected=NAME_RULE,
        )
    if (issue := name_issue(name)) is not None:
        raise UsageError(issue, where="name of the package", expected="another name")
    for what, text in (("version", version), ("license", license_ or "")):
        # What is not UTF-8 on a command line is not printable either.
        if len(text) > MAX_TITLE or not text.isprintable():
            raise UsageError(
                f"is no {what} of a package",
                where=repr(text[:40]),
                expected=f"at most {MAX_TITLE} printable characters",
            )


def refuse_ambiguous_json(text: bytes) -> None:
    """Nothing, if every reader of JSON finds the same in `text`; pydantic takes what others read otherwise.

    Raises:
        ValueError: it has a key twice in one object or more than `MAX_KEYS` there, NaN or an infinity, a
            number of more than `MAX_DIGITS`, or is not JSON.
        RecursionError: it is nested too deeply.
    """
    json.loads(
        text,
        object_pairs_hook=_unique,
        parse_constant=_not_json,
        parse_int=_short_int,
        parse_float=_short_float,
    )


def parse_value(kind: type[_Value], text: bytes, *, limit: int) -> _Value:
    """Read a value from JSON that others wrote. A byte order mark in front of it is passed over.

    Args:
        kind: of the value.
        text: the JSON.
        limit: bytes that it may have; what a value keeps of it is bounded by the value's own fields.

    Raises:
        ValueError: it is too long, no JSON, ambiguous, or not what the value may hold. One sentence that says
            where and what, and holds no more of the text than that.
    """
    if len(text) > limit:
        raise ValueError(f"has {len(text)} bytes; expected at most {limit}")
    if text.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError("is UTF-16; expected UTF-8")
    text = text.removeprefix(b"\xef\xbb\xbf")
    try:
        refuse_ambiguous_json(text)
        return kind.model_validate_json(text)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{clipped(where)}: {first['msg']}" if where else first["msg"]) from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(pairs) > MAX_KEYS:
        raise ValueError(f"an object has {len(pairs)} keys; expected at most {MAX_KEYS}")
    keys = dict(pairs)
    if len(keys) != len(pairs):
        for key, _ in pairs:
            if keys.pop(key, pairs) is pairs:
                raise ValueError(f"duplicate key {shortened(key)}")
    return keys


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _short_int(digits: str) -> int:
    return int(_short(digits))


def _short_float(digits: str) -> float:
    return float(_short(digits))


def _short(digits: str) -> str:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits; expected at most {MAX_DIGITS}")
    return digits
