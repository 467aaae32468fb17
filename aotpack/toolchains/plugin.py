"""EPs that come as a plugin library in a package of their own: what all of them share."""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module, metadata, util
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from aotpack.common.remember import MAX_LENGTH
from aotpack.errors import CompileError, ToolchainError, ToolchainMissing
from aotpack.machine.ort_release import ort_version
from aotpack.machine.profile import Machine
from aotpack.manifest.values import SessionSettings, Variant
from aotpack.selection.custom_ops import register
from aotpack.selection.settings import OneOf, Setting
from aotpack.selection.verdict import Grade
from aotpack.targets.catalogue import Target
from aotpack.toolchains.base import Compiled, Toolchain

if TYPE_CHECKING:
    import onnxruntime

    from aotpack.toolchains.ask_worker import AskWorker

__all__ = ["COMPILED_CONFIG", "MODEL_NAME", "PluginToolchain", "installed_version", "of_type"]

#: What the ONNX of every compiled variant is called; sidecars are named after it.
MODEL_NAME = "model.onnx"

#: Session config entries of compiled variants.
COMPILED_CONFIG: Mapping[str, Setting] = MappingProxyType(
    {
        "session.disable_model_compile": Setting(
            OneOf(("1",)), "What was compiled is never compiled anew at load: it can only rule work out."
        )
    }
)

#: In the METADATA of an installed package.
_VERSION = re.compile(r"^Version: *(\S+) *$", re.MULTILINE)

_log = logging.getLogger(__name__)

#: Answers of an EP that are kept for the life of the process, each to a question of at most `MAX_LENGTH`.
_MAX_ANSWERS = 1024

_registering = threading.Lock()
#: EPs whose libraries this process has registered: it may be done once, and some then list no device.
_registered: set[str] = set()

_GRADES = {
    "EP_SUPPORTED_OPTIMAL": Grade.OPTIMAL,
    "EP_SUPPORTED_PREFER_RECOMPILATION": Grade.PREFER_RECOMPILATION,
    "EP_UNSUPPORTED": Grade.UNSUPPORTED,
    "EP_NOT_APPLICABLE": Grade.UNSUPPORTED,
}


@functools.cache
def installed_version(distribution: str) -> str | None:
    """The version of an installed Python package, or None."""
    try:
        found = metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return None
    # `metadata.version` reads the whole file as an e-mail, with the package's readme as its body.
    header = _VERSION.search(found.read_text("METADATA") or "")
    return header[1] if header else found.version


