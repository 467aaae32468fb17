"""All lies. Each is a function that changes an honest package, with the error that refuses it."""

from __future__ import annotations

from tests.attacks import (
    lies_of_paths,
    lies_of_segments,
    lies_of_texts,
    lies_of_the_manifest,
    lies_of_the_preamble,
)
from tests.attacks.lie import LIES, Lie

__all__ = [
    "LIES",
    "Lie",
    "lies_of_paths",
    "lies_of_segments",
    "lies_of_texts",
    "lies_of_the_manifest",
    "lies_of_the_preamble",
]
