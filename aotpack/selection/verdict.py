"""One variant against one machine: a verdict, with what was compared.

The grades are ORT's (OrtCompiledModelCompatibility) and UNKNOWN for "nobody can say". EP_NOT_APPLICABLE
is an EP's "this string is not mine" and never means that the variant fits (docs/toolchains/README.md).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Hashable
from enum import StrEnum
from typing import NamedTuple, Protocol

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from aotpack._text import clipped
from aotpack.common.remember import remember_last, remember_short
from aotpack.errors import ToolchainError
from aotpack.machine.profile import Machine, contradiction
from aotpack.manifest.values import Variant
from aotpack.selection.custom_ops import missing_library
from aotpack.selection.settings import settings_issue

__all__ = [
    "MAX_SPECIFIER",
    "MAX_VERSION",
    "STALE",
    "Code",
    "Comparison",
    "Grade",
    "Rules",
    "Verdict",
    "judge",
    "not_in_profile",
    "version_fits",
]


_log = logging.getLogger(__name__)

#: Characters of a version. A nightly build's has some thirty.
MAX_VERSION = 128
#: Characters of a version specifier. One with five clauses has some sixty.
MAX_SPECIFIER = 256


class Grade(StrEnum):
    """How well a variant fits, best first."""

    OPTIMAL = "OPTIMAL"
    PREFER_RECOMPILATION = "PREFER_RECOMPILATION"
    UNKNOWN = "UNKNOWN"
    UNSUPPORTED = "UNSUPPORTED"

    #: 0 for the best.
    rank: int


for _rank, _grade in enumerate(Grade):
    # An attribute, since a table by grade would hash an enum for every variant.
    _grade.rank = _rank


class Code(StrEnum):
    """Why, for programs. Codes are added and never change their meaning."""

    FITS = "fits"
    PORTABLE = "portable"
    EMULATED = "emulated"
    #: It runs, but one compiled for this machine would be faster.
    OLDER_DEVICE = "older-device"
    #: It runs; the EP calls optimal only what was compiled for exactly this device.
    NOT_EXACT = "not-exact"
    EP_SAYS_RECOMPILE = "ep-says-recompile"
    OS = "os"
    ARCH = "arch"
    ISA = "isa"
    ORT_VERSION = "onnxruntime-version"
    EP_MISSING = "ep-missing"
    EP_VERSION = "ep-version"
    #: The compiled blob is of another release of the runtime inside the EP.
    RUNTIME_VERSION = "runtime-version"
    NO_DEVICE = "no-device"
    OTHER_DEVICE = "other-device"
    DRIVER = "driver"
    #: It sets an option or a config entry that no package may set with its toolchain.
    OPTION_NOT_ALLOWED = "option-not-allowed"
    #: Its ONNX names a file outside the variant, or has an operator that a package may not have.
    MODEL_NOT_ALLOWED = "model-not-allowed"
    #: It has operators that ONNX Runtime does not have, and whoever loads it gave no library of them.
    CUSTOM_OPS_MISSING = "custom-ops-missing"
    #: The machine is emulated here, which is taken only when it is asked for.
    EMULATION_NOT_ASKED = "emulation-not-asked"
    EP_REFUSED = "ep-refused"
    #: The EP does not know the string, or wrote none.
    STRING_NOT_APPLICABLE = "string-not-applicable"
    STRING_MALFORMED = "string-malformed"
    STRING_NEWER = "string-newer"
    #: The profile does not say what the rule needs.
    NOT_IN_PROFILE = "not-in-profile"
    #: The profile says two things that cannot both be true.
    PROFILE_CONTRADICTS = "profile-contradicts"
    TOOLCHAIN_UNKNOWN = "toolchain-unknown"
    #: The rules that should have judged it raised.
    TOOLCHAIN_FAILED = "toolchain-failed"
    #: Its EP compiled less of the model than the policy's `min_compiled` asks for; the CPU runs the rest.
    PARTLY_COMPILED = "partly-compiled"
    #: A policy leaves it out.
    POLICY = "policy"
    #: A policy's memory limit leaves it out.
    MEMORY = "memory"
    #: It crashed or failed when it was measured on this machine.
    CRASHED = "crashed"
    #: It was compiled for other shapes of the inputs than those that were asked for.
    OTHER_SHAPES = "other-shapes"
    #: Shapes were asked for, and it does not say for which it was compiled.
    SHAPES_NOT_RECORDED = "shapes-not-recorded"
    #: Creating the session failed.
    LOAD_FAILED = "load-failed"


#: What is wrong with a variant whose toolchain or runtime moved on, whatever the device.
STALE = frozenset(
    {
        Code.ORT_VERSION,
        Code.EP_VERSION,
        Code.RUNTIME_VERSION,
        Code.STRING_NOT_APPLICABLE,
        Code.STRING_NEWER,
    }
)


# Tuples, as of a large package thousands are made at once, and a frozen dataclass takes three times as long.
class Comparison(NamedTuple):
    """One thing that was looked at: what the variant needs beside what the machine has."""

    what: str
    found: str | None
    needed: str
    #: None: the machine does not say.
    fits: bool | None


class Verdict(NamedTuple):
    """What is to be said of one variant on one machine."""

    grade: Grade
    code: Code
    #: One sentence.
    reason: str
    compared: tuple[Comparison, ...] = ()
    #: ``ep`` if the EP on this machine said so, else ``rules``.
    by: str = "rules"


class Rules(Protocol):
    """What `judge` needs of a toolchain.

    One that has a ``failure`` (`aotpack.toolchains.base.Toolchain.failure`) is not asked anything else.
    """

    @property
    def ep(self) -> str:
        """The execution provider, as ONNX Runtime names it."""

    def pip_command(self) -> str:
        """How to install what the EP needs."""

    def looks_at(self, variant: Variant) -> Hashable:
        """All of a variant that `judge` and `ask` depend on, its EP and device left aside."""

    def judge(self, variant: Variant, machine: Machine, *, emulate: bool) -> Verdict:
        """The toolchain's own rules for its compatibility strings; reads nothing but its arguments."""

    def ask(self, ep_string: str, device: str) -> Grade | None:
        """What the EP says of a compatibility string for its device here; None where it has no answer."""


