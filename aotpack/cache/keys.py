"""What names contents in the cache: digests of all that they are made of."""

from __future__ import annotations

import hashlib
import json

from aotpack.manifest.model_check import Allowance
from aotpack.manifest.values import File, Manifest, Variant

__all__ = ["file_key", "variant_key"]


def file_key(file: File, manifest: Manifest) -> str:
    """The key of a file's content, hex."""
    # Not the file's own sha256: a load checks the segments', and only what was checked may name a content.
    parts = [(manifest.segments[index].size, manifest.segments[index].sha256) for index in file.segments]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def variant_key(variant: Variant, manifest: Manifest, allowance: Allowance | None) -> str:
    """The key of all that a variant's session is made of, hex.

    What was checked for one is never taken for another.

    Args:
        variant: of the package.
        manifest: of the package.
        allowance: by which its ONNX is checked, or None.
    """
    parts = (
        [(file.path, file_key(file, manifest)) for file in variant.files],
        (variant.toolchain, variant.ep, variant.device, variant.session.to_builtins()),
        allowance and (sorted(allowance.domains), sorted(allowance.attributes)),
    )
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
