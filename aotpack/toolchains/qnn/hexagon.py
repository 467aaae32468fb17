"""Which Hexagon NPU a computer has, by the chip's name: of the device tree on Linux, of the NPU on Windows.

Sources: the compatible strings of Linux' Documentation/devicetree/bindings/arm/qcom.yaml; names of devices as
Windows reports them. The chips' architectures and VTCM are data (devices.toml). Held to what was recorded
elsewhere (tests/toolchains/test_devices.py); no such NPU was here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from aotpack.machine.profile import Npu
from aotpack.machine.system import System
from aotpack.toolchains.devices import npu_chips

__all__ = ["chip_in_name", "chips_in_device_tree", "identify"]

_VENDOR = "qualcomm"

#: The compute DSP, by the driver upstream and by Android's.
_DEVICES = ("/dev/fastrpc-cdsp*", "/dev/adsprpc-smd*")

#: ``Snapdragon(R) X Elite - X1E80100 - Qualcomm(R) Hexagon(TM) NPU``.
_NAME = re.compile(r" - (\w+) - Qualcomm\(R\) Hexagon\(TM\) NPU")


def identify(npus: Sequence[Npu], system: System) -> tuple[Npu, ...]:
    """`npus` with Qualcomm's told apart; on Linux, where none is listed, with that of the device tree.

    Args:
        npus: all that are known, of whatever vendor.
        system: the computer that has them.
    """
    listed = tuple(
        _known(npu, chip_in_name(npu.name or "")) if npu.vendor == _VENDOR else npu for npu in npus
    )
    if any(npu.vendor == _VENDOR for npu in npus):
        return listed
    chips = chips_in_device_tree(system.text("/proc/device-tree/compatible") or "")
    if not chips:
        return listed
    known = next((chip for chip in chips if _find(chip)), None)
    if known is None and not any(map(system.exists, _DEVICES)):
        # A chip of Qualcomm's that may have no NPU at all.
        return listed
    return (*listed, _known(Npu(vendor=_VENDOR, name="Hexagon NPU"), known))


def chip_in_name(name: str) -> str | None:
    """The chip in an NPU's name on Windows, in small letters; None if it is of another form."""
    match = _NAME.search(name)
    return match[1].lower() if match else None


def chips_in_device_tree(compatible: str) -> tuple[str, ...]:
    """Qualcomm's boards and chips in the root node's ``compatible``, which NULs part; the chips come last."""
    return tuple(each.removeprefix("qcom,") for each in compatible.split("\0") if each.startswith("qcom,"))


def _find(chip: str) -> tuple[str, int] | None:
    known: Mapping[str, tuple[str, int]] = npu_chips()
    # Of the chips for laptops the first two characters name the family: X1E80100, X1P42100, X126100.
    return known.get(chip) or (known.get(chip[:2]) if re.fullmatch(r"x\d[a-z]?\d{5,6}", chip) else None)


def _known(npu: Npu, chip: str | None) -> Npu:
    found = _find(chip) if chip else None
    if found is None:
        return npu
    architecture, vtcm_mb = found
    return npu.replace(architecture=architecture, vtcm_mb=vtcm_mb)
