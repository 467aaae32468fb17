"""Paths as JSON holds them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

__all__ = ["PathText"]


def _utf8(text: object) -> object:
    return text.encode("utf-8", "backslashreplace").decode() if isinstance(text, str) else text


#: A path as text. Bytes of a file's name that are no UTF-8, which JSON cannot hold, stand as ``\\udcff``.
PathText = Annotated[str, BeforeValidator(_utf8)]
