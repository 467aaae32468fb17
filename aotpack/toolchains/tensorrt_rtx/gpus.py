"""What NVIDIA's own files and programs say of its GPUs: compute capability and driver.

Sources: ``nvidia-smi --help-query-gpu``; README of the Linux driver, on /proc/driver/nvidia. Held to outputs
that were recorded elsewhere (tests/toolchains/test_devices.py); no such GPU was here.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence

from aotpack.machine.profile import Gpu
from aotpack.machine.system import System

__all__ = ["identify", "kernel_driver", "read_nvidia_smi"]

_VENDOR = "nvidia"

_QUERY = ("nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader")

#: ``… Kernel Module  535.129.03  Thu …`` or ``… Open Kernel Module for x86_64  560.35.03``.
_KERNEL_MODULE = re.compile(r"NVRM version: .*?Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)")


def identify(gpus: Sequence[Gpu], system: System) -> tuple[Gpu, ...]:
    """`gpus` with NVIDIA's as its own program lists them, or else with the driver of the kernel's module.

    Args:
        gpus: all that are known, of whatever vendor.
        system: the computer that has them.
    """
    others = [gpu for gpu in gpus if gpu.vendor != _VENDOR]
    own = [gpu for gpu in gpus if gpu.vendor == _VENDOR]
    version = system.text("/proc/driver/nvidia/version")
    if not own and version is None:
        return tuple(gpus)
    listed = read_nvidia_smi(system.run(*_QUERY) or "")
    if listed:
        return (*listed, *others)
    driver = kernel_driver(version or "")
    return (*(gpu.replace(driver=driver or gpu.driver) for gpu in own), *others)


def read_nvidia_smi(text: str) -> list[Gpu]:
    """The GPUs in what ``nvidia-smi`` printed for the query of name, compute capability and driver.

    What it does not know it prints as ``[N/A]`` or ``[Not Supported]``; a line of another form, such as the
    error of a release that does not know a field, is no GPU.
    """
    gpus = []
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(row) != 3:
            continue
        name, capability, driver = (cell.strip() for cell in row)
        gpus.append(
            Gpu(
                vendor=_VENDOR,
                name=name,
                compute_capability=capability if re.fullmatch(r"\d{1,2}\.\d", capability) else None,
                driver=driver if re.fullmatch(r"\d+(\.\d+)+", driver) else None,
            )
        )
    return gpus


def kernel_driver(text: str) -> str | None:
    """The driver's version in /proc/driver/nvidia/version; None if it is not there."""
    match = _KERNEL_MODULE.search(text)
    return match[1] if match else None
