"""What aotpack asks of a vendor's package, and nothing vendor-specific.

A toolchain stands between the stages and one vendor: it says what is installed, compiles in a worker
process, reads and judges the vendor's compatibility strings, and sets a session up. A third party
registers one under the entry point group ``aotpack.toolchains``; the object that it names is a
`Toolchain`, or a class or function without arguments that makes one. docs/toolchains.md shows a whole one,
and `aotpack.testing.ToolchainTests` checks what this module asks for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from aotpack.errors import CompileError, UsageError
from aotpack.machine.ort_release import ort_minor, ort_version
from aotpack.machine.profile import Devices, Machine
from aotpack.machine.system import System
from aotpack.manifest.values import Requirements, SessionSettings, Variant
from aotpack.selection.settings import Setting
from aotpack.selection.verdict import Grade, Verdict
from aotpack.targets.catalogue import Precision, Target

if TYPE_CHECKING:
    import onnxruntime

    from aotpack.flex.capabilities import Capabilities

__all__ = ["Compiled", "RunsHere", "Toolchain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """What a toolchain made of a model."""

    #: (path inside the variant, where the file is now), the ONNX to load first.
    files: tuple[tuple[str, Path], ...]
    #: Byte for byte as the EP wrote it; None if it writes none.
    ep_string: str | None


@dataclass(frozen=True, slots=True)
class RunsHere:
    """Whether a target's variants can run on a machine, and how."""

    #: ``host``, ``isa-emulation``, ``emulator``; None: not at all.
    how: str | None
    #: One sentence if they can not, or only in a way that has to be known.
    why: str = ""