class PluginToolchain(Toolchain):
    """The common part of toolchains whose EP is a plugin library.

    Subclasses set the class attributes and add what is their vendor's alone.
    """

    #: The package on PyPI, the module in it, and our extra that requires it.
    distribution: str
    module: str
    extra: str
    package_config = COMPILED_CONFIG
    #: ORT's severity while compiling; 0 makes some EPs say why they leave a node alone.
    compile_log_severity: int = 2

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str], Grade | None] = {}
        self._asking: AskWorker | None = None
        #: The checks of the EP's devices of each type.
        self._checks: dict[str, list[Callable[[str], Any]]] = {}
        #: What the answers are worth.
        self._grades: Mapping[Any, Grade] = {}

    def version(self) -> str | None:
        """The installed version of the EP's package, or None."""
        return installed_version(self.distribution)

    def pip_command(self) -> str:
        """How a user installs it."""
        return f"pip install 'aotpack[{self.extra}]'"

    def built_with(self) -> Mapping[str, str]:
        """Versions of onnxruntime, of the EP's package and of the runtime inside it."""
        return {
            "onnxruntime": ort_version(),
            self.distribution: self.version() or "not installed",
            **self.runtime_details(),
        }

    def why_not_compile(self, target: Target, machine: Machine) -> str | None:
        """The EP's package must be installed."""
        return None if self.version() else f"{self.distribution} is not installed ({self.pip_command()})"

    def session_settings(self, target: Target) -> SessionSettings:
        """The options that it was compiled with; compiling at load is ruled out."""
        return SessionSettings(
            provider_options=target.provider_options, config={"session.disable_model_compile": "1"}
        )

    def ask(self, ep_string: str, device: str) -> Grade | None:
        """The EP's own check, in a process of its own where it can take the process down."""
        question = (device, ep_string)
        if question in self._answers:
            return self._answers[question]
        if self.ask_in_worker and self._asking is None:
            from aotpack.toolchains.ask_worker import AskWorker

            self._asking = AskWorker(self.name)
        ask = self._asking.ask if self._asking is not None else self.ask_here
        said = ask(ep_string, device)
        if len(ep_string) <= MAX_LENGTH:
            if len(self._answers) >= _MAX_ANSWERS:
                self._answers.clear()
            self._answers[question] = said
        return said

    def forget(self) -> None:
        """Ask the EP again: its last answers are kept for the life of the process."""
        self._answers.clear()

    def ask_here(self, ep_string: str, device: str) -> Grade | None:
        """The EP's own check, in this process; the best answer of its devices of that type.

        Its NOT_APPLICABLE is a refusal: such blobs do not load.
        """
        try:
            return min(self._said(ep_string, device), key=_rank, default=None)
        except Exception as error:
            # Some EPs raise on what they cannot read, others where they find no device of their kind.
            _log.debug("%s gives no answer on a compatibility string", self.ep, exc_info=error)
            return None

    def _said(self, ep_string: str, device: str) -> list[Grade]:
        """What the check says for each of the EP's devices of that type."""
        if device not in self._checks:
            from onnxruntime.capi import _pybind_state as state

            check = state.get_model_compatibility_for_ep_devices
            found = of_type(self.devices(), device)
            self._checks[device] = [functools.partial(check, [each]) for each in found]
            # By the members themselves: to look up the name of one takes as long as half a check.
            members = state.OrtCompiledModelCompatibility.__members__
            self._grades = {members[name]: grade for name, grade in _GRADES.items()}
        return [self._grades[check(ep_string)] for check in self._checks[device]]

    def own_options(self) -> Mapping[str, str]:
        """Provider options that name something on this machine, so that no package can hold them."""
        return {}

    def load(self) -> None:
        """Load and register the EP's library."""
        self.devices()

    def compile(
        self, target: Target, model: Path, folder: Path, *, custom_ops: Sequence[Path] = ()
    ) -> Compiled:
        """Compile with ORT's ModelCompiler, the blob in a file of its own.

        With ModelCompiler's default optimisation level some EPs refuse most real models, and an
        embedded blob loads many times slower (docs/toolchains/README.md).
        """
        self.compile_to(folder / MODEL_NAME, target, model, custom_ops=custom_ops)
        return self.compiled_in(target, folder)

    def compile_to(
        self,
        output: Path,
        target: Target,
        model: Path,
        config: Mapping[str, str] = MappingProxyType({}),
        *,
        custom_ops: Sequence[Path] = (),
    ) -> None:
        """Write the compiled `model`, with these session config entries and libraries.

        Raises:
            CompileError: the EP refused it.
            UsageError: a library cannot be registered.
        """
        import onnxruntime as ort

        options = self.compile_options(target)
        register(options, custom_ops)
        options.log_severity_level = self.compile_log_severity
        for key, value in config.items():
            options.add_session_config_entry(key, value)
        try:
            ort.ModelCompiler(
                options,
                str(model),
                embed_compiled_data_into_model=False,
                flags=ort.OrtCompileApiFlags.ERROR_IF_NO_NODES_COMPILED,
                graph_optimization_level=ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
            ).compile_to_file(str(output))
        except Exception as error:
            raise CompileError(str(error), where=f"{self.ep} compiling for {target.name}") from error

    def compile_options(self, target: Target) -> onnxruntime.SessionOptions:
        """Options with the device that is compiled for."""
        return self._options({**target.provider_options, **self.own_options()}, target.device)

    def compiled_in(self, target: Target, folder: Path) -> Compiled:
        """What a compiler left in `folder` for `target`."""
        output = folder / MODEL_NAME
        sidecars = sorted(path for path in folder.rglob("*") if path.is_file() and path != output)
        files = [(path.relative_to(folder).as_posix(), path) for path in (output, *sidecars)]
        return Compiled(files=tuple(files), ep_string=self.compiled_string(target, output))

    def add_provider(self, options: onnxruntime.SessionOptions, variant: Variant, *, emulate: bool) -> None:
        """Add the EP's device, with the variant's provider options and this machine's own."""
        ep_string = variant.compatibility.ep_string
        provider_options = {**variant.session.provider_options, **self.own_options()}
        self._add_device(options, provider_options, variant.device, ep_string)

    def devices(self) -> list[Any]:
        """The EP's devices on this machine, the library registered.

        A plugin EP is registered under its canonical name; some list meta EPs beside it.

        Raises:
            ToolchainMissing: the EP's package is not installed.
            ToolchainError: its library cannot be loaded.
        """
        if util.find_spec(self.module) is None:
            raise ToolchainMissing("is not installed", where=self.distribution, hint=self.pip_command())
        with _registering:
            if self.ep not in _registered and not self._listed():
                import onnxruntime as ort

                try:
                    library = import_module(self.module).get_library_path()
                    ort.register_execution_provider_library(self.ep, library)
                except Exception as error:
                    raise ToolchainError("cannot be loaded", where=self.ep, found=error) from error
            _registered.add(self.ep)
        return self._listed()

    def _listed(self) -> list[Any]:
        import onnxruntime as ort

        return [device for device in ort.get_ep_devices() if device.ep_name == self.ep]

    def _options(self, provider_options: Mapping[str, str], device: str) -> onnxruntime.SessionOptions:
        import onnxruntime as ort

        options = ort.SessionOptions()
        self._add_device(options, provider_options, device)
        return options

    def _add_device(
        self,
        options: onnxruntime.SessionOptions,
        provider_options: Mapping[str, str],
        device: str,
        ep_string: str | None = None,
    ) -> None:
        chosen = of_type(self.devices(), device)
        if not chosen:
            raise ToolchainError(f"has no {device} on this machine", where=self.ep)
        if len(chosen) > 1 and ep_string and not self.ask_in_worker:
            # A machine can have GPUs of several generations.
            with contextlib.suppress(Exception):
                said = self._said(ep_string, device)
                chosen = [chosen[said.index(min(said, key=_rank))]]
        options.add_provider_for_devices(chosen[:1], dict(provider_options))


def of_type(devices: Sequence[Any], device: str) -> list[Any]:
    """Those of an EP's devices that are a ``cpu``, ``gpu`` or ``npu``; some EPs list several types.

    An emulated GPU or NPU is listed as what it runs on.
    """
    same = [each for each in devices if each.device.type.name.lower() == device]
    return same if same or device == "cpu" else list(devices)[:1]


def _rank(grade: Grade) -> int:
    return grade.rank
