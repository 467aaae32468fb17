"""GPUs and NPUs out of files and outputs that other computers had: recorded elsewhere, never run on them.

Where each text is from stands beside it.
"""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from aotpack.machine.profile import Gpu, Npu
from aotpack.machine.system import System, driver_named
from aotpack.runtime.probing import probe, seen
from aotpack.toolchains import toolchains
from aotpack.toolchains.qnn.hexagon import chip_in_name, chips_in_device_tree
from aotpack.toolchains.tensorrt_rtx.gpus import kernel_driver, read_nvidia_smi


@pytest.mark.parametrize(
    ("text", "driver"),
    [
        # Talos Linux' and SUSE's documentation, and a bug report on a Jetson.
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  515.65.01  Wed Mar 16 11:24:05 UTC 2022\n"
            "GCC version:  gcc version 12.2.0 (GCC)\n",
            "515.65.01",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  555.42.06  Release Build  (abuild@host)"
            "  Thu Jul 11 12:00:00 UTC 2024\nGCC version:  gcc version 7.5.0 (SUSE Linux) \n",
            "555.42.06",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build  "
            "(buildbrain@mobile-u64-6336-d8000)  Tue Jan  7 17:35:12 PST 2025\n",
            "540.4.0",
        ),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  384.81  Wed Aug 17 22:24:07 PDT 2016", "384.81"),
        ("", None),
        ("NVRM version: unknown", None),
    ],
)
def test_the_driver_of_the_kernels_module(text: str, driver: str | None) -> None:
    assert kernel_driver(text) == driver


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("NVIDIA GeForce RTX 4090, 8.9, 550.54.14\n", [("NVIDIA GeForce RTX 4090", "8.9", "550.54.14")]),
        (
            "NVIDIA GeForce RTX 5090, 12.0, 570.86.16\nNVIDIA GeForce RTX 3060, 8.6, 570.86.16\n",
            [
                ("NVIDIA GeForce RTX 5090", "12.0", "570.86.16"),
                ("NVIDIA GeForce RTX 3060", "8.6", "570.86.16"),
            ],
        ),
        # What it does not know.
        ("Quadro P400, [N/A], 535.129.03\n", [("Quadro P400", None, "535.129.03")]),
        ("NVIDIA A2, 8.6, [Not Supported]\r\n", [("NVIDIA A2", "8.6", None)]),
        # A release without the field, and no driver.
        ('Field "compute_cap" is not a valid field to query.\n\n', []),
        (
            "NVIDIA-SMI has failed because it could not communicate with the driver. Make sure that the "
            "latest NVIDIA driver is installed.\n",
            [],
        ),
        ("No devices were found\n", []),
        ("", []),
    ],
)
def test_what_nvidia_smi_prints(text: str, gpus: list[tuple[str, str | None, str | None]]) -> None:
    assert [(gpu.name, gpu.compute_capability, gpu.driver) for gpu in read_nvidia_smi(text)] == gpus
    assert {gpu.vendor for gpu in read_nvidia_smi(text)} <= {"nvidia"}


@pytest.mark.parametrize(
    ("name", "chip"),
    [
        # Names that Windows gave, in bug reports and benchmarks.
        ("Snapdragon(R) X Elite - X1E80100 - Qualcomm(R) Hexagon(TM) NPU", "x1e80100"),
        ("Snapdragon(R) X Plus - X1P42100 - Qualcomm(R) Hexagon(TM) NPU", "x1p42100"),
        ("Snapdragon(R) X2 Elite Extreme - X2E94100 - Qualcomm(R) Hexagon(TM) NPU", "x2e94100"),
        ("Snapdragon(R) X Elite - Qualcomm(R) Hexagon(TM) NPU", None),
        ("Intel(R) AI Boost", None),
    ],
)
def test_the_chip_in_the_name_of_an_npu(name: str, chip: str | None) -> None:
    assert chip_in_name(name) == chip


def computer(folder: Path, **files: str) -> System:
    """A computer with these files; `__` stands for `/`."""
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return System(folder)


