"""What EPs answered in a process of its own, kept in the cache, so that a question costs one only once.

::

    <cache>/answers/<key>.json   the answers by the sha256 of the question; null where the EP gave none

A key is made of the toolchain and the machine's key, so another release of the EP or of onnxruntime, another
driver or an environment that changes what the EP accepts are asked anew. An EP whose check crashed is not
asked the same thing twice.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from pathlib import Path

from msgspec import DecodeError

from aotpack.cache.layout import ANSWERS
from aotpack.cache.notes import read_note, write_note
from aotpack.common.values import Value
from aotpack.errors import UsageError
from aotpack.machine.profile import Machine
from aotpack.selection.verdict import Grade

__all__ = ["KnownAnswers"]

#: Of one toolchain on one machine; far more than the variants of the packages that a machine loads.
MAX_ANSWERS = 10_000
#: Bytes of their file: a hundred for each.
_MAX_SIZE = 100 * MAX_ANSWERS


class _Answers(Value, kw_only=True):
    answers: dict[str, Grade | None]


class KnownAnswers:
    """The answers of one toolchain's EP on one machine.

    Args:
        cache_root: the folder of the cache.
        toolchain: its name.
        machine: this computer.
    """

    def __init__(self, cache_root: Path, toolchain: str, machine: Machine) -> None:
        self._root = cache_root
        self._toolchain = toolchain
        self._machine = machine

    @functools.cached_property
    def path(self) -> Path:
        """The file; it need not exist."""
        key = hashlib.sha256(f"{self._toolchain}\n{self._machine.key()}".encode()).hexdigest()
        return self._root / ANSWERS / f"{key}.json"

    def read(self) -> dict[str, Grade | None]:
        """Answers by question; empty if there are none, or none that can be read."""
        with contextlib.suppress(OSError, DecodeError):
            return dict(_Answers.from_json(read_note(self.path, _MAX_SIZE)).answers)
        return {}

    def add(self, question: str, said: Grade | None) -> None:
        """Keep an answer. What cannot be written is asked again, and what two add at once may be, too."""
        kept = self.read()
        if len(kept) >= MAX_ANSWERS:
            kept = {}
        text = _Answers(answers={**kept, question: said}).to_json()
        # A folder that is not a cache is told by whatever needs one.
        with contextlib.suppress(OSError, UsageError):
            write_note(self._root, self.path, text)
