"""What a build asks of the lowering of FlexAttention: for a model, and for one target of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from aotpack.errors import FlexError, UsageError

if TYPE_CHECKING:
    from aotpack.flex import Options

__all__ = ["NOTHING_SAID", "FlexSettings", "parse_flex"]

_BLOCK = re.compile(r"([0-9]{1,9})[,x]([0-9]{1,9})")


@dataclass(frozen=True, slots=True, kw_only=True)
class FlexSettings:
    """As `aotpack.flex.Options`; None: not said."""

    #: ``function``, ``dense``, ``block-sparse`` or ``fused``.
    lowering: str | None = None
    #: What a query that sees no key gives: ``nan``, as in ONNX, or ``zeros``, as in PyTorch. Of a model: all
    #: its variants compute the same.
    masked_rows: str | None = None
    #: Queries and keys a block.
    block: Sequence[int] | None = None
    #: Heads of K and V a tile.
    kv_heads: int | None = None

    @property
    def said(self) -> dict[str, Any]:
        """Those that are not None, as JSON has them."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: list(value) if name == "block" else value
            for name, value in values.items()
            if value is not None
        }

    def checked(self, where: str = "flex") -> FlexSettings:
        """These settings, if the lowering knows them.

        Raises:
            UsageError: it does not.
        """
        if self.said:
            try:
                self.options()
            except FlexError as error:
                raise UsageError(str(error), where=where) from None
        return self

    def options(self) -> Options:
        """The same for the lowering, which imports onnx.

        Raises:
            FlexError: a value is none that it knows.
        """
        from aotpack.flex import Options

        return Options(**{**self.said, **({} if self.block is None else {"block": tuple(self.block)})})

    def but_for(self, target: FlexSettings) -> FlexSettings:
        """These settings, with those of a target in place of those of the same name."""
        return replace(self, **target.said)


#: All is left to the lowering.
NOTHING_SAID = FlexSettings()


def parse_flex(
    texts: Mapping[str, Iterable[str]], targets: Iterable[str]
) -> tuple[FlexSettings, dict[str, FlexSettings]]:
    """Read options of the command line, each of the form ``VALUE`` or ``TARGET=VALUE``.

    Args:
        texts: option, such as ``--kv-heads``, to what it was given, as often as it was.
        targets: names that may stand before the ``=``.

    Returns:
        The settings for all targets, and those for one by its name.

    Raises:
        UsageError: a value is none of the option's, or a target is not built for.
    """
    names = set(targets)
    common: dict[str, Any] = {}
    own: dict[str, dict[str, Any]] = {}
    for option, given in texts.items():
        key = option.removeprefix("--").replace("-", "_")
        for text in given:
            target, _, value = text.rpartition("=")
            if target and target not in names:
                raise UsageError(
                    f"names the target {target!r}, which is not built for",
                    where=f"{option} {text}",
                    expected=", ".join(sorted(names)) or "none",
                )
            settings = own.setdefault(target, {}) if target else common
            if key in settings:
                raise UsageError("is given twice", where=f"{option} {text}")
            settings[key] = _value(key, value, f"{option} {text}")
            FlexSettings(**{key: settings[key]}).checked(f"{option} {text}")
    return FlexSettings(**common), {target: FlexSettings(**settings) for target, settings in own.items()}


def _value(key: str, text: str, where: str) -> object:
    if key == "block":
        match = _BLOCK.fullmatch(text)
        if match is None:
            raise UsageError("is no block", where=where, expected="queries and keys, such as 128,64")
        return int(match[1]), int(match[2])
    if key == "kv_heads":
        if not re.fullmatch("[0-9]{1,9}", text):
            raise UsageError("is no number of heads", where=where, expected="a whole number")
        return int(text)
    return text