@pytest.fixture
def no_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def program(folder: Path, name: str, printed: str, status: int = 0) -> None:
    path = folder / "bin" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nprintf '%s' '{printed}'\nexit {status}\n", encoding="utf-8")
    path.chmod(0o755)


#: As ORT lists a GeForce RTX 4070 and an Intel GPU on Linux: numbers and no names.
RTX = ("gpu", "10de", "2786", "", None)
IRIS = ("gpu", "8086", "a7a0", "", None)


def test_an_nvidia_gpu_is_as_its_program_lists_it(tmp_path: Path, no_programs: None) -> None:
    program(tmp_path, "nvidia-smi", "NVIDIA GeForce RTX 4070, 8.9, 581.15\n")
    devices = seen([RTX, IRIS], computer(tmp_path))
    assert devices.gpus == (
        Gpu(vendor="nvidia", name="NVIDIA GeForce RTX 4070", compute_capability="8.9", driver="581.15"),
        Gpu(vendor="intel"),
    )


@pytest.mark.parametrize("status", [0, 9], ids=["says nothing", "fails"])
def test_where_the_program_fails_the_driver_is_that_of_the_kernel(
    tmp_path: Path, no_programs: None, status: int
) -> None:
    program(tmp_path, "nvidia-smi", "", status)
    version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024"
    devices = seen([RTX], computer(tmp_path, proc__driver__nvidia__version=version))
    assert devices.gpus == (Gpu(vendor="nvidia", driver="550.54.14"),)
    assert devices.gpus[0].compute_capability is None, "what nobody says is not known"


def test_a_container_whose_gpu_ort_does_not_list(tmp_path: Path, no_programs: None) -> None:
    program(tmp_path, "nvidia-smi", "NVIDIA L4, 8.9, 550.54.14\n")
    version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024"
    assert [gpu.name for gpu in seen([], computer(tmp_path, proc__driver__nvidia__version=version)).gpus] == [
        "NVIDIA L4"
    ]


def test_without_an_nvidia_gpu_its_program_is_not_run(tmp_path: Path, no_programs: None) -> None:
    program(tmp_path, "nvidia-smi", "NVIDIA L4, 8.9, 550.54.14\n")
    assert seen([IRIS], computer(tmp_path)).gpus == (Gpu(vendor="intel"),)


def test_drivers_of_other_gpus_and_npus_are_their_modules(tmp_path: Path, no_programs: None) -> None:
    """A Core Ultra: the layout is Linux' sysfs ABI; the numbers are those of Meteor Lake."""
    system = computer(
        tmp_path,
        **{
            "sys__class__drm__card0__device__vendor": "0x8086\n",
            "sys__class__drm__card0__device__device": "0x7d55\n",
            "sys__class__drm__card0-eDP-1__device__vendor": "0x8086\n",
            "sys__class__drm__card0-eDP-1__device__device": "0x7d55\n",
            "sys__class__accel__accel0__device__vendor": "0x8086\n",
            "sys__class__accel__accel0__device__device": "0x7d1d\n",
            "sys__module__intel_vpu__version": "1.0.0\n",
            "proc__sys__kernel__osrelease": "6.8.0-45-generic\n",
        },
    )
    for where, module in (("drm/card0", "i915"), ("accel/accel0", "intel_vpu")):
        (tmp_path / "sys/bus" / module).mkdir(parents=True)
        (tmp_path / "sys/class" / where / "device/driver").symlink_to(tmp_path / "sys/bus" / module)
    devices = seen([("gpu", "8086", "7d55", "Intel", None)], system)
    assert devices.gpus == (Gpu(vendor="intel", driver="i915 6.8.0-45-generic"),)
    # ORT lists no NPU on Linux.
    assert devices.npus == (Npu(vendor="intel", architecture="3720", driver="intel_vpu 1.0.0"),)


