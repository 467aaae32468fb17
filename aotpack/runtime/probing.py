"""What this computer has, as ONNX Runtime, the system and the toolchains tell it."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import platform
import sys
from collections.abc import Iterable

from aotpack.machine.ort_release import ort_version
from aotpack.machine.profile import MAX_PROFILE_TEXT, Cpu, Devices, Ep, Gpu, Machine, Npu, normal_arch
from aotpack.machine.system import System, driver_named
from aotpack.toolchains import toolchains
from aotpack.toolchains.devices import npu_architectures, pci_vendors

__all__ = ["probe", "seen"]

_log = logging.getLogger(__name__)


def probe() -> Machine:
    """What this computer has. Probed once for a process and environment; imports onnxruntime.

    Vendor's libraries are not loaded: an EP counts as installed when its package is.
    """
    watched = {name for toolchain in toolchains().values() for name in toolchain.environment}
    return _probe(tuple((name, _plain(os.environ[name])) for name in sorted(watched) if name in os.environ))


def _plain(text: str) -> str:
    r"""`text` as a profile can hold it: bytes that are no UTF-8 stand as ``\udcff``."""
    return text.encode("utf-8", "backslashreplace").decode()[:MAX_PROFILE_TEXT]


@functools.lru_cache(maxsize=4)
def _probe(environment: tuple[tuple[str, str], ...]) -> Machine:
    eps: dict[str, Ep] = {}
    for toolchain in toolchains().values():
        try:
            version = toolchain.version()
            # Of toolchains for one EP the first says what is installed: a third party's comes after ours.
            if version is not None and toolchain.ep not in eps:
                eps[toolchain.ep] = Ep(version=version, details=dict(toolchain.runtime_details()))
        except Exception as error:
            # What one vendor's package lacks must not keep a machine from being known.
            said = "%s: cannot tell its version: %s [probe-failed]"
            _log.warning(said, toolchain.name, error, exc_info=error)
    devices = _devices()
    none = () if _lists_devices() else None
    return Machine(
        name=_plain(platform.node()) or None,
        os={"win32": "windows", "darwin": "macos"}.get(sys.platform, sys.platform),
        arch=normal_arch(platform.machine()),
        cpu=_cpu(),
        gpus=devices.gpus or none,
        npus=devices.npus or none,
        memory=_memory(),
        onnxruntime=ort_version(),
        eps=eps,
        environment=dict(environment),
    )


def _memory() -> int | None:
    """Bytes of memory that this computer has, or None."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.virtual_memory().total)
    # psutil would say the same, and takes longer to import than all else here takes.
    with contextlib.suppress(OSError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _cpu() -> Cpu:
    import archspec.cpu
    from archspec.cpu import detect

    host, raw = archspec.cpu.host(), detect.detected_info()
    # `host` is the nearest named microarchitecture, in a virtual machine often a generic one: newer features
    # are in `raw` only, and so may be the vendor.
    vendor = raw.vendor if host.vendor == "generic" else host.vendor
    return Cpu(
        vendor=None if vendor in {"", "generic"} else vendor,
        model=archspec.cpu.brand_string() or None,
        microarchitecture=host.name,
        features=tuple(sorted(raw.features | host.features)),
    )


def _lists_devices() -> bool:
    """Whether a GPU or NPU that is not listed is not there."""
    from onnxruntime.capi import _pybind_state as state

    return sys.platform == "linux" or hasattr(state, "get_hardware_devices")


def _devices() -> Devices:
    """The GPUs and NPUs that ORT's discovery lists, and what the system and the vendors say of them."""
    from onnxruntime.capi import _pybind_state as state

    system = System()
    if not hasattr(state, "get_hardware_devices"):
        # Before 1.26. On Linux its discovery reads what is read here.
        return seen(
            [(each.type, each.vendor, each.device, "", None) for each in system.pci_devices()], system
        )
    listed = [
        (
            device.type.name.lower(),
            f"{device.vendor_id:04x}",
            f"{device.device_id:04x}",
            device.vendor.lower(),
            device.metadata.get("Description"),
        )
        for device in state.get_hardware_devices()
    ]
    return seen(listed, system)


def seen(listed: Iterable[tuple[str, str, str, str, str | None]], system: System) -> Devices:
    """The GPUs and NPUs of a computer.

    Args:
        listed: by ORT's discovery: type, number of the vendor and of the device in hex, names of both.
        system: the computer, whose drivers and vendors' programs are looked at as well.
    """
    pci, drivers = system.pci_devices(), system.windows_drivers()
    by_number = {(each.vendor, each.device): each.driver for each in pci}
    rows = list(listed)
    # ORT's discovery lists no NPU on Linux.
    known = {(kind, vendor, device) for kind, vendor, device, *_ in rows}
    rows += [
        (each.type, each.vendor, each.device, "", None)
        for each in pci
        if each.type == "npu" and (each.type, each.vendor, each.device) not in known
    ]
    gpus: list[Gpu] = []
    npus: list[Npu] = []
    for kind, number, device, vendor_name, name in rows:
        if kind not in ("gpu", "npu"):
            # Every computer lists a CPU, and most nothing else: devices.toml is not read for it.
            continue
        vendor = pci_vendors().get(number, vendor_name or f"pci-{number}")
        driver = by_number.get((number, device)) or driver_named(name, drivers)
        if kind == "gpu":
            gpus.append(Gpu(vendor=vendor, name=name, driver=driver))
        else:
            architecture = npu_architectures().get(f"{number}:{device}")
            npus.append(Npu(vendor=vendor, name=name, architecture=architecture, driver=driver))
    devices = Devices(tuple(gpus), tuple(npus))
    for toolchain in toolchains().values():
        try:
            devices = toolchain.identify(devices, system)
        except Exception as error:
            # What one vendor's files say must not keep a machine from being known.
            said = "%s: cannot tell its devices: %s [probe-failed]"
            _log.warning(said, toolchain.name, error, exc_info=error)
    return devices