class Toolchain(ABC):
    """One vendor's package.

    Only `load`, `compile`, `compile_together`, `compiled_string`, `ask` and `add_provider` load the vendor's
    library or import onnxruntime; making a toolchain and all its other methods do not. A subclass defines
    what is abstract; the rest has defaults.

    Where a variant is chosen or loaded, a third party's toolchain that raises, or gives what its annotations
    do not allow, has failed (`aotpack.toolchains.guarded`). What its methods may raise is said with each;
    whatever else a building method raises is the reason of that target's failed row.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """As targets and variants name it; best the entry point's name, too. A class attribute will do."""

    @property
    @abstractmethod
    def ep(self) -> str:
        """The execution provider, as ONNX Runtime names it. A class attribute will do."""

    #: Environment variables that change what the EP accepts; a machine profile records them.
    environment: tuple[str, ...] = ()
    #: Whether every input must have a fixed shape.
    needs_fixed_shapes: bool = False
    #: Why aotpack no longer asks it; None while it does. Set by aotpack, of third parties' toolchains.
    failure: str | None = None
    #: What it failed at first with something that a package holds. It is asked about other packages.
    trouble: str | None = None
    #: Element types that the compiler refuses, of weights or, for BFLOAT16, at all, and those it takes that
    #: hold each exactly. A type that maps to itself needs its zero points written out.
    widens: Mapping[str, str] = MappingProxyType({})
    #: Whether `compile` and `compile_together` take libraries of custom operators (``custom_ops``). One that
    #: does not compiles models with such operators without them, or refuses them.
    takes_custom_ops: bool = False
    #: Whether the EP takes a variant that lies in memory, where no cache can be written. One with blobs
    #: beside its ONNX would look for them in the current folder.
    loads_from_memory: bool = False
    #: Whether the EP's check of a compatibility string can take its process down, so that `ask` starts one.
    #: What it says is then kept in the cache (`aotpack.toolchains.rules`).
    ask_in_worker: bool = False
    #: Whether it can store weights that several models have in common once.
    shares_weights: bool = False
    #: Provider options that a package may set, with the form of each value and the reason. A variant with
    #: any other is UNSUPPORTED, and none is written. None of them names a file, a library, an address, a
    #: pointer or a log: what does belongs to whoever loads a package (`aotpack.selection.settings`).
    package_options: Mapping[str, Setting] = MappingProxyType({})
    #: Attributes of EPContext nodes that this EP reads beside those that ONNX Runtime defines, none of which
    #: names a file. A model with any other is refused (`aotpack.manifest.model_check`).
    ep_context_attributes: frozenset[str] = frozenset()
    #: As `package_options`, of ONNX Runtime's session config entries.
    package_config: Mapping[str, Setting] = MappingProxyType({})

    def targets(self) -> tuple[Target, ...]:
        """Targets that this toolchain adds to the built-in catalogue, each with its `name` and `ep`."""
        return ()

    def target_named(self, name: str) -> Target | None:
        """The target that `name` makes, for names that no list can hold; None if it is not of that form.

        Raises:
            UsageError: it is of that form, and wrong.
        """
        return None

    def with_precision(self, target: Target, precision: Precision) -> Target:
        """`target` computing in `precision`.

        Raises:
            UsageError: the EP does not let one choose.
        """
        if target.precision == precision:
            return target
        raise UsageError(f"{self.ep} does not let one choose the precision", where=f"target {target.name}")

    def widened(self, types: Iterable[str]) -> dict[str, str]:
        """Those of `types` that have to be rewritten, and into which (`widens`)."""
        return {name: self.widens[name] for name in sorted(types) if name in self.widens}

    def option_issue(self, name: str, value: str) -> str | None:
        """What is wrong with a provider option of a target; None if nothing is.

        Checked against `package_options`: a target's options go into the package. EPs ignore in silence what
        they do not know.
        """
        if not self.package_options:
            return f"{self.ep} has no options that a package may set"
        setting = self.package_options.get(name)
        if setting is None:
            known = sorted(self.package_options)
            import difflib  # takes a millisecond, which only a wrong name is worth

            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known
            return (
                f"{self.ep} has no such option that a package may set; did you mean {', '.join(near[:12])}?"
            )
        return None if setting.form.accepts(value) else f"is {value!r}; expected {setting.form.expected}"

    @abstractmethod
    def version(self) -> str | None:
        """The installed version of the EP, or None."""

    @abstractmethod
    def pip_command(self) -> str:
        """How a user installs it."""

    def runtime_details(self) -> Mapping[str, str]:
        """What beside the version decides which blobs the EP takes; empty if not installed."""
        return {}

    def built_with(self) -> Mapping[str, str]:
        """Package names and versions that go into a compiled variant: another one is built anew.

        By default those of onnxruntime and of the EP, and `runtime_details`.
        """
        return {
            "onnxruntime": ort_version(),
            self.name: self.version() or "not installed",
            **self.runtime_details(),
        }

    def identify(self, devices: Devices, system: System) -> Devices:
        """`devices` with what the vendor's own files and programs say of its GPUs and NPUs.

        Those of other vendors stay as they are, and in their order; devices that nobody listed come last.
        """
        return devices

    def why_not_compile(self, target: Target, machine: Machine) -> str | None:
        """Why `target` can not be compiled for on `machine`; None if it can.

        By default it can wherever the EP is installed.
        """
        return None if self.version() else f"{self.ep} is not installed ({self.pip_command()})"

    @abstractmethod
    def how_to_run(self, target: Target, machine: Machine) -> RunsHere:
        """Whether variants for `target` can run on `machine`: those that can are checked when built."""

    def load(self) -> None:
        """Load the vendor's library, so that it is not counted as compiling. By default nothing is loaded.

        Raises:
            ToolchainMissing: the vendor's package is not installed.
        """
        return

    def flex_capabilities(self, target: Target) -> Capabilities:
        """What `target` runs of attention, for the lowering of FlexAttention nodes. Imports onnx.

        By default plain ONNX operators.
        """
        from aotpack.flex.capabilities import Capabilities

        return Capabilities()

    @abstractmethod
    def compile(
        self, target: Target, model: Path, folder: Path, *, custom_ops: Sequence[Path] = ()
    ) -> Compiled:
        """Compile `model` into the empty `folder`. Called in a process of its own, which it may take down.

        Both paths are relative to the current folder, and the same in every build: some EPs put a digest of
        the model's path into their blobs. The model is a copy or is read-only. Of what is written, regular
        files in `folder` are taken; see docs/security.md.
        `custom_ops` are libraries for the sessions that it makes, passed where `takes_custom_ops` and there
        are some (`aotpack.selection.custom_ops.register`).

        Raises:
            CompileError: the vendor's compiler refused the model, in the vendor's words.
            ToolchainMissing: the vendor's package is not installed.
        """

    def compile_together(
        self,
        target: Target,
        models: Sequence[Path],
        folders: Sequence[Path],
        *,
        custom_ops: Sequence[Path] = (),
    ) -> tuple[Compiled, ...]:
        """As `compile`, for models whose variants share their weights. Only where `shares_weights`."""
        raise CompileError("cannot share weights", where=self.ep)

    def compiled_string(self, target: Target, model: Path) -> str | None:
        """The compatibility string in a compiled model, for one that another machine compiled.

        It is called in a worker process. By default it is what the EP wrote into the model's metadata.
        """
        from onnxruntime.capi import _pybind_state as state

        return state.get_compatibility_info_from_model(str(model), self.ep) or None

    def remarks(self, log: str) -> tuple[str, ...]:
        """The vendor's own words on nodes that it did not take, out of what a compile printed."""
        return ()

    def requirements(self, target: Target) -> Requirements:
        """What a machine must have for a variant compiled by the installed version.

        By default what the target requires, and this release of onnxruntime or a later one.
        """
        return target.requires.replace(onnxruntime=f">={ort_minor()}")

    def session_settings(self, target: Target) -> SessionSettings:
        """What a session with such a variant must be created with; by default the target's options."""
        return SessionSettings(provider_options=target.provider_options)

    @abstractmethod
    def judge(self, variant: Variant, machine: Machine, *, emulate: bool) -> Verdict:
        """Judge the compatibility string by rules; reads nothing but its arguments."""

    def looks_at(self, variant: Variant) -> Hashable:
        """All of a variant that `judge` and `ask` depend on, its EP and device left aside.

        Where it is equal, one verdict serves for all. By default that is the variant itself, so that none is
        taken for another.
        """
        return variant.id

    def foreseen(self, target: Target) -> str | None:
        """The compatibility string of a variant for `target`; None if it has none or nobody knows."""
        return None

    def ask(self, ep_string: str, device: str) -> Grade | None:
        """What the EP on this machine says of the compatibility string of a blob for a type of device.

        None where it has no answer.
        """
        return None

    @abstractmethod
    def add_provider(self, options: onnxruntime.SessionOptions, variant: Variant, *, emulate: bool) -> None:
        """Register the EP and add its device to `options`, which are for a session with `variant`.

        Raises:
            ToolchainMissing: the vendor's package is not installed.
            ToolchainError: it has no device on this machine.
        """
