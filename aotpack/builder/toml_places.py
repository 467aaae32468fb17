"""Where in a TOML text something stands: for errors, since the parser keeps no lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

__all__ = ["TomlPlaces"]

_HEADER = re.compile(r"\s*\[")


class TomlPlaces:
    """The places of a TOML file.

    Args:
        path: of the file, for texts.
        text: what is in it.
    """

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = text.splitlines()

    def of(self, place: Sequence[int | str]) -> str:
        """Such as ``aotpack.toml, line 12, target[1].options.vtcm_mb``.

        A table or key that is written in a way of its own (``target = [{…}]``) has no line.

        Args:
            place: keys and indices from the root on.
        """
        dotted = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
        line = self._line(place)
        told = [
            str(self._path),
            *([f"line {line}"] if line is not None else []),
            *([dotted] if dotted else []),
        ]
        return ", ".join(told)

    def _line(self, place: Sequence[int | str]) -> int | None:
        """The line of the last key of `place`, or of the table if it has no line of its own."""
        keys = [part for part in place if isinstance(part, str)]
        indices = [part for part in place if isinstance(part, int)]
        first, last = 0, len(self._lines)
        if keys and indices:
            begins = self._starting(rf"\s*\[\[\s*{_key(keys[0])}\s*\]\]")
            if indices[0] >= len(begins):
                return None
            # Its header is passed over: it is no key.
            first = begins[indices[0]] + 1
            last = next((line for line in begins if line >= first), last)
        elif len(keys) == 1:
            # A key of the root stands before the first table, or is the name of one.
            last = next((line for line in self._starting(_HEADER.pattern) if line > 0), last)
            tables = self._starting(rf"\s*\[+\s*{_key(keys[0])}\s*[\].]")
            return self._first(keys[0], 0, last) or (tables[0] + 1 if tables else None)
        for key in reversed(keys[1:] if indices else keys):
            if found := self._first(key, first, last):
                return found
        return first if indices else None

    def _starting(self, pattern: str) -> list[int]:
        return [number for number, line in enumerate(self._lines) if re.match(pattern, line)]

    def _first(self, key: str, first: int, last: int) -> int | None:
        """The first of the lines [first, last) in which `key` is set."""
        pattern = re.compile(rf"(?:^|[\s{{,.\[]){_key(key)}\s*(?:=|\.|\])")
        for number in range(first, last):
            if pattern.search(self._lines[number].split("#")[0]):
                return number + 1
        return None


def _key(key: str) -> str:
    return rf"[\"']?{re.escape(key)}[\"']?"
