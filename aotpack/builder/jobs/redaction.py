"""What a vendor's library printed, without what it read from the environment of the user.

Reports are attached to issues and kept by CI servers. Credentials that a process holds are in variables of
its environment, and a user's name is in the path of the home folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Redaction"]

#: Characters of a value: shorter ones, such as ``1``, ``en`` or ``true``, are words of other things too.
_SHORTEST = 6
#: The same for variables that are called so.
_SHORTEST_SECRET = 4
_SECRET = re.compile(r"(?i)key|token|secret|passw|credential|auth")


@dataclass(frozen=True, slots=True)
class Redaction:
    """Texts to hide and what to write for each, the longest first."""

    replacements: tuple[tuple[str, str], ...]

    @classmethod
    def of_this_process(cls, kept: Mapping[str, str]) -> Redaction:
        """Of this process's environment and home folder.

        Args:
            kept: variables that a target sets: the report says them anyway.
        """
        found = {
            value: f"${name}"
            for name, value in sorted(os.environ.items())
            if len(value.strip()) >= (_SHORTEST_SECRET if _SECRET.search(name) else _SHORTEST)
            and value not in kept.values()
        }
        for home in (os.environ.get("HOME"), os.environ.get("USERPROFILE"), _home()):
            if home and len(home) > 1:
                found[home.rstrip("/\\")] = "~"
        return cls(tuple(sorted(found.items(), key=lambda item: (-len(item[0]), item[0]))))

    def hide(self, text: str) -> str:
        """`text` with each of them replaced."""
        for value, written in self.replacements:
            if value in text:
                # A folder is not the beginning of another one's name; a credential may stand within anything.
                end = r"(?![\w-])" if os.sep in value else ""
                text = re.sub(re.escape(value) + end, written.replace("\\", r"\\"), text)
        return text


def _home() -> str | None:
    try:
        return str(Path.home())
    except RuntimeError:
        return None
