"""What probing reads of a computer beside ONNX Runtime's device discovery: files, programs, drivers.

The root of the files is given, so that the files of other computers can be read as well.
"""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PciDevice", "System", "driver_named"]

#: Bytes; what is read here has some hundred.
_MAX_FILE = 64 * 1024

#: Seconds, for a program that answers in less than one.
_TIMEOUT = 10.0

#: Windows' classes of drivers: GUID_DEVCLASS_DISPLAY for GPUs, GUID_DEVCLASS_COMPUTEACCELERATOR for NPUs.
_WINDOWS_CLASSES = ("{4d36e968-e325-11ce-bfc1-08002be10318}", "{f01a9d53-3ff6-48d2-9f97-c8a7004be10c}")


@dataclass(frozen=True, slots=True)
class PciDevice:
    """A GPU or an NPU as Linux lists it."""

    #: ``gpu`` or ``npu``.
    type: str
    #: PCI numbers, lower-case hex of four digits.
    vendor: str
    device: str
    #: The kernel's module and its version, or that of the kernel it came with: ``i915 6.8.0-45-generic``.
    driver: str | None


class System:
    """Files and programs of a computer; what is not there, or cannot be read, is None or nothing.

    Args:
        root: where its files are.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def text(self, path: str) -> str | None:
        """The text of a file, without what does not belong to it at its ends: spaces, NULs and line ends."""
        try:
            with (self.root / path.lstrip("/")).open("rb") as file:
                return file.read(_MAX_FILE).decode("utf-8", "replace").strip(" \t\r\n\0")
        except OSError:
            return None

    def exists(self, pattern: str) -> bool:
        """Whether there is a file of that name; ``*`` stands for anything."""
        return any(self._glob(pattern))

    def run(self, *command: str) -> str | None:
        """What a program printed; None if it is not there, fails or hangs."""
        program = shutil.which(command[0])
        if program is None:
            return None
        import subprocess  # most computers have no such program

        try:
            done = subprocess.run(
                [program, *command[1:]],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TIMEOUT,
                text=True,
                errors="replace",
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout if done.returncode == 0 else None

    def pci_devices(self) -> list[PciDevice]:
        """GPUs and NPUs that have a driver of Linux' DRM or accel subsystem."""
        found = []
        for kind, pattern in (
            ("gpu", "sys/class/drm/card[0-9]*/device/vendor"),
            ("npu", "sys/class/accel/accel[0-9]*/device/vendor"),
        ):
            for file in sorted(self._glob(pattern)):
                folder = file.parent
                numbers = [self._pci_number(folder / name) for name in ("vendor", "device")]
                # The connectors of a card are listed as cards, too: card0-HDMI-A-1.
                if "-" not in folder.parent.name and all(numbers):
                    found.append(PciDevice(kind, str(numbers[0]), str(numbers[1]), self._driver(folder)))
        return found

    def windows_drivers(self) -> Mapping[str, str]:
        """Versions of the drivers of GPUs and NPUs by the name of the device; empty elsewhere."""
        if sys.platform != "win32":
            return {}
        import winreg

        found: dict[str, str] = {}
        for each in _WINDOWS_CLASSES:
            path = rf"SYSTEM\CurrentControlSet\Control\Class\{each}"
            try:
                with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path) as key:
                    names = [winreg.EnumKey(key, index) for index in range(winreg.QueryInfoKey(key)[0])]
            except OSError:
                continue
            for name in names:
                try:
                    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, rf"{path}\{name}") as key:
                        described = winreg.QueryValueEx(key, "DriverDesc")[0]
                        found[described] = winreg.QueryValueEx(key, "DriverVersion")[0]
                except OSError:
                    # ``Properties``, which only the system reads.
                    continue
        return found

    def _glob(self, pattern: str) -> Iterator[Path]:
        try:
            yield from self.root.glob(pattern.lstrip("/"))
        except OSError:
            return

    def _pci_number(self, path: Path) -> str | None:
        text = self.text(str(path.relative_to(self.root)))
        return text.removeprefix("0x").lower() if text else None

    def _driver(self, folder: Path) -> str | None:
        try:
            module = (folder / "driver").resolve(strict=True).name
        except OSError:
            return None
        version = self.text(f"sys/module/{module}/version") or self.text("proc/sys/kernel/osrelease")
        return f"{module} {version or platform.release()}"


def driver_named(name: str | None, drivers: Mapping[str, str]) -> str | None:
    """The version of the driver of the device of that name."""
    return drivers.get(name) if name else None
