"""Sizes as people write them."""

from __future__ import annotations

import re

from aotpack.errors import UsageError

__all__ = ["parse_size"]

_UNITS = {
    unit + binary: base**power
    for unit, power in (("k", 1), ("m", 2), ("g", 3), ("t", 4))
    for binary, base in (("", 1000), ("i", 1024))
} | {"": 1}


def parse_size(text: str, where: str) -> int:
    """Bytes of ``500M`` (500,000,000), ``2GiB`` or ``1000000``; ``where`` is the option or variable it is in.

    Raises:
        UsageError: it is no size.
    """
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([kmgt]i?)?b?", text.strip().lower())
    if match is None:
        raise UsageError("is not a size", where=f"{where} {text}", expected="such as 500M or 2GiB")
    return int(float(match[1]) * _UNITS[match[2] or ""])
