"""What a toolchain's attributes and methods may give, checked value by value.

A third party's toolchain can be wrong in any way that Python allows, and what it gives ends in machine
profiles, verdicts and manifests. Each function here says in a few words what is wrong with a value, or None.
`aotpack.toolchains.guarded` holds installed toolchains to it, and `aotpack.testing` tests them for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import ValidationError

from aotpack._text import shortened
from aotpack.common.field_errors import explain
from aotpack.common.values import NAME, NAME_RULE
from aotpack.machine.profile import Devices, Ep, Gpu, Npu
from aotpack.selection.settings import Setting
from aotpack.selection.verdict import Code, Comparison, Grade, Verdict
from aotpack.targets.catalogue import Target, catalogue

if TYPE_CHECKING:
    from collections.abc import Callable

    from aotpack.toolchains.base import Toolchain

__all__ = [
    "attributes",
    "attributes_issue",
    "details_issue",
    "devices_issue",
    "hashable_issue",
    "optional_text_issue",
    "target_issue",
    "targets_issue",
    "text_issue",
    "verdict_issue",
    "version_issue",
]

#: Characters of the name of an EP; the longest of ONNX Runtime has 30.
_MAX_EP = 256
#: Environment variables that a toolchain may have recorded, so that a profile has room for those of all.
_MAX_VARIABLES = 32
#: What all systems take as the name of an environment variable.
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.()-]{0,254}")


def attributes(toolchain: Toolchain) -> dict[str, object]:
    """The attributes of a toolchain by name, each read once and no mapping shared with it."""
    values = {name: getattr(toolchain, name) for name in _ATTRIBUTES}
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}


def attributes_issue(values: Mapping[str, object]) -> str | None:
    """What is wrong with the `attributes` of a toolchain."""
    for name, value in values.items():
        fits, expected = _ATTRIBUTES[name]
        if not fits(value):
            return f"{name} is {_shown(value)}; expected {expected}"
    return None


def text_issue(value: object) -> str | None:
    """What is wrong with a text."""
    return None if isinstance(value, str) else f"gave {_shown(value)}; expected a str"


def optional_text_issue(value: object) -> str | None:
    """What is wrong with a text that may be None."""
    return None if value is None else text_issue(value)


def version_issue(value: object) -> str | None:
    """What is wrong with the version of an EP, as a machine profile holds it."""
    return None if value is None else _ep_issue(value, {})


def details_issue(value: object) -> str | None:
    """What is wrong with what a machine profile is to hold of an EP beside its version."""
    if not isinstance(value, Mapping) or not _are_texts(value):
        return f"gave {_shown(value)}; expected a mapping of str to str"
    return _ep_issue("0", dict(value))


def target_issue(value: object, toolchain: Toolchain) -> str | None:
    """What is wrong with a target that `toolchain` gave."""
    if not isinstance(value, Target):
        return f"gave {_shown(value)}; expected an aotpack.targets.catalogue.Target"
    if value.toolchain != toolchain.name:
        return f"gave target {value.name} of toolchain {value.toolchain}; expected its own"
    return None


def targets_issue(value: object, toolchain: Toolchain) -> str | None:
    """What is wrong with the targets that `toolchain` adds to the catalogue."""
    if not isinstance(value, tuple):
        return f"gave {_shown(value)}; expected a tuple of targets"
    built_in = catalogue()
    for target in value:
        if issue := target_issue(target, toolchain):
            return issue
        if target.name in built_in:
            return f"gave target {target.name}, which the catalogue has already"
    return None


def devices_issue(value: object, given: Devices) -> str | None:
    """What is wrong with devices that were `given`, and come back with more said of them."""
    if not isinstance(value, Devices):
        return f"gave {_shown(value)}; expected aotpack.machine.profile.Devices"
    for before, after, kind in ((given.gpus, value.gpus, Gpu), (given.npus, value.npus, Npu)):
        if not isinstance(after, tuple) or not all(isinstance(each, kind) for each in after):
            return f"gave {_shown(after)}; expected a tuple of aotpack.machine.profile.{kind.__name__}"
        if [each.vendor for each in after[: len(before)]] != [each.vendor for each in before]:
            return "left out devices that were listed, or changed their order"
    return None


def verdict_issue(value: object) -> str | None:
    """What is wrong with a verdict."""
    if not isinstance(value, Verdict):
        return f"gave {_shown(value)}; expected an aotpack.selection.verdict.Verdict"
    fine = (
        isinstance(value.grade, Grade)
        and isinstance(value.code, Code)
        and isinstance(value.reason, str)
        and isinstance(value.compared, tuple)
        and all(
            isinstance(each, Comparison)
            and isinstance(each.what, str)
            and isinstance(each.found, str | None)
            and isinstance(each.needed, str)
            and isinstance(each.fits, bool | None)
            for each in value.compared
        )
    )
    return None if fine else f"gave {_shown(value)}, whose parts are of other types than they should be"


def hashable_issue(value: object) -> str | None:
    """What is wrong with a value that verdicts are kept by."""
    try:
        hash(value)
    except Exception as error:
        return f"gave {_shown(value)}, which cannot be hashed: {error}"
    return None


def _is_name(value: object) -> bool:
    return isinstance(value, str) and NAME.fullmatch(value) is not None


def _is_ep(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and 0 < len(value) <= _MAX_EP


def _are_variables(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) <= _MAX_VARIABLES
        and all(isinstance(each, str) and _VARIABLE.fullmatch(each) is not None for each in value)
    )


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


def _are_settings(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(key, str) and isinstance(setting, Setting) for key, setting in value.items()
    )


def _are_texts(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(key, str) and isinstance(text, str) for key, text in value.items()
    )


def _are_names(value: object) -> bool:
    return isinstance(value, frozenset) and all(isinstance(each, str) for each in value)


#: Each attribute of a toolchain with what its value must be.
_ATTRIBUTES: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "name": (_is_name, f"a text of {NAME_RULE}"),
    "ep": (_is_ep, f"the name of an execution provider, of at most {_MAX_EP} characters"),
    "environment": (_are_variables, f"a tuple of at most {_MAX_VARIABLES} names of environment variables"),
    "needs_fixed_shapes": (_is_bool, "True or False"),
    "ask_in_worker": (_is_bool, "True or False"),
    "shares_weights": (_is_bool, "True or False"),
    "takes_custom_ops": (_is_bool, "True or False"),
    "widens": (_are_texts, "a mapping of names of element types"),
    "package_options": (_are_settings, "a mapping of names to aotpack.selection.settings.Setting"),
    "package_config": (_are_settings, "a mapping of names to aotpack.selection.settings.Setting"),
    "ep_context_attributes": (_are_names, "a frozenset of names"),
}


def _ep_issue(version: object, details: object) -> str | None:
    try:
        Ep.from_builtins({"version": version, "details": details})
    except ValidationError as error:
        return f"gave {_shown(details if details else version)}: {explain(error)}"
    return None


def _shown(value: object) -> str:
    try:
        return shortened(value) if isinstance(value, str) else f"{repr(value)[:80]} ({type(value).__name__})"
    except Exception:
        # Its repr may raise as well.
        return f"something of type {type(value).__name__}"
