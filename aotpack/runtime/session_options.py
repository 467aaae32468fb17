"""The `onnxruntime.SessionOptions` of a session: what the caller wants, and what the variant needs.

The caller may give options that he prepared, or a function that changes ours. Neither can take away what the
package needs, and the caller's own object is never changed: one may serve any number of loads.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from aotpack.errors import UsageError
from aotpack.manifest.values import Variant
from aotpack.selection.custom_ops import register, registered_twice

if TYPE_CHECKING:
    import onnxruntime

    from aotpack.runtime.load_options import SessionChange

__all__ = ["AddsProvider", "left_alone", "options_for", "try_libraries"]

#: What is said of where a mistake is.
_WHERE = "session_options"

_FORMAT = "session.load_model_format"

#: Entries that would make something else of any variant, with the values that they may have, and why.
_RESERVED = {
    "ep.context_enable": (("0",), "variants were compiled when the package was built"),
    _FORMAT: (("ONNX",), "the files of a variant are ONNX"),
    "session.model_external_initializers_file_folder_path": (("",), "weights lie beside the variant's ONNX"),
    "ep.context_file_path": (("",), "the files that a variant refers to lie beside its ONNX"),
}

#: Of a variant that was compiled, and must not be compiled when it is loaded.
_COMPILED = "session.disable_model_compile"

#: An ONNX model with an empty graph, of opset 13.
_EMPTY_MODEL = b"\x08\x08:\x03\x12\x01gB\x04\n\x00\x10\r"

#: Held while the caller's options have profiling off for a copy, so that no session is made of them so.
_copying = threading.Lock()


class AddsProvider(Protocol):
    """What is needed of a toolchain."""

    def add_provider(self, options: onnxruntime.SessionOptions, variant: Variant, *, emulate: bool) -> None:
        """Add the EP's device to the options of a session with `variant`."""


def options_for(
    variant: Variant,
    model: Path,
    toolchain: AddsProvider,
    given: onnxruntime.SessionOptions | SessionChange | None,
    *,
    emulate: bool,
    custom_ops: Sequence[Path] = (),
    to_change: bool = False,
) -> onnxruntime.SessionOptions:
    """Options for a session with `variant`.

    Prepared options are used themselves where nothing is added to them, as for variants on the CPU EP.
    Otherwise a copy is used: of attributes, config entries, overrides of free dimensions and initializers.
    ONNX Runtime does not copy libraries of custom operators, so these come in `custom_ops`.

    Args:
        variant: what the session will be of.
        model: its ONNX file.
        toolchain: adds the EP.
        given: by the caller of the load: prepared options, or a function that changes ours in place.
        emulate: use the vendor's emulator where there is no device.
        custom_ops: libraries of custom operators.
        to_change: more is added to them, so that they are never those that were given.

    Raises:
        UsageError: what was given takes away what the package needs, is something else, or raised; or a
            library cannot be registered.
        ToolchainError: the EP is not there or has no device.
    """
    import onnxruntime as ort

    if given is None:
        options = _with_needs(ort.SessionOptions(), variant, are_new=True)
    elif isinstance(given, ort.SessionOptions):
        _check(given, variant, changed=False)
        options = _with_needs(_copy(given), variant)
    elif callable(given) and not isinstance(given, type):
        options = _with_needs(ort.SessionOptions(), variant, are_new=True)
        _change(options, given)
        _check(options, variant, changed=True)
    else:
        raise UsageError(
            "is neither options nor a function",
            where=_WHERE,
            found=f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__,
            expected="an onnxruntime.SessionOptions, or a function that changes the one that it is given",
        )
    register(options, custom_ops)
    toolchain.add_provider(options, variant, emulate=emulate)
    needs_nothing = (
        not custom_ops
        and not to_change
        and not variant.session.config
        and variant.session.graph_optimization == "default"
        # By this name ONNX Runtime would take its own format for ONNX, which is what was checked.
        and model.suffix.lower() != ".ort"
    )
    if isinstance(given, ort.SessionOptions) and needs_nothing and not options.has_providers():
        return given
    return options


@contextlib.contextmanager
def left_alone(options: onnxruntime.SessionOptions, *, shared: bool) -> Iterator[None]:
    """Have no other thread copy options while a session is made of them.

    Args:
        options: of the session, from `options_for`.
        shared: they are the caller's own, which other loads may be copying.
    """
    with contextlib.ExitStack() as stack:
        if shared:
            stack.enter_context(_copying)
            if not options.enable_profiling:
                stack.close()
        yield


