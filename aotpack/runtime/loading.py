"""From a selection to a session: down the accepted candidates, and what to do where none is good enough.

A *miss* is a candidate that the machine deserves better than: the portable variant, or one whose verdict
is PREFER_RECOMPILATION. What is done then is the caller's choice (`LoadOptions.on_miss`); whatever is refused
or compiled is an event (`aotpack.runtime.events`).
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from aotpack.cache.variants import Held
from aotpack.common.vendor_text import brief
from aotpack.errors import (
    AotpackError,
    ExtraMissing,
    NotAllowed,
    NothingToLoad,
    OutputError,
    ToolchainError,
    ToolchainMissing,
    UsageError,
)
from aotpack.manifest.model_check import ANY_DOMAIN, Allowance
from aotpack.runtime.events import EventCode, LoadListener, Refusal
from aotpack.runtime.load_options import LoadOptions
from aotpack.runtime.probing import probe
from aotpack.runtime.session import create
from aotpack.selection.custom_ops import read_libraries
from aotpack.selection.policy import Device, Policy
from aotpack.selection.select import Candidate, Selection, select
from aotpack.selection.settings import settings_issue
from aotpack.selection.verdict import Code, Grade
from aotpack.toolchains import toolchains

if TYPE_CHECKING:
    import onnxruntime

    from aotpack.manifest.values import Variant
    from aotpack.runtime.package import Package
    from aotpack.toolchains.base import Toolchain

__all__ = ["Loaded", "load_first"]

#: How often a session is tried on files that were replaced while it was made.
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Loaded:
    """A session, and how it came about."""

    session: onnxruntime.InferenceSession
    candidate: Candidate
    #: Those that were tried before, in order.
    refused: tuple[Refusal, ...] = ()
    #: Compiles for this machine; the next load has what comes of it. None: nothing is compiled.
    compiling: threading.Thread | None = None


def load_first(package: Package, selection: Selection, options: LoadOptions) -> Loaded:
    """Go down the accepted candidates until one gives a session.

    Args:
        package: the open package that `selection` is of.
        selection: for this machine.
        options: what to do at a miss, and how the session is made. A variant that the policy asks for by its
            name is no miss.

    Raises:
        NothingToLoad: none gave a session, or with ``on_miss="error"`` none but the portable one is left.
        UsageError: the environment asks for something that makes no sense.
    """
    return _Load(package, selection, options).run()


@dataclass(slots=True)
class _Load:
    package: Package
    selection: Selection
    options: LoadOptions
    tell: LoadListener = field(init=False)
    refused: list[Refusal] = field(default_factory=list)
    compiling: threading.Thread | None = None
    #: Device types that were compiled for, or of which it was seen that nothing can be.
    compiled_for: list[Device] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tell = LoadListener(self.package.name, self.selection.component, self.options.on_event)

    def run(self) -> Loaded:
        for candidate in self.selection.rejected:
            self._tell_not_taken(candidate)
        for candidate in self.selection.accepted:
            if self._is_miss(candidate):
                if candidate.portable and self.options.on_miss == "error":
                    break
                if better := self._repair(candidate):
                    return better
                if candidate.portable:
                    reason = "No compiled variant is left; it is slower than one for this machine."
                    self._tell(EventCode.PORTABLE_ONLY, candidate, reason)
            if self.selection.last_resort:
                reason = "Nobody can say whether it fits; nothing else is left."
                self._tell(EventCode.LAST_RESORT, candidate, reason, candidate.verdict.code)
            if loaded := self._try(candidate, self._files):
                return loaded
        # A variant that is compiled here would need the libraries, too.
        lacks_library = any(
            item.verdict.code is Code.CUSTOM_OPS_MISSING for item in self.selection.candidates
        )
        may_repair = self.selection.policy.variant is None and not lacks_library
        if may_repair and (better := self._repair()):
            return better
        tried = {refusal.variant for refusal in self.refused}
        left = [
            Refusal(item.id, self._why_not(item), item.verdict.code)
            for item in self.selection.candidates
            if item.id not in tried
        ]
        several = len(self.package.component_names) > 1
        where = f"{self.package.name}: component {self.selection.component}" if several else self.package.name
        hint = None
        if lacks_library:
            given = "give the libraries to select(), too: it was made without them"
            hint = given if self.options.custom_ops else "`aotpack select` explains each"
        # Of the best candidate, since one cause is all that Python shows.
        cause = self.refused[0].error if self.refused else None
        raise NothingToLoad(where, [*self.refused, *left], hint=hint) from cause

    def _tell(
        self,
        code: EventCode,
        candidate: Candidate,
        reason: str,
        verdict: Code | None = None,
        error: BaseException | None = None,
    ) -> None:
        variant = candidate.variant
        self.tell(code, reason, target=variant.target, variant=variant.id, verdict=verdict, error=error)

    def _tell_not_taken(self, candidate: Candidate) -> None:
        self._tell(EventCode.NOT_TAKEN, candidate, candidate.verdict.reason, candidate.verdict.code)

    def _why_not(self, candidate: Candidate) -> str:
        if candidate.accepted and candidate.portable:
            return "It would run, but it was asked to be an error that nothing else is left."
        return candidate.verdict.reason

    def _is_miss(self, candidate: Candidate) -> bool:
        if self.selection.policy.variant is not None:
            return False
        if candidate.portable:
            return True
        # To compile it anew would leave as much on the CPU.
        partly = candidate.verdict.code is Code.PARTLY_COMPILED
        return candidate.verdict.grade is Grade.PREFER_RECOMPILATION and not partly

    def _try(self, candidate: Candidate, files: Callable[[Variant], Held]) -> Loaded | None:
        variant = candidate.variant
        emulate = candidate.verdict.code is Code.EMULATED
        code = Code.LOAD_FAILED
        try:
            toolchain = _toolchain_of(variant)
            # A selection may have been made elsewhere, or by hand.
            if (issue := settings_issue(variant.session, toolchain)) is not None:
                code = Code.OPTION_NOT_ALLOWED
                raise NotAllowed(issue)
            try:
                session = self._session(variant, toolchain, files, emulate=emulate)
            except OutputError:
                # Nothing can be written, as in a container whose disk is read-only.
                if files != self._files or not toolchain.loads_from_memory:
                    raise
                session = self._session_in_memory(variant, toolchain, emulate=emulate)
        except UsageError:
            # Of the call or its environment, and no variant's fault.
            raise
        except Exception as error:
            # Vendors' libraries raise what they like; the next candidate may load all the same.
            if isinstance(error, NotAllowed) and code is Code.LOAD_FAILED:
                code = Code.MODEL_NOT_ALLOWED
            sentence = _told(error)
            self._tell(EventCode.REFUSED, candidate, sentence, code, error)
            self.refused.append(Refusal(candidate.id, sentence, code, error))
            return None
        self._tell(EventCode.LOADED, candidate, candidate.verdict.reason, candidate.verdict.code)
        return Loaded(session, candidate, tuple(self.refused), self.compiling)

    def _session(
        self, variant: Variant, toolchain: Toolchain, files: Callable[[Variant], Held], *, emulate: bool
    ) -> onnxruntime.InferenceSession:
        """A session on files that nobody removes meanwhile."""
        for attempt in itertools.count(1):
            with files(variant) as held:
                try:
                    return create(
                        variant,
                        held.folder / variant.files[0].path,
                        toolchain,
                        emulate=emulate,
                        session_options=self.options.session_options,
                        custom_ops=self.options.libraries,
                    )
                except Exception:
                    # Where a file was damaged, or a folder cannot be locked, others may have replaced it.
                    if attempt == _ATTEMPTS or held.is_intact():
                        raise
        raise AssertionError("unreachable")

    def _session_in_memory(
        self, variant: Variant, toolchain: Toolchain, *, emulate: bool
    ) -> onnxruntime.InferenceSession:
        """A session on what the package holds; its files are checked as those of the cache are."""
        # A warm load needs none of these.
        from aotpack.container.model_files import check_packaged_model
        from aotpack.runtime.session import create_in_memory

        check_packaged_model(self.package.reader, variant, self._allowance(variant))
        return create_in_memory(
            variant,
            {file.path: self.package.reader.read_file(file) for file in variant.files},
            toolchain,
            emulate=emulate,
            session_options=self.options.session_options,
            custom_ops=self.options.libraries,
        )

    def _allowance(self, variant: Variant) -> Allowance:
        # Which domains the libraries have is for ONNX Runtime to find out.
        domains = ANY_DOMAIN if self.options.custom_ops else frozenset[str]()
        return Allowance.of(_toolchain_of(variant), domains)

    def _files(self, variant: Variant) -> Held:
        component = self.package.component(self.selection.component)
        return self.package.cache.hold(self.package.reader, component, variant, self._allowance(variant))

    def _repair(self, miss: Candidate | None = None) -> Loaded | None:
        """What was compiled here before, or is now, if it is better than the candidate that is a miss."""
        if not self.options.on_miss.startswith("compile") or self.compiling is not None:
            return None
        policy = self._worth_compiling_for(miss)
        if policy is None:
            return None
        from aotpack.cache.local import LocalVariants

        local = LocalVariants(self.package.cache)
        libraries = read_libraries(self.options.libraries)
        place = (
            self.package.digest,
            self.selection.component,
            probe(),
            policy,
            self.selection.shapes,
            libraries.digests,
        )
        found = local.hold(*place)
        if found is None:
            try:
                # Off the loading path, and imported only where something is to be compiled.
                from aotpack.builder.repair import compile_here
            except ExtraMissing as error:
                self.tell(EventCode.RECOMPILE_FAILED, str(error), error=error)
                return None

            work = compile_here(
                self.package.reader,
                self.package.component(self.selection.component),
                self.package.cache,
                policy,
                self.tell,
                self.selection.shapes,
                libraries,
            )
            if self.options.on_miss == "compile-in-background":
                self.compiling = threading.Thread(
                    target=_for_the_next_load, args=(work,), name="aotpack-compile", daemon=True
                )
                self.compiling.start()
                return None
            found = work()
        if found is None:
            return None
        variant, held = found
        with held:
            return self._try_local(variant, held.key, policy, miss)

    def _try_local(self, variant: Variant, key: str, policy: Policy, miss: Candidate | None) -> Loaded | None:
        """What was compiled here and is in the cache by `key`, if it is better than a miss."""
        others = () if miss is None else (miss.variant,)
        component = self.package.component(self.selection.component)
        here = probe()
        judged = select(
            component.replace(variants=(variant, *others)),
            here,
            self.package.rules(here),
            here=True,
            policy=policy,
            shapes=self.selection.shapes,
            custom_ops=bool(self.options.custom_ops),
        )
        best = judged.chosen
        if best is not None and best.variant is variant:
            return self._try(best, lambda _: self._hold_local(key, variant))
        for candidate in judged.rejected:
            if candidate.variant is variant:
                self._tell_not_taken(candidate)
        return None

    def _hold_local(self, key: str, variant: Variant) -> Held:
        held = self.package.cache.hold_known(key, variant)
        if held is None:
            raise OutputError("what was compiled here was damaged or removed at this moment")
        return held

    def _worth_compiling_for(self, miss: Candidate | None) -> Policy | None:
        """The policy for devices that are no worse than that of a miss and were not compiled for before."""
        policy = self.selection.policy
        devices = list(policy.device_order)
        if miss is not None and not miss.portable:
            devices = devices[: devices.index(miss.variant.device) + 1]
        devices = [device for device in devices if device not in self.compiled_for]
        self.compiled_for += devices
        return replace(policy, devices=devices) if devices else None


def _for_the_next_load(work: Callable[[], tuple[Variant, Held] | None]) -> None:
    """Compile, and keep no hold of what comes of it."""
    found = work()
    if found is not None:
        found[1].close()


def _told(error: Exception) -> str:
    """An error as a sentence; what neither we nor ONNX Runtime raised on purpose is told with its kind."""
    text, kind = brief(str(error)), type(error)
    if isinstance(error, AotpackError | RuntimeError) or kind.__module__.startswith("onnxruntime"):
        return text or kind.__name__
    return f"{kind.__name__}: {text}" if text else kind.__name__


def _toolchain_of(variant: Variant) -> Toolchain:
    toolchain = toolchains().get(variant.toolchain)
    if toolchain is None:
        raise ToolchainMissing(
            "is not known here",
            where=f"toolchain {variant.toolchain}",
            hint=f"install the package that adds it; the variant's EP is {variant.ep}",
        )
    if toolchain.failure is not None:
        raise ToolchainError(toolchain.failure.removesuffix("."))
    return toolchain
