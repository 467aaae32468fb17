"""Every error that aotpack raises on purpose.

::

    AotpackError
    ├── UsageError (ValueError)                the call is wrong; exit status 2
    │   ├── UnknownName (LookupError)          no such target, variant, component, machine; names the nearest
    │   └── ShapeError                         a --shape that the model does not have, or lacks
    ├── ModelError (ValueError)                the source model cannot be read or prepared
    ├── PackageError                           a package cannot be used
    │   ├── PackageNotFound (FileNotFoundError)
    │   ├── FormatError (ValueError)           the bytes are not a well-formed package
    │   │   ├── NewerFormat                    a format version that this release does not know
    │   │   ├── ManifestError                  the manifest is not what docs/format.md allows
    │   │   └── LimitExceeded                  a length, count or depth above its named limit
    │   ├── DigestMismatch                     bytes differ from their digest
    │   └── NotAllowed                         it asks for what no package may: an option, a file, an operator
    ├── ExtraMissing (ImportError)             an extra of aotpack is not installed; names the pip command
    ├── ProfileError (ValueError)              a machine profile cannot be read
    ├── ToolchainError                         a vendor's package failed
    │   ├── ToolchainMissing (ImportError)     it is not installed; names the pip command
    │   └── CompileError                       it ran and gave no usable variant
    ├── FarmError (ConnectionError)            a cluster cannot be reached, or nobody there can do the jobs
    ├── BuildFailed                            targets failed and keep_going was not asked for
    ├── CheckFailed                            a variant does not run here, or its numbers are off
    ├── BuildStopped                           nobody wants any more what a worker was doing
    ├── FlexError (ValueError)                 a FlexAttention node or mod is wrong; names node and attribute
    ├── OutputError (OSError)                  a file or folder cannot be written
    └── NothingToLoad                          every variant was refused; lists each with its reason

An error's text is one line: where, what was found, what was expected, what to do next.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from aotpack._text import clipped, printable, shortened

if TYPE_CHECKING:
    from aotpack.builder.report import BuildReport
    from aotpack.runtime.events import Refusal

__all__ = [
    "AotpackError",
    "BuildFailed",
    "BuildStopped",
    "CheckFailed",
    "CompileError",
    "DigestMismatch",
    "ExtraMissing",
    "FarmError",
    "FlexError",
    "FormatError",
    "LimitExceeded",
    "ManifestError",
    "ModelError",
    "NewerFormat",
    "NotAllowed",
    "NothingToLoad",
    "OutputError",
    "PackageError",
    "PackageNotFound",
    "ProfileError",
    "ShapeError",
    "ToolchainError",
    "ToolchainMissing",
    "UnknownName",
    "UsageError",
]


#: Characters of an error: some screens. What a file, an option or a vendor's library says has no end.
_MAX_ERROR = 8000
#: Characters of the place of an error, so that there is room for what is wrong there.
_MAX_WHERE = 2000
#: Characters of a name that are compared with those that are known.
_MAX_NAME = 256


class AotpackError(Exception):
    """The root of the tree.

    Args:
        what: what went wrong, in a few words.
        where: the file, field or option it is about, such as ``components[0].variants[2].files[1].sha256``.
        found: what was there.
        expected: what should have been there.
        hint: what to do next.
    """

    exit_status: ClassVar[int] = 1

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        found: object = None,
        expected: object = None,
        hint: str | None = None,
    ) -> None:
        text = what if where is None else f"{clipped(str(where), _MAX_WHERE)}: {what}"
        if found is not None:
            text += f"; found {found}"
        if expected is not None:
            text += f"; expected {expected}"
        if hint is not None:
            text += f" ({hint})"
        # Vendors' messages hold newlines; an error of ours is always one line.
        super().__init__(clipped(printable(" ".join(text.split())), _MAX_ERROR))

    def __reduce__(self) -> tuple[Any, ...]:
        # Not made anew from its text, which is not what the constructors take: errors cross processes.
        return _as_it_was, (type(self), self.args), self.__dict__

    def at(self, place: str) -> Self:
        """This error with `place`, where the wrong thing was said, in front of it."""
        self.args = (f"{place}: {self}",)
        return self

    def __str__(self) -> str:
        # Not the inherited one: FileNotFoundError, ImportError and KeyError each print their own way.
        return str(self.args[0])


def _as_it_was(cls: type[AotpackError], args: tuple[Any, ...]) -> AotpackError:
    error = cls.__new__(cls, *args)
    error.args = args
    return error


class UsageError(AotpackError, ValueError):
    """The caller asked for something that makes no sense; nothing was started."""

    exit_status = 2


class UnknownName(UsageError, LookupError):
    """A name that is not in its list.

    Args:
        kind: what sort of name it is, such as ``target``.
        name: the name that was given.
        known: the names that exist; the nearest ones are quoted.
        hint: what to do next when no name is near.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], *, hint: str | None = None) -> None:
        import difflib  # takes a millisecond, which only a wrong name is worth

        names = sorted(set(known))
        near = difflib.get_close_matches(name[:_MAX_NAME], names, n=3, cutoff=0.5)
        if not near and len(names) <= 12:
            near = names
        if near:
            hint = "did you mean " + ", ".join(near) + "?"
        super().__init__(f"unknown {kind} {shortened(name)}", hint=hint)


