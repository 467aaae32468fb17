"""What a package may set of a session: named by each toolchain as data, checked in one place.

A manifest comes from outside, and ONNX Runtime and its EPs have options that write files, load libraries,
take pointers or open logs. So a toolchain lists the provider options and session config entries that a
*package* may set, with the form of each value and the reason why it is harmless
(`Toolchain.package_options` and `Toolchain.package_config`). Whatever is not listed makes a variant
UNSUPPORTED, with the code ``option-not-allowed``, wherever the variant is judged, and the writer writes no
such variant. What the user of a package sets for a session of their own is not limited by these lists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from aotpack._text import shortened
from aotpack.common.values import read_unambiguous_json
from aotpack.manifest.values import SessionSettings

__all__ = ["Form", "Integer", "Integers", "JsonSections", "OneOf", "Setting", "settings_issue"]

#: Characters of a JSON value. The largest that a toolchain here writes has some hundred.
_MAX_JSON = 4096


class Form(Protocol):
    """Which values a setting may have. A form is closed: it never takes free text."""

    @property
    def expected(self) -> str:
        """The values in words, for messages."""

    def accepts(self, value: str) -> bool:
        """Whether `value` is one of them."""


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of a few words, letter for letter."""

    values: tuple[str, ...]

    @property
    def expected(self) -> str:
        """All of them."""
        return " or ".join(self.values)

    def accepts(self, value: str) -> bool:
        """Whether it is one of the words."""
        return value in self.values


@dataclass(frozen=True, slots=True)
class Integer:
    """A decimal number without a sign, both bounds included."""

    low: int
    high: int

    @property
    def expected(self) -> str:
        """The bounds."""
        return f"{self.low} to {self.high}"

    def accepts(self, value: str) -> bool:
        """Whether it is such a number."""
        # No more digits than the bound has: EPs read into types of 32 and 64 bits.
        return bool(
            re.fullmatch(r"[0-9]{1,20}", value)
            and len(value) <= len(str(self.high))
            and self.low <= int(value) <= self.high
        )


@dataclass(frozen=True, slots=True)
class Integers:
    """Several numbers with commas between them."""

    each: Integer
    most: int

    @property
    def expected(self) -> str:
        """The bounds of each, and how many there may be."""
        return f"{self.each.expected}, or up to {self.most} such numbers with commas between them"

    def accepts(self, value: str) -> bool:
        """Whether it is such a list."""
        parts = value.split(",", self.most)
        return len(parts) <= self.most and all(map(self.each.accepts, parts))


@dataclass(frozen=True, slots=True)
class JsonSections:
    """A JSON object of objects: each of the outer keys is in `sections`, each of the inner ones in `keys`."""

    sections: tuple[str, ...]
    keys: Mapping[str, Setting]

    @property
    def expected(self) -> str:
        """Where to find the keys."""
        return f'JSON of the form {{"{self.sections[0]}": {{...}}}} with keys that a package may set'

    def accepts(self, value: str) -> bool:
        """Whether it is such JSON, with none of its keys twice and each value of its key's form."""
        if len(value) > _MAX_JSON:
            return False
        try:
            outer = read_unambiguous_json(value.encode())
        except (ValueError, RecursionError):
            return False
        return isinstance(outer, dict) and all(
            section in self.sections and isinstance(inner, dict) and all(map(self._takes, inner.items()))
            for section, inner in outer.items()
        )

    def _takes(self, item: tuple[str, object]) -> bool:
        key, value = item
        setting = self.keys.get(key)
        if setting is None or not isinstance(value, (str, int)):
            return False
        # As EPs turn JSON into text: a boolean is a word.
        text = ("false", "true")[value] if isinstance(value, bool) else str(value)
        return setting.form.accepts(text)


@dataclass(frozen=True, slots=True)
class Setting:
    """An option or config entry that a package may set."""

    form: Form
    #: Why a package may: what it decides, which is never a file, a library, an address or a log.
    reason: str


_NONE: Mapping[str, Setting] = MappingProxyType({})


def settings_issue(session: SessionSettings, toolchain: object) -> str | None:
    """What of `session` a package may not set with this toolchain, in a sentence; None if nothing.

    Args:
        session: of a variant.
        toolchain: its ``package_options`` and ``package_config`` are the lists; one that has none allows
            nothing.
    """
    try:
        return _issue(
            "provider option", session.provider_options, getattr(toolchain, "package_options", _NONE)
        ) or _issue("session config entry", session.config, getattr(toolchain, "package_config", _NONE))
    except Exception as error:
        # A third party's lists raise what they like. What was not allowed is not allowed.
        return f"Whether a package may set what it sets could not be told: {type(error).__name__}: {error}."


def _issue(what: str, values: Mapping[str, str], allowed: Mapping[str, Setting]) -> str | None:
    for key, value in values.items():
        setting = allowed.get(key)
        if setting is None:
            return f"It sets the {what} {shortened(key)}, which no package may set."
        if not setting.form.accepts(value):
            return (
                f"It sets the {what} {shortened(key)} to {shortened(value)}; a package may set it to "
                f"{setting.form.expected}."
            )
    return None
