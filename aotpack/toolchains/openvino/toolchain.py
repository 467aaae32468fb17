"""OpenVINO: one blob per ISA class of the CPU, and its GPUs and NPUs (`openvino_devices`)."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Hashable, Mapping
from importlib import import_module, metadata
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from aotpack.errors import UsageError
from aotpack.machine.profile import Machine
from aotpack.manifest.values import Variant
from aotpack.selection.verdict import Verdict
from aotpack.targets.catalogue import Precision, Target
from aotpack.toolchains.base import RunsHere
from aotpack.toolchains.file_version import file_version
from aotpack.toolchains.openvino.devices import has_device, judge_device, virtual_npus, why_not
from aotpack.toolchains.openvino.options import OPTIONS
from aotpack.toolchains.openvino.string import (
    CAP,
    CPU_VENDOR,
    EP,
    FORMER_CAP,
    ISA_CLASSES,
    cap_of,
    isa_class,
    judge,
    parsed,
    string_for,
)
from aotpack.toolchains.plugin import PluginToolchain

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["OpenVinoToolchain"]

_BY_CAP = {known.cap: known for known in ISA_CLASSES}

#: Activations that meet quantised weights are rounded to int8, in groups of this size; 0: they are not. The
#: kernels that do it do not compile under a cap below AVX-512 (release 2026.4.1).
_DYNAMIC = "DYNAMIC_QUANTIZATION_GROUP_SIZE"


class OpenVinoToolchain(PluginToolchain):
    """The OpenVINO EP, for Intel CPUs: it lists no others, whatever instructions they have."""

    name = "openvino"
    ep = EP
    distribution = "onnxruntime-ep-openvino"
    module = "onnxruntime_ep_openvino"
    extra = "openvino"
    environment = (CAP, FORMER_CAP)
    takes_custom_ops = True
    package_options = OPTIONS
    # Its frontend refuses 2-bit types.
    widens = MappingProxyType({"INT2": "INT4", "UINT2": "UINT4"})

    def runtime_details(self) -> Mapping[str, str]:
        """The release of OpenVINO in the EP's package: a blob loads in no other."""
        return {"openvino": release} if (release := _bundled_release()) else {}

    def with_precision(self, target: Target, precision: Precision) -> Target:
        """By OpenVINO's INFERENCE_PRECISION_HINT, at compile and again at load.

        A CPU without the instructions computes in another precision, and says nothing.
        """
        offered = _precisions(target)
        if precision not in offered:
            raise UsageError(
                f"cannot compute in {precision}",
                where=f"target {target.name}",
                expected=" or ".join(offered),
            )
        device = target.device.upper()
        try:
            config: dict[str, dict[str, str]] = json.loads(target.provider_options.get("load_config", "{}"))
            own = {**config.get(device, {}), "INFERENCE_PRECISION_HINT": precision}
        except (ValueError, TypeError, AttributeError):
            raise UsageError("is not JSON", where=f"target {target.name}, option load_config") from None
        own.pop(_DYNAMIC, None)
        if precision == "f32":
            own[_DYNAMIC] = "0"
        options = {**target.provider_options, "load_config": json.dumps({**config, device: own})}
        return target.replace(precision=precision, provider_options=options)

    def why_not_compile(self, target: Target, machine: Machine) -> str | None:
        """For a CPU it compiles for the class it runs on, which must be within what this CPU has."""
        if missing := super().why_not_compile(target, machine):
            return missing
        if target.device != "cpu":
            return why_not(target, machine, self.distribution)
        if machine.arch != "x86_64":
            return "OpenVINO compiles for x86-64 CPUs on x86-64 machines only"
        if machine.cpu.vendor != CPU_VENDOR:
            return f"the OpenVINO EP takes Intel CPUs only; the vendor of this one is {machine.cpu.vendor}"
        features = machine.cpu.features or ()
        lacking = [name for name in target.requires.isa or () if name not in features]
        return (
            f"this CPU lacks {', '.join(lacking)}, so it cannot compile for those that have it"
            if lacking
            else None
        )

    def how_to_run(self, target: Target, machine: Machine) -> RunsHere:
        """On this CPU, or on a lesser one that the cap makes of it; on the GPU or NPU itself."""
        if why := self.why_not_compile(target, machine):
            return RunsHere(None, why)
        if target.device != "cpu":
            found = has_device(target, machine)
            return RunsHere("host") if found else RunsHere(None, f"there is no {target.title} here")
        own = isa_class(machine.cpu.features or (), cap_of(machine))
        cap = target.environment.get(CAP)
        return RunsHere("host" if own is not None and own.cap == cap else "isa-emulation")

    def judge(self, variant: Variant, machine: Machine, *, emulate: bool) -> Verdict:
        """The EP's rules on its string, as far as they are known: for CPUs (`openvino_string.judge`)."""
        if variant.device != "cpu":
            return judge_device(variant.device, variant.built_with.get("openvino"), machine)
        return judge(variant.compatibility.ep_string, machine)

    def compile_options(self, target: Target) -> onnxruntime.SessionOptions:
        """For an NPU that this machine has not, the virtual one of its platform."""
        if target.device != "npu" or any(device.device.type.name == "NPU" for device in self.devices()):
            return super().compile_options(target)
        import onnxruntime as ort

        (platform,) = target.architectures
        options = ort.SessionOptions()
        virtual = virtual_npus(self.ep, import_module(self.module).get_library_path())
        options.add_provider_for_devices([virtual[platform]], dict(target.provider_options))
        return options

    def looks_at(self, variant: Variant) -> Hashable:
        """Its string without the EP's own version, which does not count; for devices what built it."""
        text = variant.compatibility.ep_string
        string = text and parsed(text)
        return string if variant.device == "cpu" else (string, variant.built_with.get("openvino"))

    def forget(self) -> None:
        """Ask the EP again, and read strings anew."""
        super().forget()
        parsed.forget()

    def foreseen(self, target: Target) -> str | None:
        """The string for the target's ISA class and the installed release."""
        release, isa = _bundled_release(), _BY_CAP.get(target.environment.get(CAP, ""))
        return string_for(release, isa) if release and isa else None


def _precisions(target: Target) -> tuple[Precision, ...]:
    """What a target computes in when it is asked to.

    Of CPUs measured up to AVX512_CORE_BF16 with release 2026.4.1: below AVX-512 only f32 compiles, and f16 is
    bf16 where there are no float16 instructions. Of the rest as OpenVINO documents it, not run.
    """
    isa = _BY_CAP.get(target.environment.get(CAP, ""))
    if target.device != "cpu" or isa is None:
        return ("f32", "f16")
    halves: dict[str, Precision] = {"avx512f": "bf16", "avx512_fp16": "f16"}
    return ("f32", *(name for feature, name in halves.items() if feature in isa.features))


@functools.cache
def _bundled_release() -> str | None:
    """The release of the package's OpenVINO; its string has it too, but only the loaded library writes one.

    On Linux it is in a soname, ``libopenvino.so.2641`` for 2026.4.1; on Windows openvino.dll has it as its
    version.
    """
    try:
        files = metadata.files(OpenVinoToolchain.distribution) or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        if match := re.fullmatch(r"libopenvino\.so\.(\d\d)(\d)(\d)", file.name):
            return f"20{match[1]}.{match[2]}.{match[3]}"
        if file.name == "openvino.dll" and (version := file_version(Path(str(file.locate())))):
            return ".".join(map(str, version[:3]))
    return None
