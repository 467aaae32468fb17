"""The version that a Windows library says of itself, read without loading it.

Source: VS_FIXEDFILEINFO in Microsoft's documentation of version information. It stands in a library's
resources, which linkers put near its end.
"""

from __future__ import annotations

import struct
from pathlib import Path

__all__ = ["file_version"]

#: dwSignature and dwStrucVersion.
_FRONT = struct.pack("<2I", 0xFEEF04BD, 0x00010000)

#: dwFileVersionMS and dwFileVersionLS: minor, major, build, patch.
_NUMBERS = struct.Struct("<4H")

#: Bytes at the end of a library; of 219 MB of TensorRT-RTX's the version stands in the last 0.7.
_TAIL = 4 * 1024 * 1024


def file_version(library: Path) -> tuple[int, int, int, int] | None:
    """Major, minor, patch and build; None if it cannot be read, or says nothing."""
    try:
        with library.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL))
            tail = file.read(_TAIL)
    except OSError:
        return None
    at = tail.find(_FRONT)
    if at < 0 or len(tail) < at + len(_FRONT) + _NUMBERS.size:
        return None
    minor, major, build, patch = _NUMBERS.unpack_from(tail, at + len(_FRONT))
    return major, minor, patch, build