@pytest.mark.parametrize(
    ("compatible", "npus"),
    [
        # Root nodes of boards in Linux' arch/arm64/boot/dts/qcom.
        ("lenovo,thinkpad-t14s\0qcom,x1e78100\0qcom,x1e80100\0", [("v73", 8)]),
        ("qcom,sm8550-hdk\0qcom,sm8550\0", [("v73", 8)]),
        ("qcom,qcs8550-aim300-aiot\0qcom,qcs8550-aim300\0qcom,qcs8550\0qcom,sm8550\0", [("v73", 8)]),
        ("qcom,sm8650-qrd\0qcom,sm8650\0", [("v75", 8)]),
        ("qcom,sm8750-mtp\0qcom,sm8750\0", [("v79", 8)]),
        ("qcom,qcs6490-rb3gen2\0qcom,qcm6490\0", [("v68", 2)]),
        # One that nobody here knows: with no compute DSP it may have no NPU at all.
        ("qcom,msm8916-mtp\0qcom,msm8916\0", []),
        ("raspberrypi,5-model-b\0brcm,bcm2712\0", []),
    ],
)
def test_the_npu_of_a_device_tree(
    tmp_path: Path, no_programs: None, compatible: str, npus: list[tuple[str, int]]
) -> None:
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/compatible").write_bytes(compatible.encode())
    found = seen([], System(tmp_path)).npus
    assert [(npu.architecture, npu.vtcm_mb) for npu in found] == npus
    assert {npu.vendor for npu in found} <= {"qualcomm"}


def test_a_compute_dsp_in_an_unknown_chip_is_an_npu_of_which_nothing_is_known(
    tmp_path: Path, no_programs: None
) -> None:
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/compatible").write_bytes(b"qcom,sm9999-mtp\0qcom,sm9999\0")
    system = computer(tmp_path, **{"dev__fastrpc-cdsp": ""})
    assert seen([], system).npus == (Npu(vendor="qualcomm", name="Hexagon NPU"),)
    assert chips_in_device_tree("a,b\0qcom,x\0") == ("x",)


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("Snapdragon(R) X Elite - X1E78100 - Qualcomm(R) Hexagon(TM) NPU", "v73"),
        ("Snapdragon(R) X2 Elite - X2E78100 - Qualcomm(R) Hexagon(TM) NPU", "v81"),
        ("Snapdragon(R) Y Elite - Y1E80100 - Qualcomm(R) Hexagon(TM) NPU", None),
        (None, None),
    ],
)
def test_the_npu_that_windows_lists(
    tmp_path: Path, no_programs: None, name: str | None, architecture: str | None
) -> None:
    (npu,) = seen([("npu", "4d4f4351", "0", "Qualcomm", name)], System(tmp_path)).npus
    assert (npu.vendor, npu.name, npu.architecture) == ("qualcomm", name, architecture)


def test_a_driver_on_windows_is_that_of_the_devices_name() -> None:
    name = "Snapdragon(R) X Elite - X1E78100 - Qualcomm(R) Hexagon(TM) NPU"
    assert driver_named(name, {name: "30.0.219.1000"}) == "30.0.219.1000"
    assert driver_named("another", {name: "30.0.219.1000"}) is None
    assert driver_named(None, {"": "1"}) is None


def test_a_toolchain_that_fails_to_tell_its_devices_is_left_aside(
    tmp_path: Path, no_programs: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*arguments: object) -> None:
        raise RuntimeError("upset")

    monkeypatch.setattr(type(toolchains()["qnn"]), "identify", fails)
    assert seen([IRIS], System(tmp_path)).gpus == (Gpu(vendor="intel"),)
    assert "[probe-failed]" in caplog.text


def test_the_memory_is_that_of_the_computer() -> None:
    assert probe().memory == psutil.virtual_memory().total


def test_a_program_that_hangs_or_is_not_there_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aotpack.machine.system._TIMEOUT", 0.5)
    assert System().run("sleep", "30") is None
    assert System().run("no-such-program") is None
    assert System(tmp_path).text("/no/such/file") is None
    assert System(tmp_path).pci_devices() == []


def test_another_driver_is_another_machine() -> None:
    machines = [
        probe().replace(gpus=(Gpu(vendor="nvidia", driver=driver),)) for driver in ("581.15", "581.29")
    ]
    assert machines[0].key() != machines[1].key()
