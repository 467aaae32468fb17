"""The build file of every target."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from aotpack.builder.plan import plan
from aotpack.builder.spec_file import read_build_file
from aotpack.targets.catalogue import catalogue
from aotpack.toolchains import toolchains
from samples.every_target import BUILD_FILE


def test_it_has_every_target_that_does_not_need_the_very_device(
    real_model: Callable[[str], Path], tmp_path: Path
) -> None:
    file = Path(shutil.copy(BUILD_FILE, tmp_path))
    # Planned, not built: what is in them does not matter.
    for name in ("magika.onnx", "magika-int8.onnx"):
        shutil.copy(real_model("magika"), tmp_path / name)
    planned = plan(read_build_file(file), toolchains())
    devices_only = {"openvino-gpu", "tensorrt", "vitisai-npu", "migraphx"}
    assert {job.target.name for job in planned.jobs} - {"qnn-htp-v73+v75+v79"} == (
        set(catalogue()) - devices_only
    )
