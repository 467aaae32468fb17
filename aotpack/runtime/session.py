"""Files on disk to an `onnxruntime.InferenceSession`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aotpack.manifest.values import Variant
from aotpack.runtime.session_options import AddsProvider, left_alone, options_for
from aotpack.selection.custom_ops import registered_twice

if TYPE_CHECKING:
    import onnxruntime

    from aotpack.runtime.load_options import SessionChange

__all__ = ["create", "create_in_memory"]


def create(
    variant: Variant,
    model: Path,
    toolchain: AddsProvider,
    *,
    emulate: bool = False,
    session_options: onnxruntime.SessionOptions | SessionChange | None = None,
    custom_ops: Sequence[Path] = (),
) -> onnxruntime.InferenceSession:
    """A session on the files of `variant`.

    ORT's fallback to the CPU EP is off, so that the variant that was chosen is the one that runs, and a
    compiled variant is never compiled anew.

    Args:
        variant: what the files are.
        model: the ONNX file, its sidecars beside it.
        toolchain: registers the EP and names its device.
        emulate: use the vendor's emulator where there is no device.
        session_options: of the caller: prepared ones, or a function that changes ours.
        custom_ops: libraries of custom operators, which are loaded into this process.

    Raises:
        UsageError: `session_options` take away what the package needs, or a library cannot be registered, or
            not beside another one.
        ToolchainError: the EP is not there or has no device.
        Exception: whatever ORT raises when it cannot create the session.
    """
    options = options_for(variant, model, toolchain, session_options, emulate=emulate, custom_ops=custom_ops)
    return _created(os.fspath(model), options, custom_ops, shared=options is session_options)


def create_in_memory(
    variant: Variant,
    files: Mapping[str, bytes],
    toolchain: AddsProvider,
    *,
    emulate: bool = False,
    session_options: onnxruntime.SessionOptions | SessionChange | None = None,
    custom_ops: Sequence[Path] = (),
) -> onnxruntime.InferenceSession:
    """The same on a variant of ONNX and its external data, whose `files` are given by name."""
    name, *others = (file.path for file in variant.files)
    options = options_for(
        variant,
        Path(name),
        toolchain,
        session_options,
        emulate=emulate,
        custom_ops=custom_ops,
        to_change=True,
    )
    if others:
        contents = [files[other] for other in others]
        options.add_external_initializers_from_files_in_memory(
            others, contents, [len(each) for each in contents]
        )
    return _created(files[name], options, custom_ops, shared=False)


def _created(
    model: str | bytes, options: onnxruntime.SessionOptions, custom_ops: Sequence[Path], *, shared: bool
) -> onnxruntime.InferenceSession:
    import onnxruntime as ort

    try:
        with left_alone(options, shared=shared):
            session = ort.InferenceSession(model, options, enable_fallback=0)
    except Exception as error:
        if custom_ops and (twice := registered_twice(error)) is not None:
            raise twice from error
        raise
    session.disable_fallback()
    return session