def judge(
    variant: Variant,
    machine: Machine,
    rules: Rules | None,
    *,
    here: bool,
    emulate: bool = False,
    custom_ops: bool = False,
) -> Verdict:
    """The verdict on one variant.

    1. What it sets of the session: nothing but what its toolchain lets a package set. What it needs of the
       caller: libraries of its custom operators.
    2. Our own requirements: os, arch, isa, ORT version.
    3. The EP: installed, and of a version that is accepted.
    4. The EP's own check of the compatibility string if `machine` is this one, the toolchain's rules
       otherwise or where the EP gives no answer.

    Args:
        variant: what is judged.
        machine: whom for.
        rules: the variant's toolchain; None if no such toolchain is known here.
        here: `machine` is this computer, so its EPs can be asked.
        emulate: an emulated device counts as a device.
        custom_ops: whoever loads it gives libraries of custom operators.
    """
    if rules is None:
        return Verdict(
            Grade.UNKNOWN,
            Code.TOOLCHAIN_UNKNOWN,
            f"No toolchain {variant.toolchain!r} is known here to judge it.",
        )
    if (failure := getattr(rules, "failure", None)) is not None:
        return Verdict(Grade.UNKNOWN, Code.TOOLCHAIN_FAILED, failure)
    if (issue := settings_issue(variant.session, rules)) is not None:
        return Verdict(Grade.UNSUPPORTED, Code.OPTION_NOT_ALLOWED, issue)
    requires = variant.compatibility.requires
    if requires.custom_ops and not custom_ops:
        needed = Comparison("custom operators", "no library", clipped(", ".join(requires.custom_ops)), False)
        sentence = missing_library(requires.custom_ops)
        return Verdict(Grade.UNSUPPORTED, Code.CUSTOM_OPS_MISSING, sentence, (needed,))
    installed = None if machine.eps is None else machine.eps.get(variant.ep)
    if machine.eps is not None and installed is None:
        return _without_ep(variant, machine, rules)
    items, failed = _requiring(machine)(
        (requires.os, requires.arch, requires.isa, requires.onnxruntime, requires.ep),
        variant.ep,
        installed.version if installed else None,
    )
    if failed is not None:
        return failed
    try:
        own = rules.judge(variant, machine, emulate=emulate)
        ep_string = variant.compatibility.ep_string
        asked = here and ep_string is not None and own.code not in _SETTLED
        said = rules.ask(ep_string, variant.device) if asked and ep_string is not None else None
    except Exception as error:
        # Rules raise what they like; the other variants are judged all the same.
        _log.debug("the rules of toolchain %s raised on %s", variant.toolchain, variant.id, exc_info=True)
        said_by_us = isinstance(error, ToolchainError)
        raised = f"The rules of toolchain {variant.toolchain!r} raised {type(error).__name__}: {error}."
        return Verdict(Grade.UNKNOWN, Code.TOOLCHAIN_FAILED, f"{error}." if said_by_us else raised, items)
    if asked and said is None:
        items += (_NO_ANSWER,)
    return _with_answer(own, said, items + own.compared)


