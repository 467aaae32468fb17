"""Which releases the packages for Windows bring, by files such as theirs: no such library was loaded here."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from aotpack.toolchains.file_version import file_version
from aotpack.toolchains.openvino import toolchain as openvino
from aotpack.toolchains.openvino.toolchain import OpenVinoToolchain
from aotpack.toolchains.tensorrt_rtx.toolchain import TensorRtRtxToolchain

#: VS_FIXEDFILEINFO of these files in onnxruntime-ep-openvino 1.8.1 and onnxruntime-ep-nv-tensorrt-rtx-cu12
#: 0.5.0 for win_amd64, its first 16 bytes.
RECORDED = {
    "openvino.dll": "bd04effe000001000400ea07c6590100",
    "tensorrt_rtx_1_7.dll": "bd04effe000001000700010074000100",
}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Installs files as those of a package."""
    uncached = openvino._bundled_release.__wrapped__

    def install(**files: bytes) -> None:
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        listed = [metadata.PackagePath(name) for name in files]
        for path in listed:
            path.dist = metadata.PathDistribution(tmp_path / "some.dist-info")
        monkeypatch.setattr(metadata, "files", lambda distribution: listed)
        monkeypatch.setattr(openvino, "_bundled_release", uncached)

    return install


def library(name: str, *, behind: int = 700_000) -> bytes:
    return b"\0" * 5_000_000 + bytes.fromhex(RECORDED[name]) + b"\0" * behind


def test_a_library_says_its_version(tmp_path: Path) -> None:
    path = tmp_path / "some.dll"
    path.write_bytes(library("openvino.dll"))
    assert file_version(path) == (2026, 4, 1, 22982)
    path.write_bytes(bytes.fromhex(RECORDED["tensorrt_rtx_1_7.dll"]))
    assert file_version(path) == (1, 7, 1, 116)


@pytest.mark.parametrize("content", [b"", b"MZ", bytes.fromhex(RECORDED["openvino.dll"])[:-1]])
def test_a_file_without_a_version_says_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "some.dll"
    path.write_bytes(content)
    assert file_version(path) is None
    assert file_version(tmp_path / "none.dll") is None


def test_openvinos_release_on_windows(installed: Callable[..., None]) -> None:
    installed(**{"openvino.dll": library("openvino.dll"), "openvino_auto_plugin.dll": b""})
    assert OpenVinoToolchain().runtime_details() == {"openvino": "2026.4.1"}
    installed(**{"openvino.dll": b"of another kind"})
    assert OpenVinoToolchain().runtime_details() == {}, "it stays unknown"


def test_tensorrt_rtxs_release_on_windows_is_not_the_half_of_it_in_a_name(
    installed: Callable[..., None],
) -> None:
    name = "tensorrt_rtx_1_7.dll"
    installed(**{"tensorrt_onnxparser_rtx_1_7.dll": b"", name: library(name)})
    assert TensorRtRtxToolchain().runtime_details() == {"tensorrt-rtx": "1.7.1.116"}
    installed(**{name: b"of another kind"})
    assert TensorRtRtxToolchain().runtime_details() == {}, "it stays unknown"


def test_tensorrt_rtxs_release_on_linux(installed: Callable[..., None]) -> None:
    installed(**{"libtensorrt_onnxparser_rtx.so.1.7.1": b"", "libtensorrt_rtx.so.1.7.1": b""})
    assert TensorRtRtxToolchain().runtime_details() == {"tensorrt-rtx": "1.7.1"}
