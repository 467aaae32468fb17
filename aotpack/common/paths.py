"""Paths in a package: relative, and the same file on every system."""

from __future__ import annotations

import re
import unicodedata

from aotpack._text import BIDI_CONTROLS, shortened

__all__ = ["MAX_PART", "MAX_PATH", "caseless", "is_device_name", "name_issue", "path_issue"]

#: Characters. A longer path cannot be made on every system.
MAX_PATH = 1024
#: Bytes of a part of a path: what file systems of Linux and macOS take.
MAX_PART = 255

#: Windows finds a device behind these names in any folder, whatever extension follows, and passes over blanks
#: in front of that (Microsoft, "Naming Files, Paths, and Namespaces").
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9]|conin\$|conout\$)[ ]*([.].*)?", re.DOTALL)
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"|?*\\\u2028\u2029\ufeff\ud800-\udfff]')

#: Code points that show nothing, which some systems pass over in names: Default_Ignorable_Code_Point of the
#: Unicode Character Database (DerivedCoreProperties.txt).
_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def path_issue(path: str) -> str | None:
    """Why `path` is not a relative path that means the same file on every system, or None."""
    if not path or len(path) > MAX_PATH:
        return f"has {len(path)} characters; expected 1 to {MAX_PATH}"
    if _FORBIDDEN.search(path) or not BIDI_CONTROLS.isdisjoint(path):
        return f"{shortened(path)} has a character that not every system allows"
    if not unicodedata.is_normalized("NFC", path):
        return f"{shortened(path)} is not in Unicode normal form C"
    for part in path.split("/"):
        if part in {"", ".", ".."}:
            return f"{shortened(path)} leaves its folder or is not relative"
        if part[-1] in ". " or len(part.encode()) > MAX_PART or is_device_name(part):
            return f"{shortened(path)} has the part {shortened(part)}, which not every system allows"
    return None


def name_issue(name: str) -> str | None:
    """Why no folder can be called `name`, a `Name` of a manifest, on every system; None if one can."""
    if name.endswith(".") or is_device_name(name):
        return f"{shortened(name)} is no name of a file on Windows"
    return None


def is_device_name(part: str) -> bool:
    """Whether Windows takes the name of a file or folder for a device.

    Digits in superscript count (``COM¹``), and so do letters of full width, which programs that use the ANSI
    functions of Windows get as plain ones.
    """
    plain = part if part.isascii() else unicodedata.normalize("NFKC", _IGNORABLE.sub("", part))
    return _DEVICES.fullmatch(plain) is not None


def caseless(path: str) -> str:
    """What two paths have in common that some system takes for the same one.

    Unicode's NFKC_Casefold (The Unicode Standard, 3.13, D147: toNFKC_Casefold(NFD(X))). It is equal wherever
    a canonical caseless match (D145) is, which is how macOS compares names.
    """
    if path.isascii():
        return path.lower()
    folded = unicodedata.normalize("NFD", path)
    # Folding and normalising each can undo what the other did; for no code point it takes more rounds.
    for _ in range(3):
        folded = unicodedata.normalize("NFKC", _IGNORABLE.sub("", folded).casefold())
    return folded
