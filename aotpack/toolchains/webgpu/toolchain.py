"""WebGPU: a graph optimised ahead of time for any GPU that Dawn can drive.

The EP has no compiled form (ModelCompiler on it aborts the process; docs/toolchains/webgpu.md). What can be
done ahead of time is the graph, in a layout that only this release of the EP and of onnxruntime knows.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from aotpack.machine.ort_release import ort_minor
from aotpack.machine.profile import Machine
from aotpack.manifest.values import Requirements, SessionSettings, Variant
from aotpack.selection.custom_ops import register
from aotpack.selection.verdict import Code, Comparison, Grade, Verdict
from aotpack.targets.catalogue import Target
from aotpack.toolchains.base import Compiled, RunsHere
from aotpack.toolchains.ort.toolchain import write_optimised
from aotpack.toolchains.plugin import PluginToolchain

__all__ = ["WebGpuToolchain"]

#: Makes the EP take a driver that computes on the CPU; which one, the second says.
_SOFTWARE = "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER"
_DRIVERS = "VK_ICD_FILENAMES"
#: What a profile has among the EP's details where a file that `_DRIVERS` names is not there.
_DETAIL, _MISSING = "software-driver", "missing"


class WebGpuToolchain(PluginToolchain):
    """The WebGPU EP."""

    name = "webgpu"
    ep = "WebGpuExecutionProvider"
    distribution = "onnxruntime-ep-webgpu"
    module = "onnxruntime_ep_webgpu"
    extra = "webgpu"
    environment = (_SOFTWARE, _DRIVERS)
    takes_custom_ops = True
    loads_from_memory = True
    # None of its kernels computes in it.
    widens = MappingProxyType({"BFLOAT16": "FLOAT"})

    def runtime_details(self) -> Mapping[str, str]:
        """That the driver in software is missing, where the environment names one that is not there.

        It is looked for when a machine is probed: `judge` may have the profile of another one.
        """
        told = os.environ.get(_SOFTWARE) == "1" and bool(os.environ.get(_DRIVERS))
        return {_DETAIL: _MISSING} if told and not _drivers_exist() else {}

    def built_with(self) -> Mapping[str, str]:
        """Versions alone: which driver is there does not change the graph."""
        built_with = dict(super().built_with())
        built_with.pop(_DETAIL, None)
        return built_with

    def why_not_compile(self, target: Target, machine: Machine) -> str | None:
        """It optimises for a device, so there must be one, of hardware or of software."""
        if missing := super().why_not_compile(target, machine):
            return missing
        if machine.gpus or _software(machine):
            return None
        return (
            f"no GPU here, and no driver in software: set {_SOFTWARE}=1, and {_DRIVERS} to one such as "
            "SwiftShader's"
        )

    def how_to_run(self, target: Target, machine: Machine) -> RunsHere:
        """On a GPU, or on a driver in software."""
        if why := self.why_not_compile(target, machine):
            return RunsHere(None, why)
        if machine.gpus:
            return RunsHere("host")
        return RunsHere("emulator", "no GPU here: only on a driver in software, for checking")

    def requirements(self, target: Target) -> Requirements:
        """The release that wrote it and no other: the graph has operators that are the EP's alone."""
        return target.requires.replace(onnxruntime=f"=={ort_minor()}.*", ep=f"=={self.version()}")

    def session_settings(self, target: Target) -> SessionSettings:
        """The graph is taken as it is."""
        return SessionSettings(provider_options=target.provider_options, graph_optimization="disabled")

    def compile(
        self, target: Target, model: Path, folder: Path, *, custom_ops: Sequence[Path] = ()
    ) -> Compiled:
        """Optimise the graph for the device, to the highest level."""
        import onnxruntime as ort

        options = self._options(target.provider_options, target.device)
        register(options, custom_ops)
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        return write_optimised(model, options, folder, where=f"{self.ep} optimising for {target.name}")

    def compiled_string(self, target: Target, model: Path) -> str | None:
        """It writes none; what the model's metadata calls one is the author's."""
        return None

    def looks_at(self, variant: Variant) -> Hashable:
        """Nothing: what it needs is among its requirements."""
        return None

    def judge(self, variant: Variant, machine: Machine, *, emulate: bool) -> Verdict:
        """It runs on every GPU. The EP writes no string; its release is among the requirements."""
        if machine.gpus is None:
            compared = (Comparison("GPU", None, "any", None),)
            return Verdict(
                Grade.UNKNOWN, Code.NOT_IN_PROFILE, "The machine profile does not say its GPU.", compared
            )
        found = ", ".join(gpu.name or gpu.vendor for gpu in machine.gpus) or "none"
        compared = (Comparison("GPU", found, "any", bool(machine.gpus)),)
        if machine.gpus:
            return Verdict(Grade.OPTIMAL, Code.FITS, "It runs on every GPU with this release.", compared)
        if not _software(machine):
            return Verdict(Grade.UNSUPPORTED, Code.NO_DEVICE, "It needs a GPU.", compared)
        if emulate:
            return Verdict(Grade.OPTIMAL, Code.EMULATED, "It runs on a driver in software.", compared)
        return Verdict(
            Grade.UNSUPPORTED,
            Code.EMULATION_NOT_ASKED,
            "It needs a GPU; a driver in software is taken only when asked for.",
            compared,
        )


def _software(machine: Machine) -> bool:
    """Whether the EP was told to take a driver in software, as far as the machine's profile says."""
    if machine.environment.get(_SOFTWARE) != "1" or not machine.environment.get(_DRIVERS):
        return False
    installed = (machine.eps or {}).get(WebGpuToolchain.ep)
    return installed is None or installed.details.get(_DETAIL) != _MISSING


def _drivers_exist() -> bool:
    return all(map(os.path.exists, os.environ.get(_DRIVERS, "").split(os.pathsep)))
