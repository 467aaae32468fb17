"""From a selection to a session: down the accepted candidates, and what to do where none is good enough.

A *miss* is a candidate that the machine deserves better than: the portable variant, or one whose verdict
is PREFER_RECOMPILATION. What is done then is the caller's choice (`OnMiss`); whatever is refused or compiled
is an event (`aotpack.events`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from aotpack.errors import NothingToLoad, ToolchainMissing, UsageError
from aotpack.events import EventCode, OnEvent, announcer
from aotpack.policy import Device, Policy
from aotpack.probing import probe
from aotpack.selection import Candidate, Selection, select
from aotpack.session import create
from aotpack.source.local import LocalVariants
from aotpack.toolchain import toolchains
from aotpack.verdict import Code, Grade

if TYPE_CHECKING:
    import onnxruntime

    from aotpack.manifest import Variant
    from aotpack.package import Package
    from aotpack.toolchain.base import Toolchain

__all__ = ["Loaded", "OnMiss", "check_on_miss", "load_first"]

#: At a miss: take it; compile for this machine into the cache, first or in the background; or raise.
OnMiss = Literal["portable", "compile", "compile-in-background", "error"]

_ON_MISS = ("portable", "compile", "compile-in-background", "error")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A session, and how it came about."""

    session: onnxruntime.InferenceSession
    candidate: Candidate
    #: (variant id, reason) of those that were tried before.
    refused: tuple[tuple[str, str], ...] = ()
    #: Compiles for this machine; the next load has what comes of it. None: nothing is compiled.
    compiling: threading.Thread | None = None


def check_on_miss(text: str) -> OnMiss:
    """`text` as what it names.

    Raises:
        UsageError: it names nothing.
    """
    for known in _ON_MISS:
        if text == known:
            return known  # type: ignore[return-value]
    raise UsageError(f"unknown on_miss {text!r}", expected=", ".join(_ON_MISS))


def load_first(
    package: Package, selection: Selection, *, on_miss: OnMiss = "portable", on_event: OnEvent | None = None
) -> Loaded:
    """Go down the accepted candidates until one gives a session.

    Args:
        package: the open package that `selection` is of.
        selection: for this machine.
        on_miss: what to do at a miss. A variant that the policy asks for by its id is none.
        on_event: called for every refusal and recompilation.

    Raises:
        NothingToLoad: none gave a session, or with ``error`` none but the portable one is left.
        UsageError: `on_miss` is unknown, or the environment asks for something that makes no sense.
    """
    return _Load(package, selection, check_on_miss(on_miss), on_event).run()


