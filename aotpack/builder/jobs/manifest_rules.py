"""What came of a job held to the rules of a manifest, so that what breaks them costs its own row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from aotpack.common.field_errors import explain
from aotpack.container.model_files import check_model_file
from aotpack.errors import CompileError, FormatError, NotAllowed
from aotpack.manifest.model_check import ANY_DOMAIN, Allowance
from aotpack.manifest.parsing import parse
from aotpack.manifest.values import (
    PAGE_SIZE,
    Component,
    File,
    Manifest,
    Segment,
    SessionSettings,
    Source,
    Variant,
)
from aotpack.selection.settings import settings_issue

__all__ = ["SeenByLoaders", "check_variant", "seen_by_loaders"]

_NO_DIGEST = "0" * 64


def check_variant(variant: Variant, paths: Sequence[str]) -> None:
    """Nothing, if a manifest can hold `variant` with files of these paths.

    Raises:
        CompileError: it cannot, for the reason that a reader of the package would give.
    """
    try:
        # Sizes and digests are the writer's own; here each file is one byte.
        files = tuple(
            File(path=path, size=1, sha256=_NO_DIGEST, segments=(index,)) for index, path in enumerate(paths)
        )
        segments = tuple(
            Segment(
                offset=index * PAGE_SIZE,
                stored=1,
                size=1,
                codec="raw",
                sha256=_NO_DIGEST,
                xxh3=_NO_DIGEST[:32],
            )
            for index in range(len(paths))
        )
        component = Component(
            name="main",
            source=Source(sha256=_NO_DIGEST, size=0, opsets={}),
            inputs=(),
            outputs=(),
            variants=(variant.replace(files=files),),
        )
        parse(Manifest(name="checked", components=(component,), segments=segments).canonical_json())
    except msgspec.ValidationError as error:
        found = explain(error).replace("components[0].variants[0].", "")
        raise CompileError("gave what no package may hold", where=variant.target, found=found) from None
    except FormatError as error:
        found = str(error).replace("components[0].variants[0].", "")
        raise CompileError("gave what no package may hold", where=variant.target, found=found) from None
    except (ValueError, TypeError) as error:
        # An object of a third party's that is no value.
        raise CompileError("gave what no package may hold", where=variant.target, found=str(error)) from None


class SeenByLoaders(NamedTuple):
    """What a loader finds in a variant, whatever the machine."""

    #: What it refuses the variant for, in a sentence; None if nothing.
    issue: str | None
    #: Of operators that ONNX Runtime does not have: whoever loads the variant gives their libraries.
    domains: tuple[str, ...] = ()


def seen_by_loaders(
    session: SessionSettings, files: Sequence[tuple[str, str]], toolchain: object
) -> SeenByLoaders:
    """What a loader would find in a variant.

    Args:
        session: its settings.
        files: (path inside the variant, path on disk) of each of its files, the ONNX first.
        toolchain: the variant's; it lists what a package may ask for.

    Raises:
        OSError: a file cannot be read.
    """
    if issue := settings_issue(session, toolchain):
        return SeenByLoaders(issue)
    model, path = files[0]
    sizes = {name: Path(place).stat().st_size for name, place in files}
    try:
        # Whether there are kernels for operators of other domains is known where it is loaded.
        domains = check_model_file(Path(path), model, sizes, Allowance.of(toolchain, ANY_DOMAIN))
    except NotAllowed as error:
        return SeenByLoaders(f"no package may hold it: {error}")
    return SeenByLoaders(None, tuple(sorted(domains)))