def try_libraries(libraries: Sequence[Path]) -> None:
    """Register libraries of custom operators for a session that is never initialised.

    Raises:
        UsageError: one cannot be registered, or not beside another one.
    """
    import onnxruntime as ort
    from onnxruntime.capi import _pybind_state as state

    options = ort.SessionOptions()
    register(options, libraries)
    try:
        state.InferenceSession(options, _EMPTY_MODEL, False, False)
    except Exception as error:
        if (twice := registered_twice(error)) is not None:
            raise twice from error
        raise


def _with_needs(
    options: onnxruntime.SessionOptions, variant: Variant, *, are_new: bool = False
) -> onnxruntime.SessionOptions:
    import onnxruntime as ort

    for key, value in {**variant.session.config, _FORMAT: "ONNX"}.items():
        # ONNX Runtime warns of each entry that is set again, and takes long to say that there is none.
        if are_new or _entry(options, key) != value:
            options.add_session_config_entry(key, value)
    if variant.session.graph_optimization == "disabled":
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def _change(options: onnxruntime.SessionOptions, change: SessionChange) -> None:
    try:
        returned = change(options)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise UsageError("the function raised", where=_WHERE, found=said) from error
    if returned is not None and returned is not options:
        raise UsageError(
            "the function returned something else than it was given",
            where=_WHERE,
            found=type(returned).__name__,
            expected="None: it changes the options that it is given",
        )


def _check(options: onnxruntime.SessionOptions, variant: Variant, *, changed: bool) -> None:
    """Refuse options that take away what the package needs.

    Args:
        options: the caller's.
        variant: of the package.
        changed: they were ours, with all that the variant needs, before the caller changed them.

    Raises:
        UsageError: they do.
    """
    import onnxruntime as ort

    if options.has_providers():
        raise UsageError(
            "have an execution provider",
            where=_WHERE,
            expected="none: the package adds the one that the variant was compiled for",
            hint="a policy chooses the device: Policy(devices=[...])",
        )
    for key, value in variant.session.config.items():
        found = _entry(options, key)
        if found != value and (changed or found is not None):
            raise _taken_away(key, found, value, f"variant {variant.id} needs it")
    for option, value in variant.session.provider_options.items():
        # Where ONNX Runtime keeps the options of an EP; those that are added with the EP would replace it.
        key = f"ep.{variant.ep.lower()}.{option}"
        found = _entry(options, key)
        if found is not None and found != value:
            raise _taken_away(key, found, value, f"variant {variant.id} was compiled with it")
    for key, (allowed, why) in _RESERVED.items():
        found = _entry(options, key)
        if found is not None and found not in allowed and key not in variant.session.config:
            raise _taken_away(key, found, allowed[0] or "nothing", why)
    if options.optimized_model_filepath and variant.session.config.get(_COMPILED) == "1":
        raise _taken_away(
            "optimized_model_filepath",
            options.optimized_model_filepath,
            "nothing",
            f"variant {variant.id} is compiled, and ONNX Runtime writes no graph of compiled nodes",
        )
    levels = ort.GraphOptimizationLevel
    # Who prepares options cannot leave the level open: what it is at first is no wish.
    unchanged = (levels.ORT_DISABLE_ALL,) if changed else (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_ALL)
    if variant.session.graph_optimization == "disabled" and options.graph_optimization_level not in unchanged:
        raise _taken_away(
            "graph_optimization_level",
            options.graph_optimization_level.name,
            levels.ORT_DISABLE_ALL.name,
            f"the graph of variant {variant.id} was optimised when it was built",
        )


def _taken_away(what: str, found: object, expected: object, why: str) -> UsageError:
    return UsageError(f"change {what}", where=_WHERE, found=found, expected=expected, hint=why)


def _entry(options: onnxruntime.SessionOptions, key: str) -> str | None:
    try:
        return str(options.get_session_config_entry(key))
    except RuntimeError:
        # ONNX Runtime's way to say that there is none.
        return None


def _copy(given: onnxruntime.SessionOptions) -> onnxruntime.SessionOptions:
    """A copy, by way of a session that is never initialised: each has a copy of its own and gives it back."""
    from onnxruntime.capi import _pybind_state as state

    with _copying:
        profiling = given.enable_profiling
        try:
            # That session would write a profile, too.
            given.enable_profiling = False
            copy: onnxruntime.SessionOptions = state.InferenceSession(
                given, _EMPTY_MODEL, False, False
            ).session_options
        finally:
            given.enable_profiling = profiling
    copy.enable_profiling = profiling
    return copy
