"""The base of all values that cross a file: frozen, strict, nothing unknown let in."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, NoReturn, Self, TypeVar, dataclass_transform

import msgspec
from msgspec import Meta

from aotpack._text import clipped, shortened
from aotpack.common.field_errors import explain
from aotpack.common.paths import name_issue
from aotpack.errors import UsageError

__all__ = [
    "MAX_DIGITS",
    "MAX_INTEGER",
    "MAX_KEYS",
    "MAX_TEXT",
    "MAX_TITLE",
    "NAME_PATTERN",
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
    "read_unambiguous_json",
    "unknown_keys",
]


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Value(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A frozen value; equal content is equal. msgspec does not inherit ``kw_only``: each class says it.

    The constructor trusts its arguments; `from_json` and `from_builtins` check every field, and refuse
    unknown ones and loose types.
    """

    @classmethod
    def from_json(cls, text: bytes | str) -> Self:
        """Read JSON from somebody else.

        Raises:
            msgspec.ValidationError: a field is missing, unknown, or not of its type or form.
            msgspec.DecodeError: the base of that; it is not JSON.
            RecursionError: it is nested too deeply.
        """
        try:
            return msgspec.json.decode(text, type=cls)
        except UnicodeDecodeError as error:
            raise msgspec.DecodeError(str(error)) from None

    @classmethod
    def from_builtins(cls, values: object) -> Self:
        """Read dicts, lists, texts and numbers: what a parser of TOML gave, or somebody else's code.

        Raises:
            msgspec.ValidationError: a field is missing, unknown, or not of its type or form, or there is what
                JSON cannot hold: a number that is not finite, half of a surrogate pair.
        """
        _check_json(values, "$")
        return msgspec.convert(values, type=cls)

    def to_json(self, *, indent: int | None = None) -> str:
        r"""As JSON text. Bytes of a path that are not UTF-8, which JSON cannot hold, stand as ``\udcff``."""
        try:
            text = msgspec.json.encode(self)
        except UnicodeEncodeError:
            text = msgspec.json.encode(_as_utf8(msgspec.to_builtins(self)))
        return (text if indent is None else msgspec.json.format(text, indent=indent)).decode()

    def to_builtins(self) -> dict[str, Any]:
        """As dicts, lists, texts and numbers."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        return values

    def validated(self) -> Self:
        """The same, held to the types and limits of its fields, which the constructor trusts.

        Raises:
            msgspec.ValidationError: a field is not of its type or form, or JSON cannot hold it.
            TypeError: it holds an object that is no value.
        """
        return self.from_builtins(self.to_builtins())

    def replace(self, **changes: Any) -> Self:
        """The same with other values in some fields, which are trusted like a constructor's."""
        return msgspec.structs.replace(self, **changes)


_Value = TypeVar("_Value", bound=Value)


#: Of a `Name`, as a regular expression.
NAME_PATTERN = "^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$"

# Python's ``$`` lets a last newline through, and ``\Z`` is unknown to JSON Schema: hence ``$(?!\n)``.

#: The name of a component, variant or target: also a folder name, so no separator and no leading dot.
Name = Annotated[str, Meta(pattern=f"{NAME_PATTERN}(?!\\n)")]

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
Count = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]

#: A whole number that may be negative.
Integer = Annotated[int, Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]

#: A text of a manifest.
Text = Annotated[str, Meta(max_length=MAX_TEXT)]

#: Hex, in small letters.
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]

#: xxh3-128, hex.
Xxh3 = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$(?!\n)")]


def _check_json(value: object, place: str) -> None:
    """Refuse what msgspec would write as another value, or not at all."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_json(key, place)
            _check_json(item, f"{place}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _check_json(item, f"{place}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise msgspec.ValidationError(f"Expected a finite number, got {value} - at `{place}`")
    elif isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise msgspec.ValidationError(
                f"Expected Unicode text, got half of a surrogate pair - at `{place}`"
            ) from None


def _as_utf8(value: object) -> object:
    if isinstance(value, dict):
        return {_as_utf8(key): _as_utf8(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_utf8(item) for item in value]
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def check_title(*, name: str, version: str, license_: str | None = None) -> None:
    """Hold what somebody calls a package to what a manifest can say, and a terminal show.

    Raises:
        UsageError: it cannot.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            "is not a valid package name",
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


def read_unambiguous_json(text: bytes) -> object:
    """Parse `text`, if every reader of JSON finds the same in it; msgspec takes what others read otherwise.

    Raises:
        ValueError: it has a key twice in one object or more than `MAX_KEYS` there, NaN or an infinity, a
            number of more than `MAX_DIGITS`, or is not JSON.
        RecursionError: it is nested too deeply.
    """
    return json.loads(
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
        raw = read_unambiguous_json(text)
        value = kind.from_json(text)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except msgspec.DecodeError as error:
        raise ValueError(explain(error, kind)) from None
    # Parts of a manifest let unknown keys in, for the sake of newer minor versions.
    if (unknown := next(unknown_keys(value, raw), None)) is not None:
        raise ValueError(f"{clipped(unknown, 200)}: unknown key")
    return value


def unknown_keys(value: object, raw: object, where: str = "") -> Iterator[str]:
    """The places of keys in `raw` that `value`, which was made of it, has no field for."""
    if isinstance(value, msgspec.Struct) and isinstance(raw, dict):
        for key, item in raw.items():
            place = f"{where}.{key}" if where else str(key)
            if key in value.__struct_fields__:
                yield from unknown_keys(getattr(value, key), item, place)
            else:
                yield place
    elif isinstance(value, tuple) and isinstance(raw, list):
        for index, (part, item) in enumerate(zip(value, raw, strict=True)):
            yield from unknown_keys(part, item, f"{where}[{index}]")


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