def _without_ep(variant: Variant, machine: Machine, rules: Rules) -> Verdict:
    missing = (Comparison(variant.ep, "not installed", "installed", False),)
    # A third party's rules raise what they like; then this is what is known.
    with contextlib.suppress(Exception):
        own = rules.judge(variant, machine, emulate=False)
        if own.code in _NO_SUCH_DEVICE:
            # Nobody should install an EP for a device that is not there.
            return Verdict(own.grade, own.code, own.reason, missing + own.compared)
    sentence = f"{variant.ep} is not installed."
    with contextlib.suppress(Exception):
        if command := rules.pip_command():
            sentence = f"{variant.ep} is not installed ({command})."
    return Verdict(Grade.UNSUPPORTED, Code.EP_MISSING, sentence, missing)


def not_in_profile(what: str, compared: tuple[Comparison, ...] = ()) -> Verdict:
    """UNKNOWN, since the machine profile leaves `what` out."""
    return Verdict(
        Grade.UNKNOWN, Code.NOT_IN_PROFILE, f"The machine profile does not say its {what}.", compared
    )


def _with_answer(own: Verdict, said: Grade | None, compared: tuple[Comparison, ...]) -> Verdict:
    if said is None:
        return Verdict(own.grade, own.code, own.reason, compared)
    if said is own.grade:
        return Verdict(own.grade, own.code, own.reason, compared, "ep")
    # The EP has the last word, since it will be the one to load the blob.
    code = {Grade.UNSUPPORTED: Code.EP_REFUSED, Grade.PREFER_RECOMPILATION: Code.EP_SAYS_RECOMPILE}.get(
        said, Code.FITS
    )
    return Verdict(said, code, f"The EP's own check says {said} ({own.code}).", compared, "ep")


#: Beside what the rules compared, where they stand alone.
_NO_ANSWER = Comparison("the EP's own check", None, "an answer", None)


#: Where no EP could help.
_NO_SUCH_DEVICE = (Code.NO_DEVICE, Code.OTHER_DEVICE)

#: Where the EP on this machine has nothing to add.
_SETTLED = (Code.PORTABLE, Code.NO_DEVICE, Code.EMULATED, Code.EMULATION_NOT_ASKED)


