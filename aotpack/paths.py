"""Paths in a package: relative, and the same file on every system."""

from __future__ import annotations

import re
import unicodedata

from aotpack._text import shortened

__all__ = ["MAX_PATH", "path_issue"]

#: Characters. A longer path cannot be made on every system.
MAX_PATH = 1024

_RESERVED = re.compile(r"(?i)^(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(\..*)?$")
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')


def path_issue(path: str) -> str | None:
    """Why `path` is not a relative path that means the same file on every system, or None."""
    if not path or len(path) > MAX_PATH:
        return f"has {len(path)} characters; expected 1 to {MAX_PATH}"
    if _FORBIDDEN.search(path):
        return f"{shortened(path)} has a character that not every system allows"
    if unicodedata.normalize("NFC", path) != path:
        return f"{shortened(path)} is not in Unicode normal form C"
    for part in path.split("/"):
        if part in {"", ".", ".."}:
            return f"{shortened(path)} leaves its folder or is not relative"
        if part[-1] in ". " or len(part.encode("utf-8", "surrogatepass")) > 255 or _RESERVED.match(part):
            return f"{shortened(path)} has the part {shortened(part)}, which not every system allows"
    return None
