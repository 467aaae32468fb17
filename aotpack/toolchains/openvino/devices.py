"""OpenVINO's GPUs and NPUs: what compiling for them needs, and what can be said of their blobs.

An NPU can be compiled for without one: registered under a name that ends in ``.virtual`` the EP's library
lists NPUs that are not on the machine, each with its platform in ``npu_platform``. It takes
OpenVINO's NPU compiler, which the EP's package for Windows has and the one for Linux has not. Nothing here
has run on a device.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

from aotpack.machine.profile import Machine
from aotpack.selection.verdict import Code, Comparison, Grade, Verdict
from aotpack.targets.catalogue import Target
from aotpack.toolchains.openvino.string import EP

__all__ = ["has_device", "has_npu_compiler", "judge_device", "virtual_npus", "why_not"]

#: As PCI numbers and profiles name it.
_MAKER = "intel"

_COMPILER = "openvino_intel_npu_compiler"


def has_npu_compiler(distribution: str) -> bool:
    """Whether OpenVINO's NPU compiler lies beside the EP's library, with what loads it."""
    try:
        files = metadata.files(distribution) or ()
    except metadata.PackageNotFoundError:
        return False
    plugins = [Path(str(file.locate())) for file in files if "intel_npu_plugin" in file.name]
    # Put there by hand the compiler is in no list of the package's files.
    beside = [path for plugin in plugins for path in plugin.parent.glob(f"*{_COMPILER}*")]
    found = {path.name.removeprefix("lib").split(".")[0] for path in beside}
    return {_COMPILER, f"{_COMPILER}_loader"} <= found


def has_device(target: Target, machine: Machine) -> bool:
    """Whether `machine` has what `target` is for."""
    if target.device == "gpu":
        return any(gpu.vendor == _MAKER for gpu in machine.gpus or ())
    return any(
        npu.vendor == _MAKER and npu.architecture in target.architectures for npu in machine.npus or ()
    )


def why_not(target: Target, machine: Machine, distribution: str) -> str | None:
    """Why a GPU's or NPU's `target` can not be compiled for on `machine`; None if it can."""
    if has_device(target, machine):
        return None
    if target.device == "gpu":
        return "not on this host: it needs an Intel GPU and its driver, which has the compiler"
    if has_npu_compiler(distribution):
        return None
    return (
        "not on this host: it needs that very NPU and its driver, or OpenVINO's NPU compiler beside the EP's "
        f"library ({_COMPILER} and {_COMPILER}_loader, which the package for Windows has)"
    )


def judge_device(device: str, built_by: str | None, machine: Machine) -> Verdict:
    """What can be said of a blob for a ``gpu`` or ``npu`` without asking the EP: whether there is one.

    Args:
        device: its type.
        built_by: the release of OpenVINO that compiled it. The same one loads it; of another nobody can say.
        machine: whom for.
    """
    installed = (machine.eps or {}).get(EP)
    release = installed.details.get("openvino") if installed else None
    same = True if release is not None and release == built_by else None
    runtime = Comparison("OpenVINO", release, built_by or "not known", same)
    name = device.upper()
    listed = machine.gpus if device == "gpu" else machine.npus
    if listed is None:
        return Verdict(
            Grade.UNKNOWN,
            Code.NOT_IN_PROFILE,
            f"The machine profile does not say its {name}.",
            (runtime, Comparison(name, None, f"an Intel {name}", None)),
        )
    own = [each.name or each.vendor for each in listed if each.vendor == _MAKER]
    found = Comparison(name, ", ".join(own) or f"no Intel {name}", f"an Intel {name}", bool(own))
    if not own:
        return Verdict(Grade.UNSUPPORTED, Code.NO_DEVICE, f"It needs an Intel {name}.", (runtime, found))
    sentence = f"It was compiled for an Intel {name}; only the EP on a machine with one can say which."
    return Verdict(Grade.UNKNOWN, Code.STRING_NOT_APPLICABLE, sentence, (runtime, found))


def virtual_npus(ep: str, library: str) -> dict[str, Any]:
    """NPUs that are not on this machine by their platforms, such as ``4000``.

    For a process that compiles and does nothing else: the registration breaks the provider policies of
    sessions (docs/toolchains/openvino.md).
    """
    import onnxruntime as ort

    ort.register_execution_provider_library(f"{ep}.virtual", library)
    return {
        device.ep_metadata["npu_platform"]: device
        for device in ort.get_ep_devices()
        if device.ep_name == ep and device.device.metadata.get("is_virtual") == "1"
    }
