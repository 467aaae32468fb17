"""Where in a TOML text each key stands, and whether the text is small enough to be parsed.

The standard parser keeps no lines, and its time and memory grow with the square of the length of a dotted
key: 78 KB of ``a.a.a…`` take it half a minute and some gigabytes. So the text is read once from front to back
before the parser sees it, which notes the line of each key and holds the text to the limits below. Grammar is
left to the parser: reading stops at the first thing that is no TOML.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from aotpack.errors import UsageError

__all__ = ["MAX_DEPTH", "MAX_KEY_PARTS", "MAX_NUMBER", "MAX_TOML_VALUES", "TomlPlaces", "parse_toml"]

#: Parts of a dotted key or of the name of a table. ``component.buckets.NAME.INPUT`` has four.
MAX_KEY_PARTS = 16
#: Arrays and inline tables inside each other. The shapes in an inline table of buckets are three deep.
MAX_DEPTH = 16
#: Characters of a number or date. The longest date has 35; Python refuses integers of 4,300 digits.
MAX_NUMBER = 64
#: Keys, tables and items of arrays. A package of a hundred models needs some thousand.
MAX_TOML_VALUES = 65536

_BLANK = re.compile(r"[ \t]*+")
_BLANK_LINES = re.compile(r"(?:[ \t\n]++|#[^\n]*+)*+")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]++")
_STRING = re.compile(
    r'"""(?:[^"\\]++|\\.|"(?!""))*+"{3,5}|"(?:[^"\\\n]++|\\.)*+"'
    r"|'''(?:[^']++|'(?!''))*+'{3,5}|'[^'\n]*+'",
    re.DOTALL,
)
#: A number, a date, a date and a time with a blank between them, or ``true``, ``false``, ``inf``, ``nan``.
_SCALAR = re.compile(r"[A-Za-z0-9_+.:-]++(?: [0-9][0-9.:Zz+-]*+)?+")
_AT_LINE = re.compile(r"(?P<what>.*) \((?:at line (?P<line>\d+), column \d+|at end of document)\)", re.DOTALL)

_Place = tuple[int | str, ...]


class _NoTomlError(Exception):
    """Something that is no TOML, which the parser has better words for."""


class TomlPlaces:
    """The places of a TOML file.

    Args:
        path: of the file, for texts.
        text: what is in it, with newlines (U+000A) between its lines.

    Raises:
        UsageError: the text is above a limit.
    """

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._text = text
        self._position = 0
        #: Up to which position lines were counted, and how many.
        self._counted, self._line = 0, 1
        self._lines: dict[_Place, int] = {}
        #: How many tables each array of tables has.
        self._arrays: dict[_Place, int] = {}
        self._table: _Place = ()
        self._values = 0
        #: Where something stands that is no TOML; None: nowhere.
        self.stopped_at: int | None = None
        try:
            self._read()
        except _NoTomlError:
            self.stopped_at = self._position

    def of(self, place: Sequence[int | str]) -> str:
        """Such as ``aotpack.toml, line 12, target[1].options.vtcm_mb``.

        What is not there is missed where the table begins that it should be in.

        Args:
            place: keys and indices from the root on.
        """
        dotted = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
        line = self._lines.get(tuple(place))
        shorter = tuple(place)
        while line is None and shorter and isinstance(shorter[-1], str):
            shorter = shorter[:-1]
            line = self._lines.get(shorter)
        return ", ".join(
            [str(self._path), *([f"line {line}"] if line is not None else []), *([dotted] if dotted else [])]
        )

    def line(self, number: int) -> str:
        """Such as ``aotpack.toml, line 12``."""
        return f"{self._path}, line {number}"

    def _read(self) -> None:
        while True:
            self._skip(_BLANK_LINES)
            if self._position >= len(self._text):
                return
            if self._takes("[["):
                self._header(is_array=True)
            elif self._takes("["):
                self._header(is_array=False)
            else:
                self._key_and_value(self._table, 0)
            self._skip(_BLANK)
            if self._next() not in ("", "\n", "#"):
                raise _NoTomlError

    def _header(self, *, is_array: bool) -> None:
        parts = self._key()
        place: _Place = ()
        for part in parts[:-1]:
            place = self._newest((*place, part))
            self._note(place)
        place = (*place, parts[-1])
        if is_array:
            self._note(place)
            self._arrays[place] = self._arrays.get(place, 0) + 1
        self._table = self._newest(place)
        self._note(self._table)
        if not self._takes("]]" if is_array else "]"):
            raise _NoTomlError

    def _newest(self, place: _Place) -> _Place:
        count = self._arrays.get(place)
        return place if count is None else (*place, count - 1)

    def _key_and_value(self, table: _Place, depth: int) -> None:
        place = table
        for part in self._key():
            place = (*place, part)
            self._note(place)
        if not self._takes("="):
            raise _NoTomlError
        self._value(place, depth)

    def _key(self) -> list[str]:
        """A dotted key, and the blanks behind it."""
        parts: list[str] = []
        while True:
            self._skip(_BLANK)
            if (match := _BARE_KEY.match(self._text, self._position)) is not None:
                parts.append(match[0])
            elif (match := _STRING.match(self._text, self._position)) is not None:
                parts.append(_unquoted(match[0]))
            else:
                raise _NoTomlError
            self._position = match.end()
            if len(parts) > MAX_KEY_PARTS:
                self._refuse("a key has too many parts", f"at most {MAX_KEY_PARTS}")
            self._skip(_BLANK)
            if not self._takes("."):
                return parts

    def _value(self, place: _Place, depth: int) -> None:
        if depth > MAX_DEPTH:
            self._refuse("nested too deeply", f"at most {MAX_DEPTH} arrays and inline tables")
        self._skip(_BLANK)
        if self._takes("["):
            self._array(place, depth + 1)
        elif self._takes("{"):
            self._inline_table(place, depth + 1)
        elif (match := _STRING.match(self._text, self._position)) is not None:
            self._position = match.end()
        elif (match := _SCALAR.match(self._text, self._position)) is not None:
            if len(match[0]) > MAX_NUMBER:
                self._refuse(f"a number of {len(match[0])} characters", f"at most {MAX_NUMBER}")
            self._position = match.end()
        else:
            raise _NoTomlError

    def _array(self, place: _Place, depth: int) -> None:
        index = 0
        self._skip(_BLANK_LINES)
        while not self._takes("]"):
            if index:
                self._comma()
                self._skip(_BLANK_LINES)
                if self._takes("]"):
                    return
            self._note((*place, index))
            self._value((*place, index), depth)
            self._skip(_BLANK_LINES)
            index += 1

    def _inline_table(self, place: _Place, depth: int) -> None:
        self._skip(_BLANK)
        if self._takes("}"):
            return
        while True:
            self._key_and_value(place, depth)
            self._skip(_BLANK)
            if self._takes("}"):
                return
            self._comma()

    def _comma(self) -> None:
        if not self._takes(","):
            raise _NoTomlError

    def _note(self, place: _Place) -> None:
        self._values += 1
        if self._values > MAX_TOML_VALUES:
            self._refuse("too many keys and values", f"at most {MAX_TOML_VALUES} in a file")
        self._lines.setdefault(place, self._line_here())

    def _line_here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._position)
        self._counted = self._position
        return self._line

    def _next(self) -> str:
        return self._text[self._position : self._position + 1]

    def _takes(self, mark: str) -> bool:
        if self._text.startswith(mark, self._position):
            self._position += len(mark)
            return True
        return False

    def _skip(self, what: re.Pattern[str]) -> None:
        match = what.match(self._text, self._position)
        assert match is not None
        self._position = match.end()

    def _refuse(self, what: str, expected: str) -> NoReturn:
        raise UsageError(what, where=self.line(self._line_here()), expected=expected)


def parse_toml(path: Path, data: bytes) -> tuple[dict[str, Any], TomlPlaces]:
    """The tables of an untrusted TOML file, and where each key stands.

    A byte order mark in front, which Windows editors write, is passed over.

    Args:
        path: of the file, for errors.
        data: what is in it. The caller has bounded its length.

    Raises:
        UsageError: it is not UTF-8, no TOML, or above a limit.
    """
    text = _decoded(path, data)
    places = TomlPlaces(path, text)
    if places.stopped_at is not None:
        # Only as far as it was read: what is behind it, nobody has bounded.
        end = text.find("\n", places.stopped_at)
        text = text if end < 0 else text[:end]
    try:
        tables = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        said = _AT_LINE.fullmatch(str(error))
        if said is None:
            raise UsageError(f"is not TOML: {error}", where=path) from None
        line = int(said["line"] or text.count("\n") + 1)
        raise UsageError(f"is not TOML: {said['what']}", where=places.line(line)) from None
    if places.stopped_at is not None:
        line = text.count("\n", 0, places.stopped_at) + 1
        raise UsageError("is not TOML that can be read here", where=places.line(line))
    return tables, places


def _decoded(path: Path, data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UsageError("is UTF-16", where=path, expected="UTF-8", hint="save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(
            "is not UTF-8",
            where=f"{path}, line {line}",
            found=f"the byte 0x{data[error.start]:02x}",
            expected="a file that is saved as UTF-8",
        ) from None
    return text.replace("\r\n", "\n")


def _unquoted(quoted: str) -> str:
    """What a string in quotes says; as it stands if the parser refuses it."""
    if "\\" not in quoted and not quoted.startswith(('"""', "'''")):
        return quoted[1:-1]
    try:
        return str(tomllib.loads(f"key = {quoted}")["key"])
    except tomllib.TOMLDecodeError:
        return quoted