class ShapeError(UsageError):
    """A shape names an input that the model lacks, or an input needs a shape that was not given."""


class ModelError(AotpackError, ValueError):
    """The source model cannot be read or prepared."""


class PackageError(AotpackError):
    """A package cannot be used."""


class PackageNotFound(PackageError, FileNotFoundError):
    """There is no file at the path of the package."""


class FormatError(PackageError, ValueError):
    """The bytes are not a well-formed package (docs/format.md)."""


class NewerFormat(FormatError):
    """The package is of a major format version that this release cannot read."""


class ManifestError(FormatError):
    """The manifest is not what docs/format.md allows."""


class LimitExceeded(FormatError):
    """A length, count or depth in a package lies above its named limit."""


class DigestMismatch(PackageError):
    """Bytes differ from their digest."""


class NotAllowed(PackageError):
    """A package asks for what none may: an option, a file outside of it, an operator that loads code."""


class ExtraMissing(AotpackError, ImportError):
    """What an extra of aotpack adds is needed and not installed (`aotpack.extras`)."""


class ProfileError(AotpackError, ValueError):
    """A machine profile cannot be read."""


class ToolchainError(AotpackError):
    """A vendor's package failed."""


class ToolchainMissing(ToolchainError, ImportError):
    """A vendor's package is not installed."""


class CompileError(ToolchainError):
    """A vendor's compiler ran and gave no usable variant."""


class FarmError(AotpackError, ConnectionError):
    """A cluster cannot be reached, or nobody there can do the jobs."""


class BuildFailed(AotpackError):
    """Targets failed. The package with the others was written; ``report`` says which and why."""

    def __init__(self, what: str, *, report: BuildReport, hint: str | None = None) -> None:
        super().__init__(what, hint=hint)
        self.report = report


class CheckFailed(AotpackError):
    """A variant that fits this machine does not run on it, or its numbers are off."""


class BuildStopped(AotpackError):
    """What a build had begun with was given up, since it ends before its time."""

    def __init__(self) -> None:
        super().__init__("the build was stopped")


class FlexError(AotpackError, ValueError):
    """A FlexAttention node or one of its mods is wrong."""


class OutputError(AotpackError, OSError):
    """A file or folder cannot be written."""


#: Reasons in the text of a `NothingToLoad`, and variants that are named for each. `refusals` has all of them.
_MAX_REASONS, _MAX_NAMED = 6, 3


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more


class NothingToLoad(AotpackError):
    """Every variant was refused.

    Args:
        where: the package, and the component where there are several.
        refusals: one for each variant, in the order they were tried.
        hint: what to do next, where that is not to build a variant for this machine.
    """

    def __init__(self, where: object, refusals: Sequence[Refusal], *, hint: str | None = None) -> None:
        variants: dict[str, list[str]] = {}
        for each in refusals:
            variants.setdefault(each.reason.removesuffix("."), []).append(each.variant)
        told = [f"{_few(names)}: {reason}" for reason, names in variants.items()]
        more = f"; {len(told) - _MAX_REASONS} more reasons" if len(told) > _MAX_REASONS else ""
        listed = "; ".join(told[:_MAX_REASONS]) + more
        super().__init__(
            "no variant can be loaded on this machine",
            where=where,
            found=listed or "no variants at all",
            hint=hint
            or "`aotpack select` explains each; build one for this machine with `aotpack build --target`",
        )
        self.refusals = tuple(refusals)