#: os, arch, CPU features and onnxruntime of a machine.
_Found = tuple[str | None, str | None, frozenset[str] | None, str | None]

#: os, arch, isa, onnxruntime and EP of `aotpack.manifest.values.Requirements`.
_Required = tuple[tuple[str, ...] | None, str | None, tuple[str, ...] | None, str | None, str | None]

#: What was compared, and the verdict if that settles it.
_Compared = tuple[tuple[Comparison, ...], Verdict | None]


@remember_last
def _requiring(machine: Machine) -> Callable[[_Required, str, str | None], _Compared]:
    """What compares requirements with a machine; most variants of a package require the same."""
    features = None if machine.cpu.features is None else frozenset(machine.cpu.features)
    found = (machine.os, machine.arch, features, machine.onnxruntime)

    def requirements(required: _Required, ep: str, ep_version: str | None) -> _Compared:
        return _requirements(found, required, ep, ep_version)

    return remember_short(requirements)


def _requirements(found: _Found, required: _Required, ep: str, ep_version: str | None) -> _Compared:
    compared: list[tuple[Code, Comparison]] = []
    needs_os, needs_arch, needs_isa, needs_ort, needs_ep = required
    os, arch, features, ort = found
    if needs_os is not None:
        fits = None if os is None else os in needs_os
        compared.append((Code.OS, Comparison("os", os, " or ".join(needs_os), fits)))
    if needs_arch is not None:
        fits = None if arch is None else arch == needs_arch
        compared.append((Code.ARCH, Comparison("arch", arch, needs_arch, fits)))
    if needs_isa is not None:
        compared.append((Code.ISA, _features(needs_isa, features)))
    if needs_ort is not None:
        compared.append((Code.ORT_VERSION, _version("onnxruntime", ort, needs_ort)))
    if needs_ep is not None or ep_version is None:
        compared.append((Code.EP_VERSION, _version(ep, ep_version, needs_ep or "installed")))
    items = tuple(item for _, item in compared)
    if needs_isa is not None or needs_arch is not None:
        lie = contradiction(arch, features)
        if lie is not None:
            sentence = f"The machine profile contradicts itself: {lie}."
            return items, Verdict(Grade.UNKNOWN, Code.PROFILE_CONTRADICTS, sentence, items)
    for code, item in compared:
        if item.fits is False:
            sentence = f"It needs {item.what} {clipped(item.needed)}; here it is {item.found}."
            return items, Verdict(Grade.UNSUPPORTED, code, sentence, items)
    for item in items:
        if item.fits is None:
            return items, not_in_profile(item.what, items)
    return items, None


def _features(needed: tuple[str, ...], found: frozenset[str] | None) -> Comparison:
    missing = [name for name in needed if found is not None and name not in found]
    return Comparison(
        "CPU features",
        None if found is None else f"without {clipped(', '.join(missing))}" if missing else "all of them",
        ", ".join(needed),
        None if found is None else not missing,
    )


def _version(what: str, found: str | None, needed: str) -> Comparison:
    return Comparison(what, found, needed, None if found is None else version_fits(found, needed))


def version_fits(version: str, specifier: str) -> bool | None:
    """Whether `version` is in the PEP 440 `specifier`; None if either cannot be read, or is too long.

    A nightly build counts as the release that it leads to: ``1.33.0.dev20261101001`` has what is in 1.33.
    """
    if specifier == "installed":
        return True
    if len(version) > MAX_VERSION or len(specifier) > MAX_SPECIFIER:
        return None
    return _fits(version, specifier)


@remember_short
def _fits(version: str, specifier: str) -> bool | None:
    try:
        allowed, found = SpecifierSet(specifier), Version(version)
        nightly = found.is_devrelease and allowed.contains(Version(found.base_version), prereleases=True)
        return nightly or allowed.contains(found, prereleases=True)
    except ValueError:
        # InvalidSpecifier, InvalidVersion, or a number that Python does not convert.
        return None