@dataclass(slots=True)
class _Load:
    package: Package
    selection: Selection
    on_miss: OnMiss
    on_event: OnEvent | None
    announce: Callable[..., None] = field(init=False)
    refused: list[tuple[str, str]] = field(default_factory=list)
    compiling: threading.Thread | None = None
    #: Device types that were compiled for, or of which it was seen that nothing can be.
    compiled_for: list[Device] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.announce = announcer(self.package.name, self.selection.component, self.on_event)

    def run(self) -> Loaded:
        for candidate in self.selection.rejected:
            verdict = candidate.verdict
            self.announce(EventCode.NOT_TAKEN, candidate.id, verdict.reason, verdict.code)
        for candidate in self.selection.accepted:
            if self._is_miss(candidate):
                if candidate.portable and self.on_miss == "error":
                    break
                if better := self._repair(candidate):
                    return better
                if candidate.portable:
                    reason = "No compiled variant is left; it is slower than one for this machine."
                    self.announce(EventCode.PORTABLE_ONLY, candidate.id, reason)
            if self.selection.last_resort:
                reason = "Nobody can say whether it fits; nothing else is left."
                self.announce(EventCode.LAST_RESORT, candidate.id, reason, candidate.verdict.code)
            if loaded := self._try(candidate, self._files):
                return loaded
        if self.selection.policy.variant is None and (better := self._repair()):
            return better
        tried = {variant for variant, _ in self.refused}
        left = [(item.id, self._why_not(item)) for item in self.selection.candidates if item.id not in tried]
        raise NothingToLoad(self.package.name, [*self.refused, *left])

    def _why_not(self, candidate: Candidate) -> str:
        if candidate.accepted and candidate.portable:
            return "It would run, but it was asked to be an error that nothing else is left."
        return candidate.verdict.reason

    def _is_miss(self, candidate: Candidate) -> bool:
        if self.selection.policy.variant is not None:
            return False
        return candidate.portable or candidate.verdict.grade is Grade.PREFER_RECOMPILATION

    def _try(self, candidate: Candidate, files: Callable[[Variant], Path]) -> Loaded | None:
        variant = candidate.variant
        emulate = candidate.verdict.code is Code.EMULATED
        try:
            model = files(variant) / variant.files[0].path
            session = create(variant, model, _toolchain_of(variant), emulate=emulate)
        except UsageError:
            # Of the call or its environment, and no variant's fault.
            raise
        except Exception as error:
            # Vendors' libraries raise what they like; the next candidate may load all the same.
            sentence = " ".join(str(error).split()) or type(error).__name__
            self.announce(EventCode.REFUSED, candidate.id, sentence, Code.LOAD_FAILED)
            self.refused.append((candidate.id, sentence))
            return None
        self.announce(EventCode.LOADED, candidate.id, candidate.verdict.reason, candidate.verdict.code)
        return Loaded(session, candidate, tuple(self.refused), self.compiling)

    def _files(self, variant: Variant) -> Path:
        component = self.package.component(self.selection.component)
        return self.package.cache.materialise(self.package.reader, component, variant)

    def _repair(self, miss: Candidate | None = None) -> Loaded | None:
        """What was compiled here before, or is now, if it is better than the candidate that is a miss."""
        if not self.on_miss.startswith("compile") or self.compiling is not None:
            return None
        policy = self._worth_compiling_for(miss)
        if policy is None:
            return None
        found = LocalVariants(self.package.cache).find(
            self.package.digest, self.selection.component, probe(), policy, self.selection.shapes
        )
        if found is None:
            # Off the loading path, and imported only where something is to be compiled.
            from aotpack.builder.repair import compile_here

            work = compile_here(
                self.package, self.selection.component, policy, self.announce, self.selection.shapes
            )
            if self.on_miss == "compile-in-background":
                self.compiling = threading.Thread(target=work, name="aotpack-compile", daemon=True)
                self.compiling.start()
                return None
            found = work()
        if found is None:
            return None
        variant, folder = found
        others = () if miss is None else (miss.variant,)
        component = self.package.component(self.selection.component)
        judged = select(
            component.model_copy(update={"variants": (variant, *others)}),
            probe(),
            toolchains(),
            here=True,
            policy=policy,
            shapes=self.selection.shapes,
        )
        best = judged.chosen
        if best is not None and best.variant is variant:
            return self._try(best, lambda _: folder)
        for candidate in judged.rejected:
            if candidate.variant is variant:
                verdict = candidate.verdict
                self.announce(EventCode.NOT_TAKEN, candidate.id, verdict.reason, verdict.code)
        return None

    def _worth_compiling_for(self, miss: Candidate | None) -> Policy | None:
        """The policy for devices that are no worse than that of a miss and were not compiled for before."""
        policy = self.selection.policy
        devices = list(policy.device_order)
        if miss is not None and not miss.portable:
            devices = devices[: devices.index(miss.variant.device) + 1]
        devices = [device for device in devices if device not in self.compiled_for]
        self.compiled_for += devices
        return replace(policy, devices=devices) if devices else None


def _toolchain_of(variant: Variant) -> Toolchain:
    toolchain = toolchains().get(variant.toolchain)
    if toolchain is None:
        raise ToolchainMissing(
            "is not known here",
            where=f"toolchain {variant.toolchain}",
            hint=f"install the package that adds it; the variant's EP is {variant.ep}",
        )
    return toolchain
