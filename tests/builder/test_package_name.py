"""The name that a package gets from its model's file."""

from __future__ import annotations

from pathlib import Path

import pytest

from aotpack.builder.build import package_name
from aotpack.common.values import check_title


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("vad 16k.onnx", "vad-16k"),
        ("模型.onnx", "model"),
        ("模型-v2.onnx", "v2"),
        (".onnx", "onnx"),
        ("a..onnx", "a"),
        ("CON.onnx", "model-CON"),
        ("é" * 200 + "x" * 200 + ".onnx", "x" * 120),
    ],
)
def test_every_file_gives_a_name(file: str, name: str) -> None:
    found = package_name(Path(file))
    assert found == name
    check_title(name=found, version="0")
