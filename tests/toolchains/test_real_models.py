"""Every real model becomes one compiled node for each vendor, with the numbers of its source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from aotpack.builder.numerics.measure import NOISE_MULTIPLE
from tests.command_line import aotpack
from tests.hardware import compilable, needs

LONG = pytest.mark.long

#: A model and the shapes that it needs fixed.
MODELS = [
    ("silero_vad_openvino_16k", ("input=1,576", "state=2,1,128")),
    ("silero_vad_half", ("input=1,576", "state=2,1,128")),
    ("magika", ("bytes=1,2048",)),
    ("basic_pitch", ("unk__749=1",)),
    ("light_shufflenet", ()),
    ("light_bvlc_alexnet", ()),
    pytest.param("light_resnet50", (), marks=LONG),
    pytest.param("light_inception_v2", (), marks=LONG),
    pytest.param("light_zfnet512", (), marks=LONG),
]

TARGETS = compilable("openvino-cpu-avx2", "qnn-htp-v73")


@pytest.mark.parametrize(("name", "shapes"), MODELS)
def test_a_real_model_becomes_one_node(
    real_model: Callable[[str], Path], name: str, shapes: tuple[str, ...], tmp_path: Path
) -> None:
    done = aotpack(
        *("build", real_model(name), "-o", tmp_path / "real.aotpack", "--no-portable", "--json"),
        *(f"--target={target}" for target in TARGETS),
        *(f"--shape={shape}" for shape in shapes),
    )
    assert done.status == 0, done.err
    rows = done.document("build-report")["rows"]
    assert [row["target"] for row in rows] == list(TARGETS)
    for row in rows:
        coverage = row["coverage"]
        assert coverage["partitions"] == 1
        assert coverage["compiled"] == coverage["nodes"] > 0
        assert not coverage["left_on_cpu"]
        assert row["numerics"]["error"] <= row["numerics"]["tolerance"]
        assert row["ep_string"]


@needs("openvino-cpu-avx2")
def test_what_the_models_own_noise_allows_is_no_fault(
    real_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """OpenVINO 2026.4 gives other probabilities than ORT for this model, all of whose channels are equal.

    Its scores are so large that their rounding decides which is the largest.
    """
    package = tmp_path / "loud.aotpack"
    done = aotpack(
        "build", real_model("light_squeezenet"), "-o", package, "-t", "openvino-cpu-avx2", "--json"
    )
    assert done.status == 0, done.err
    (row, _) = done.document("build-report")["rows"]
    assert row["coverage"] == row["coverage"] | {"partitions": 1, "left_on_cpu": {}}
    numerics = row["numerics"]
    # The limit is that of the slice which is told; the noise is that of the loudest one.
    noise = numerics["outputs"][0]["noise"]
    assert 0.001 < numerics["error"] <= numerics["tolerance"] <= NOISE_MULTIPLE * noise
