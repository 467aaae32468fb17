"""Toolchains of third parties, held so that one that fails harms nothing but its own variants.

A `GuardedToolchain` stands in front of a third party's object. Where variants are chosen or loaded, a method
that raises what it may not, or gives what its annotations do not allow, has failed: a warning names its
distribution, once, and its variants are UNKNOWN with the reason (``toolchain-failed``).

What a toolchain says of itself does not depend on a package. If that fails, or the toolchain cannot even be
made, it is put aside: its methods are not called again in this process (`failure`). What fails with a
package's own data counts for that selection or load alone (`trouble`), for else a package could take the
variants of all others out.

Building is another matter: a toolchain that cannot compile for one target may well do so for the next. There
what it raises is the reason of that target's row.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, TypeVar

from aotpack._text import clipped, printable
from aotpack.errors import AotpackError, ToolchainError, UsageError
from aotpack.machine.profile import Devices, Machine
from aotpack.machine.system import System
from aotpack.manifest.values import Requirements, SessionSettings, Variant
from aotpack.selection.verdict import Code, Grade, Verdict
from aotpack.targets.catalogue import Precision, Target
from aotpack.toolchains import contract
from aotpack.toolchains.base import Compiled, RunsHere, Toolchain

if TYPE_CHECKING:
    import onnxruntime

    from aotpack.flex.capabilities import Capabilities

__all__ = ["GuardedToolchain", "from_entry_point", "unguarded"]

_log = logging.getLogger(__name__)

#: Characters of a reason: what a third party raises has no end.
_MAX_REASON = 1000

_T = TypeVar("_T")


class GuardedToolchain(Toolchain):
    """A third party's toolchain.

    Args:
        name: it is called so if it cannot say its own name.
        distribution: the package that brought it, for messages: its name and version.
    """

    name = ""
    ep = ""

    def __init__(self, name: str, distribution: str) -> None:
        self.name = name
        #: The package that brought it, with its version.
        self.distribution = distribution
        self._lock = threading.Lock()
        self._inner: Toolchain | None = None

    @property
    def inner(self) -> Toolchain:
        """The third party's own object.

        Raises:
            ToolchainError: it was put aside.
        """
        if self._inner is None or self.failure is not None:
            raise self._refusal()
        return self._inner

    def hold(self, inner: Toolchain) -> None:
        """Stand in front of `inner`, whose attributes are read now and never again."""
        values = contract.attributes(inner)
        if issue := contract.attributes_issue(values):
            self.put_aside(f"its {issue}")
            return
        for name, value in values.items():
            setattr(self, name, value)
        self._inner = inner

    def put_aside(self, reason: str, error: BaseException | None = None) -> None:
        """Do not ask it again.

        Args:
            reason: the end of a sentence that begins with the toolchain.
            error: the cause.
        """
        with self._lock:
            if self.failure is not None:
                return
            self.failure = self._sentence("was put aside", reason)
        _warn(self.failure, error)

    def _fail(self, reason: str, error: BaseException | None = None) -> ToolchainError:
        """What to raise where it failed with what a package holds."""
        sentence = self._sentence("failed", reason)
        with self._lock:
            first = self.trouble is None
            self.trouble = self.trouble or sentence
        if first:
            _warn(sentence, error)
        failed = ToolchainError(sentence.removesuffix("."))
        failed.__cause__ = error
        return failed

    def _sentence(self, what: str, reason: str) -> str:
        reason = clipped(printable(" ".join(reason.split())), _MAX_REASON).removesuffix(".")
        return f"Toolchain {self.name!r} of {self.distribution} {what}: {reason}."

    # Where variants are chosen and loaded.

    def targets(self) -> tuple[Target, ...]:
        """None once it was put aside."""
        return self._asked(
            "targets()",
            lambda inner: inner.targets(),
            (),
            lambda value: contract.targets_issue(value, self),
        )

    def target_named(self, name: str) -> Target | None:
        """None once it was put aside."""

        def issue(value: object) -> str | None:
            return None if value is None else contract.target_issue(value, self)

        return self._asked(
            "target_named()", lambda inner: inner.target_named(name), None, issue, may_raise=UsageError
        )

    def version(self) -> str | None:
        """None once it was put aside."""
        return self._asked("version()", lambda inner: inner.version(), None, contract.version_issue)

    def pip_command(self) -> str:
        """Nothing once it was put aside."""
        return self._asked("pip_command()", lambda inner: inner.pip_command(), "", contract.text_issue)

    def runtime_details(self) -> Mapping[str, str]:
        """Empty once it was put aside."""
        return self._asked(
            "runtime_details()", lambda inner: inner.runtime_details(), {}, contract.details_issue
        )

    def identify(self, devices: Devices, system: System) -> Devices:
        """`devices` as they are once it was put aside."""
        return self._asked(
            "identify()",
            lambda inner: inner.identify(devices, system),
            devices,
            lambda value: contract.devices_issue(value, devices),
        )

    def foreseen(self, target: Target) -> str | None:
        """None once it was put aside."""
        return self._asked(
            "foreseen()", lambda inner: inner.foreseen(target), None, contract.optional_text_issue
        )

    # The same, with what a package holds. Each raises a ToolchainError where the third party's failed.

    def looks_at(self, variant: Variant) -> Hashable:
        """As the third party's."""
        return self._asked_of_package(
            "looks_at()", lambda inner: inner.looks_at(variant), contract.hashable_issue
        )

    def judge(self, variant: Variant, machine: Machine, *, emulate: bool) -> Verdict:
        """As the third party's, of variants that it can look at."""
        self.looks_at(variant)
        return self._asked_of_package(
            "judge()",
            lambda inner: inner.judge(variant, machine, emulate=emulate),
            contract.verdict_issue,
        )

    def ask(self, ep_string: str, device: str) -> Grade | None:
        """As the third party's."""

        def issue(value: object) -> str | None:
            return None if isinstance(value, Grade | None) else "gave something else than a Grade or None"

        return self._asked_of_package("ask()", lambda inner: inner.ask(ep_string, device), issue)

    def add_provider(self, options: onnxruntime.SessionOptions, variant: Variant, *, emulate: bool) -> None:
        """As the third party's."""
        self._asked_of_package(
            "add_provider()",
            lambda inner: inner.add_provider(options, variant, emulate=emulate),
            lambda _: None,
            may_raise=ToolchainError,
        )

    # Where variants are built.

    def why_not_compile(self, target: Target, machine: Machine) -> str | None:
        """What it raised is the reason, too."""
        try:
            why = self.inner.why_not_compile(target, machine)
            return why if contract.optional_text_issue(why) is None else "its toolchain gave no reason"
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return _said(error)

    def how_to_run(self, target: Target, machine: Machine) -> RunsHere:
        """What it raised is the reason why not."""
        try:
            runs = self.inner.how_to_run(target, machine)
            return runs if isinstance(runs, RunsHere) else RunsHere(None, "its toolchain does not say")
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return RunsHere(None, _said(error))

    def with_precision(self, target: Target, precision: Precision) -> Target:
        """As the third party's."""
        return self._build("with_precision()", lambda inner: inner.with_precision(target, precision), Target)

    def widened(self, types: Iterable[str]) -> dict[str, str]:
        """As the third party's."""
        return self._build("widened()", lambda inner: inner.widened(types), dict)

    def option_issue(self, name: str, value: str) -> str | None:
        """As the third party's."""
        return self._build("option_issue()", lambda inner: inner.option_issue(name, value), (str, NoneType))

    def built_with(self) -> Mapping[str, str]:
        """As the third party's."""
        built_with = self._build("built_with()", lambda inner: dict(inner.built_with()), dict)
        if issue := contract.details_issue(built_with):
            raise self._wrong(f"its built_with() {issue}")
        return built_with

    def flex_capabilities(self, target: Target) -> Capabilities:
        """As the third party's."""
        return self._build("flex_capabilities()", lambda inner: inner.flex_capabilities(target), object)

    def requirements(self, target: Target) -> Requirements:
        """As the third party's."""
        return self._build("requirements()", lambda inner: inner.requirements(target), Requirements)

    def session_settings(self, target: Target) -> SessionSettings:
        """As the third party's."""
        return self._build(
            "session_settings()", lambda inner: inner.session_settings(target), SessionSettings
        )

    # In worker processes, whose errors are rows (`aotpack.builder.jobs`).

    def load(self) -> None:
        """As the third party's."""
        self.inner.load()

    def compile(
        self, target: Target, model: Path, folder: Path, *, custom_ops: Sequence[Path] = ()
    ) -> Compiled:
        """As the third party's."""
        if not custom_ops:
            # Those that take none need not have the parameter.
            return self.inner.compile(target, model, folder)
        return self.inner.compile(target, model, folder, custom_ops=custom_ops)

    def compile_together(
        self,
        target: Target,
        models: Sequence[Path],
        folders: Sequence[Path],
        *,
        custom_ops: Sequence[Path] = (),
    ) -> tuple[Compiled, ...]:
        """As the third party's."""
        if not custom_ops:
            return self.inner.compile_together(target, models, folders)
        return self.inner.compile_together(target, models, folders, custom_ops=custom_ops)

    def compiled_string(self, target: Target, model: Path) -> str | None:
        """As the third party's."""
        return self.inner.compiled_string(target, model)

    def remarks(self, log: str) -> tuple[str, ...]:
        """As the third party's."""
        return self._build("remarks()", lambda inner: inner.remarks(log), tuple)

    def _asked(
        self,
        what: str,
        call: Callable[[Toolchain], _T],
        otherwise: _T,
        issue: Callable[[object], str | None],
        *,
        may_raise: type[AotpackError] | tuple[()] = (),
    ) -> _T:
        if self._inner is None or self.failure is not None:
            return otherwise
        try:
            value = call(self._inner)
            if (wrong := issue(value)) is None:
                return value
        except may_raise:
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            # SystemExit too, and what extension modules raise past Exception.
            self.put_aside(f"its {what} raised {_said(error)}", error)
        else:
            self.put_aside(f"its {what} {wrong}")
        return otherwise

    def _asked_of_package(
        self,
        what: str,
        call: Callable[[Toolchain], _T],
        issue: Callable[[object], str | None],
        *,
        may_raise: type[AotpackError] | tuple[()] = (),
    ) -> _T:
        inner = self.inner
        try:
            value = call(inner)
            wrong = issue(value)
        except may_raise:
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise self._fail(f"its {what} raised {_said(error)}", error) from error
        if wrong is not None:
            raise self._fail(f"its {what} {wrong}")
        return value

    def _build(
        self, what: str, call: Callable[[Toolchain], _T], kind: type[object] | tuple[type[object], ...]
    ) -> _T:
        try:
            value = call(self.inner)
        except (AotpackError, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise self._wrong(f"its {what} raised {_said(error)}") from error
        if not isinstance(value, kind):
            raise self._wrong(f"its {what} gave a {type(value).__name__}")
        return value

    def _wrong(self, what: str) -> ToolchainError:
        return ToolchainError(what, where=f"toolchain {self.name} of {self.distribution}")

    def _refusal(self) -> ToolchainError:
        return ToolchainError((self.failure or "").removesuffix("."))


def _warn(sentence: str, error: BaseException | None) -> None:
    _log.warning("%s [%s]", sentence, Code.TOOLCHAIN_FAILED, exc_info=error)


def from_entry_point(point: EntryPoint) -> GuardedToolchain:
    """The toolchain that an entry point names, put aside if there is something wrong with it."""
    guarded = GuardedToolchain(point.name, _distribution(point))
    try:
        made = point.load()
        if not isinstance(made, Toolchain) and callable(made):
            made = made()
        if isinstance(made, Toolchain):
            guarded.hold(made)
        else:
            gave = "None" if made is None else f"a {type(made).__name__}"
            guarded.put_aside(f"entry point {point.value!r} gives {gave}; expected an {_EXPECTED}")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # Modules that end the process when they are imported are not unheard of.
        guarded.put_aside(f"entry point {point.value!r} raised {_said(error)}", error)
    return guarded


def unguarded(toolchain: Toolchain) -> Toolchain:
    """The third party's own object, of one that is guarded.

    Raises:
        ToolchainError: it was put aside.
    """
    return toolchain.inner if isinstance(toolchain, GuardedToolchain) else toolchain


_EXPECTED = f"{Toolchain.__module__}.{Toolchain.__qualname__}"


def _said(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _distribution(point: EntryPoint) -> str:
    try:
        if point.dist is not None:
            return printable(clipped(f"{point.dist.name} {point.dist.version}"))
    except Exception:
        # Metadata that cannot be read.
        _log.debug("of entry point %s the distribution is not known", point.value, exc_info=True)
    return "an unknown distribution"
