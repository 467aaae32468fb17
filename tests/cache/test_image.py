"""A cache that was copied into an image and can only be read there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from aotpack.cache.variants import Cache
from aotpack.container.reader import PackageReader
from aotpack.errors import OutputError
from tests.container.packages import Files, package
from tests.disks import mounted

FILES: Files = {"main": {"a": {"model.onnx": b"onnx a", "model.bin": bytes(range(256)) * 1000}}}


def test_what_is_whole_is_loaded_from_and_what_is_not_is_refused(tmp_path: Path) -> None:
    with mounted("tmpfs", 8, tmp_path) as disk, PackageReader.open(package(tmp_path, FILES)) as reader:
        (component,) = reader.manifest.components
        (variant,) = component.variants
        made = Cache(tmp_path / "cache")
        made.materialise(reader, component, variant)
        image = Cache(shutil.copytree(made.root, disk / "image"))
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        folder = image.materialise(reader, component, variant)
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == FILES["main"]["a"]
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        (folder / "model.onnx").chmod(0o644)
        (folder / "model.onnx").write_bytes(b"onnx b")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(OutputError, match="Read-only file system"):
            image.materialise(reader, component, variant)
