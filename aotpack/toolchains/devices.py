"""GPUs and NPUs by the numbers and names that systems give them (devices.toml).

They stand apart from the catalogue of targets because every program that chooses needs them as it starts.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["npu_architectures", "npu_chips", "pci_vendors"]


@functools.cache
def _tables() -> Mapping[str, dict[str, Any]]:
    import tomllib
    from importlib import resources

    file = resources.files("aotpack.toolchains").joinpath("devices.toml")
    return tomllib.loads(file.read_text(encoding="utf-8"))


def pci_vendors() -> Mapping[str, str]:
    """PCI vendor numbers (lower-case hex) of makers of GPUs and NPUs, and their names."""
    return MappingProxyType(_tables()["pci_vendors"])


def npu_architectures() -> Mapping[str, str]:
    """PCI vendor and device numbers of NPUs (``8086:7d1d``), and their makers' names of the architecture."""
    return MappingProxyType(_tables()["npu_architectures"])


def npu_chips() -> Mapping[str, tuple[str, int]]:
    """Architecture and local memory in MB of NPUs by the name of the chip that they are part of."""
    chips = _tables()["npu_chips"]
    return MappingProxyType({chip: (architecture, vtcm) for chip, (architecture, vtcm) in chips.items()})
